from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest

from dovetail.errors import StudyError
from dovetail.record import Trial
from dovetail.study import StudyHeader, export_to_optuna


def test_an_optuna_study_has_the_trials_with_values_choices_and_states(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    assert export_to_optuna(header, trials, url, "mine") == 4
    study = optuna.load_study(study_name="mine", storage=url)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert study.trials[0].values == [0.1 + 0.2, 8.0]
    assert study.trials[2].params == {"fc:weight": "fixed(4,2)", "fc:width": "x1"}
    assert study.trials[3].user_attrs["reason"] == "loss is nan"
    assert {t.number for t in study.best_trials} == {2}  # 0.7 at 4 bits, against 0.6 and 0.3 at 8


def test_a_weighted_sum_is_one_value_to_maximise(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    export_to_optuna(dataclasses.replace(header, weighted_sum=True), trials[:1], url, "mine")
    study = optuna.load_study(study_name="mine", storage=url)
    assert study.best_value == pytest.approx(0.3 - 0.2 * 8.0)


def test_an_optuna_study_of_that_name_is_not_written_over(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    export_to_optuna(header, trials[:1], url, "mine")
    with pytest.raises(StudyError, match="has an Optuna study called 'mine' already"):
        export_to_optuna(header, trials, url, "mine")
