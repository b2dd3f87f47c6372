from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from dovetail.errors import StudyError
from dovetail.evaluation import Measured, Score
from dovetail.objective import Constraint
from dovetail.plan import Plan
from dovetail.record import Trial
from dovetail.report import (
    RunFiles,
    best_table,
    describe_best,
    describe_none,
    describe_ranking,
    front_table,
    print_table,
    results_dict,
    write_results,
)
from dovetail.report.csv_file import write_trials_csv
from dovetail.report.figures import format_duration
from dovetail.report.run_files import write_atomically
from dovetail.report.tables import Table, fits
from dovetail.search.best import find_best
from dovetail.study import StudyHeader


def test_the_table_has_the_fields_columns_and_the_best_trial_first(header: StudyHeader, trials: list[Trial]) -> None:
    table = best_table(header, trials)
    assert table.columns == ("number", "software_metrics", "hardware_metrics", "scaled_metrics")
    assert [row[0] for row in table.rows] == ["1", "2"]  # 0 is beyond the constraint, 3 failed
    assert table.rows[0][1] == "accuracy 0.3 [0.2, 0.4] n=40"
    assert table.rows[0][2] == "bits 8 bits (incomplete)"
    assert table.rows[0][3] == "accuracy 0.3\nbits 1.6"


def test_the_front_keeps_what_is_not_dominated(header: StudyHeader, trials: list[Trial]) -> None:
    assert [row[0] for row in front_table(header, trials).rows] == ["1", "2"]


def test_a_weighted_sum_ranks_and_is_shown(header: StudyHeader, trials: list[Trial]) -> None:
    table = best_table(dataclasses.replace(header, weighted_sum=True), trials)  # 0.3 - 1.6 against 0.25 - 0.8
    assert [row[0] for row in table.rows] == ["2", "1"]
    assert table.rows[0][3].endswith("sum -0.55")


def test_results_for_machines_are_json_and_in_full(header: StudyHeader, trials: list[Trial]) -> None:
    found = json.loads(json.dumps(results_dict(header, trials)))
    assert found["trials"] == 4
    assert found["failed"] == 1
    assert found["best"]["top"]["software_metrics"]["accuracy"] == 0.1 + 0.2
    assert found["best"]["top"]["scaled_metrics"]["bits"] == 0.2 * 8.0
    assert Plan.from_dict(found["front"][1]["plan"]) == trials[2].plan
    assert found["unpriced"] == {"bits": ["fc2 (fft)"]}


def test_the_answer_names_the_top_and_the_cheapest_alike(header: StudyHeader, trials: list[Trial]) -> None:
    best = find_best(trials, header.objectives, header.constraints, summed=False)
    text = describe_best(best)
    assert text.startswith("Best: trial 1 (accuracy 0.3 [0.2, 0.4] n=40, bits 8).")
    assert "not significantly worse: trial 2" in text


def test_without_a_best_trial_the_nearest_to_each_constraint_is_told(header: StudyHeader, trials: list[Trial]) -> None:
    far = Constraint(metric="accuracy", op=">=", limit=0.99)
    high = Constraint(metric="accuracy", op=">=", limit=0.9)
    assert describe_none(header, trials[3:]) == "Best: none. No trial is complete."
    told = describe_none(dataclasses.replace(header, constraints=(*header.constraints, far)), trials)
    assert told == "Best: none. accuracy >= 0.99: the nearest is 0.95 (trial 0)."
    told = describe_none(dataclasses.replace(header, constraints=(*header.constraints, high)), trials)
    assert told == "Best: none. Each constraint is kept by a trial, all by none."


def test_an_order_that_the_samples_do_not_support_is_not_told_as_a_ranking(
    header: StudyHeader, trials: list[Trial]
) -> None:
    assert describe_ranking(header, trials[:2]) is None  # only one keeps the constraint
    told = describe_ranking(header, trials)  # [0.2, 0.4] and [0.15, 0.35] meet
    assert told == "On these samples the others cannot be told from the first by accuracy: their order is no ranking."
    far = dataclasses.replace(trials[2], score=Score((("accuracy", Measured(0.05, 40, 0.0, 0.1)),)))
    told = describe_ranking(header, [trials[1], far])
    assert told == "Every other of these 2 has a significantly worse accuracy than the first."


def test_csv_has_a_column_per_decision_and_figure_in_full_precision(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    write_trials_csv(tmp_path / "trials.csv", header, trials)
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["fc:weight"] for row in rows] == ["fixed(16,8)", "fixed(8,4)", "fixed(4,2)", "fixed(2,1)"]
    assert float(rows[1]["accuracy"]) == 0.1 + 0.2
    assert rows[1]["accuracy_samples"] == "40"
    assert float(rows[1]["scaled_bits"]) == 0.2 * 8.0
    assert rows[3]["reason"] == "loss is nan"
    assert rows[3]["accuracy"] == ""


def test_a_runs_folder_has_csv_front_best_and_picture(tmp_path: Path, header: StudyHeader, trials: list[Trial]) -> None:
    files = RunFiles(tmp_path / "run")
    best = find_best(trials, header.objectives, header.constraints, summed=False)
    (files.front).mkdir(parents=True)
    (files.front / "plan-099.toml").write_text("old")
    write_results(files, header, trials, best)
    assert sorted(path.name for path in files.front.iterdir()) == ["plan-001.toml", "plan-002.toml"]
    assert Plan.from_toml((files.front / "plan-001.toml").read_text()) == trials[1].plan
    assert Plan.from_toml(files.best_plan.read_text()) == trials[2].plan
    assert files.plot.read_bytes().startswith(b"\x89PNG")


def test_a_search_in_which_everything_failed_has_results_too(
    tmp_path: Path, header: StudyHeader, trials: list[Trial]
) -> None:
    files = RunFiles(tmp_path)
    write_results(files, header, trials[3:], None)
    assert not files.best_plan.exists()
    assert files.trials.exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with contextlib.suppress(ZeroDivisionError), write_atomically(path) as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"), write_atomically(tmp_path / "file" / "x.txt"):
        pass


def test_tables_in_a_log_have_no_escape_codes(
    header: StudyHeader, trials: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(best_table(header, trials))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "software_metrics" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0.4 ms"), (2.25, "2.2 s"), (59.99, "60.0 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations_are_told_in_a_handy_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_table_fits_where_no_text_breaks_over_lines() -> None:
    at_most = Table(title="t", columns=("a", "b"), rows=(("x" * 100, "y" * 53),))  # frame: 1, and 3 for each column
    assert fits(at_most, io.StringIO())
    printed = io.StringIO()
    print_table(at_most, printed)
    assert any("x" * 100 in line and "y" * 53 in line for line in printed.getvalue().splitlines())
    assert not fits(Table(title="t", columns=("a", "b"), rows=(("x" * 100, "y" * 54),)), io.StringIO())
    assert fits(Table(title="t", columns=("a",), rows=(("x" * 90 + "\n" + "y" * 90,),)), io.StringIO())
