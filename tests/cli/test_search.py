from __future__ import annotations

import csv
import json
from pathlib import Path

import optuna
import pytest
import torch

from dovetail import api
from dovetail.config import load_config
from dovetail.runs import open_run
from tests.cli.conftest import CONFIG, Run


def accuracy_by_choices(folder: Path) -> dict[str, float]:
    with open_run(folder) as study:
        return {json.dumps(t.choices): t.value("accuracy") for t in study.trials()}


def test_a_search_leaves_config_study_csv_front_picture_and_best_model(searched: Path) -> None:
    names = {path.name for path in searched.iterdir()}
    assert names >= {"config.toml", "study.db", "trials.csv", "pareto", "pareto.png", "best.toml", "best.safetensors"}
    rows = list(csv.DictReader((searched / "trials.csv").read_text().splitlines()))
    assert len(rows) == 16
    assert {"0:data_in", "0:weight", "2:data_in", "2:weight", "accuracy", "average_bitwidth"} <= set(rows[0])


def test_the_same_command_again_repeats_no_trial(project: Path, run: Run, searched: Path) -> None:
    before = (searched / "trials.csv").read_text()
    result = run("search", project / "run.toml", "--out", searched)
    assert result.exit_code == 0
    assert "0 new trials" in result.stdout
    assert "16 of 16 evaluated: this is the optimum." in result.stdout
    assert (searched / "trials.csv").read_text() == before


def test_a_search_in_parts_gives_the_trials_of_one_in_one_go(project: Path, run: Run, searched: Path) -> None:
    folder = project / "parts"
    first = run("search", project / "run.toml", "--out", folder, "--trials", 5)
    assert "5 of 16 evaluated: 11 are missing" in first.stdout
    for trials in (9, 16):
        assert run("search", project / "run.toml", "--out", folder, "--trials", trials).exit_code == 0
    assert accuracy_by_choices(folder) == accuracy_by_choices(searched)


def test_a_folder_of_another_configuration_is_an_error_that_names_the_key(
    project: Path, run: Run, searched: Path
) -> None:
    result = run("search", project / "run.toml", "--out", searched, "--seed", 7)
    assert result.exit_code == 2
    assert "search.seed is 0 there and 7 here" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_every_kind_of_strategy_finds_the_accuracies_that_brute_force_finds(
    project: Path, run: Run, searched: Path, strategy: str
) -> None:
    folder = project / strategy
    result = run("search", project / "run.toml", "--out", folder, "--strategy", strategy, "--trials", 10)
    assert result.exit_code == 0, result.stderr
    found, whole = accuracy_by_choices(folder), accuracy_by_choices(searched)
    assert len(found) == 10
    assert found == {choices: whole[choices] for choices in found}


def test_json_has_the_best_the_front_and_the_certificate(project: Path, run: Run, searched: Path) -> None:
    found = json.loads(run("search", project / "run.toml", "--out", searched, "--json").stdout)
    assert found["certificate"] == "16 of 16 evaluated: this is the optimum."
    assert found["end"] == "exhausted"
    assert len(found["front"]) >= 1
    assert found["best"]["top"]["software_metrics"]["accuracy"] >= found["front"][-1]["software_metrics"]["accuracy"]


def test_the_saved_configuration_runs_again_to_the_same_trials(project: Path, run: Run, searched: Path) -> None:
    again = project / "again"
    assert run("search", searched / "config.toml", "--out", again).exit_code == 0
    assert accuracy_by_choices(again) == accuracy_by_choices(searched)


def test_python_says_what_the_file_says(project: Path, searched: Path) -> None:
    result = api.search(load_config(project / "run.toml"), out=project / "python")
    assert result.certificate.is_complete
    assert accuracy_by_choices(project / "python") == accuracy_by_choices(searched)


def test_the_best_model_loads_and_scores_what_its_trial_says(project: Path, searched: Path) -> None:
    with open_run(searched) as study:
        best = min(study.trials(), key=lambda t: t.plan.to_toml() not in (searched / "best.toml").read_text())
    model = api.load(searched)
    split = api.Session(load_config(project / "run.toml")).split
    with torch.no_grad():
        right = (model(*split.inputs).argmax(1) == split.targets).double().mean().item()
    assert right == best.value("accuracy")


def test_trials_can_be_kept_elsewhere(project: Path, run: Run) -> None:
    folder, url = project / "elsewhere", f"sqlite:///{project / 'shared.db'}"
    assert run("search", project / "run.toml", "--out", folder, "--storage", url).exit_code == 0
    assert not (folder / "study.db").exists()
    assert json.loads(run("show", folder, "--json").stdout)["trials"] == 16


def test_show_tells_what_the_search_told(run: Run, searched: Path) -> None:
    result = run("show", searched, "--history")
    assert result.exit_code == 0
    for text in (
        "All 16 trials",
        "Pareto front",
        "software_metrics",
        "hardware_metrics",
        "scaled_metrics",
        "Best: trial",
    ):
        assert text in result.stdout


def test_show_hands_trials_to_optuna(project: Path, run: Run, searched: Path) -> None:
    url = f"sqlite:///{project / 'optuna.db'}"
    assert run("show", searched, "--to-optuna", url, "--name", "mine").exit_code == 0
    assert len(optuna.load_study(study_name="mine", storage=url).trials) == 16


def test_show_of_what_is_no_run_is_an_error(project: Path, run: Run) -> None:
    result = run("show", project)
    assert result.exit_code == 2
    assert "must be the folder of a search" in result.stderr


def test_a_constraint_on_cost_is_never_broken(project: Path, run: Run) -> None:
    (project / "small.toml").write_text(CONFIG + '\n[search.constraints]\naverage_bitwidth = "<= 4"\n')
    result = run("search", project / "small.toml", "--out", project / "small", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["certificate"].startswith("4 of 4 evaluated; 12 plans are ruled out by the constraints on costs")
    assert all(t["hardware_metrics"]["average_bitwidth"] <= 4 for t in found["ranking"])


def test_latency_is_measured_for_every_trial_where_it_is_asked_for(project: Path, run: Run) -> None:
    text = CONFIG.replace('["fixed(8,6)", "fixed(3,2)"]', '["fixed(8,6)"]').replace('"fixed(4,2)"]', "]")
    (project / "latency.toml").write_text(text + 'latency_ms = { direction = "minimize" }\n')
    result = run("search", project / "latency.toml", "--out", project / "latency", "--json")
    assert result.exit_code == 0, result.stderr
    assert all(t["hardware_metrics"]["latency_ms"] > 0 for t in json.loads(result.stdout)["ranking"])


def test_a_search_that_trains_its_candidates_scores_the_model_it_saves(project: Path, run: Run) -> None:
    text = CONFIG.replace('["fixed(8,6)", "fixed(3,2)"]', '["fixed(8,6)"]').replace('"fixed(4,2)"]', "]")
    text += '\n[evaluation]\nprotocol = "train"\n\n[[space.width]]\ngroups = "0"\nmultipliers = [0.5, 2]\n'
    (project / "train.toml").write_text(text)
    folder = project / "trained"
    result = run("search", project / "train.toml", "--out", folder)
    assert result.exit_code == 0, result.stderr
    with open_run(folder) as study:
        trials = study.trials()
    assert {t.plan.width("0") for t in trials} == {3, 12}
    best = min(trials, key=lambda t: t.plan.to_toml() not in (folder / "best.toml").read_text())
    split = api.Session(load_config(project / "train.toml")).split
    with torch.no_grad():
        right = (api.load(folder)(*split.inputs).argmax(1) == split.targets).double().mean().item()
    assert right == best.value("accuracy")
