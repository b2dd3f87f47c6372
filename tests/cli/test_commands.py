from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import CONFIG, Run


def test_help_needs_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, dovetail.cli\n"
        "heavy = ('torch', 'numpy', 'rich', 'optuna', 'sqlalchemy', 'matplotlib', 'sympy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands_in_the_order_of_work(run: Run) -> None:
    text = run("--help").stdout
    places = [
        text.index(f"  {name} ") for name in ("train", "profile", "space", "transform", "search", "show", "formats")
    ]
    assert places == sorted(places)


def test_train_writes_weights_where_the_configuration_looks_for_them(project: Path, run: Run) -> None:
    config = project / "based.toml"
    config.write_text(
        CONFIG.replace('name = "net.py:small"', 'name = "net.py:small"\ncheckpoint = "base/model.safetensors"')
    )
    result = run("train", config, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert Path(found["checkpoint"]) == project / "base" / "model.safetensors"
    assert found["scores"]["validation"]["accuracy"]["value"] > 0.6  # three clouds: chance is one third
    searched = json.loads(run("search", config, "--out", project / "based", "--json").stdout)
    assert searched["best"]["top"]["software_metrics"]["accuracy"] > 0.6


def test_profile_counts_what_hand_and_paper_count(project: Path, run: Run) -> None:
    found = json.loads(run("profile", project / "run.toml", "--json").stdout)
    total = found["operations"][-1]
    assert total["params"] == (4 + 1) * 6 + (6 + 1) * 3
    assert total["macs"] == 4 * 6 + 6 * 3
    assert total["flops"] == 2 * total["macs"] + 6
    assert found["latency"]["latency_ms"] > 0


def test_profile_prints_costs_in_closed_form(project: Path, run: Run) -> None:
    formulas = json.loads(run("profile", project / "run.toml", "--formula", "--json").stdout)
    assert formulas["params"] == "8*w[0] + 3"  # (4 + 1) w + (w + 1) 3


def test_space_lists_decisions_groups_and_prices_every_plan(project: Path, run: Run) -> None:
    result = run("space", project / "run.toml", "--csv", project / "space.csv", "--json")
    found = json.loads(result.stdout)
    assert found["size"] == 16
    assert re.search(r"16 plans priced into \S*space\.csv in \d+\.\d s\.", result.stderr)
    assert [g["name"] for g in found["groups"] if g["frozen"] is None] == ["0"]
    rows = list(csv.DictReader((project / "space.csv").read_text().splitlines()))
    assert len(rows) == 16
    assert {float(row["average_bitwidth"]) for row in rows} == {
        8.0,
        3.0,
        (24 * 8 + 18 * 3) / 42,
        (24 * 3 + 18 * 8) / 42,
    }
    assert found["costs"]["average_bitwidth"]["minimum"] == 3.0


def test_transform_applies_a_plan_of_the_front(project: Path, run: Run, searched: Path) -> None:
    plan = sorted((searched / "pareto").iterdir())[0]
    result = run("transform", project / "run.toml", "--plan", plan, "--out", project / "new", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["before"]["average_bitwidth"] == 32
    assert found["after"]["average_bitwidth"] <= 8
    with (searched / "trials.csv").open() as file:
        trial = next(row for row in csv.DictReader(file) if plan.stem == f"plan-{int(row['number']):03d}")
    assert found["score_after"]["accuracy"]["value"] == float(trial["accuracy"])
    assert Path(found["weights"]).is_file()


def test_formats_are_listed_and_described(run: Run) -> None:
    listed = json.loads(run("formats", "--json").stdout)
    assert "fixed" in listed["names"]
    one = json.loads(run("formats", "fixed(4,2)", "--json").stdout)
    assert one["values"] == [code / 4 for code in range(-8, 8)]
    assert one["maximum"] == 1.75
    assert "16 values: -2 -1.75" in run("formats", "fixed(4,2)").stdout


def test_a_format_is_drawn(run: Run, tmp_path: Path) -> None:
    assert run("formats", "fixed(4,2)", "--png", tmp_path / "line.png").exit_code == 0
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")


def test_a_format_under_a_scale_is_described_by_its_elements(run: Run) -> None:
    shown = run("formats", "mxfp4").stdout
    assert "15 values of an element, before its scale: -6 -4 -3 -2 -1.5 -1 -0.5 0 0.5 1 1.5 2 3 4 6" in shown
    assert "maximum            from data" in run("formats", "int(4)").stdout
    found = json.loads(run("formats", "int(3,affine)", "--json").stdout)
    assert (found["values"], found["element_values"]) == (None, list(range(8)))


def test_values_over_many_powers_of_two_are_drawn_by_their_logarithm(run: Run, tmp_path: Path) -> None:
    assert "powers of two at equal distances" in run("formats", "log(6,15)").stdout
    assert "powers of two" not in run("formats", "fixed(32,16)").stdout
    drawn = run("formats", "float16", "--png", tmp_path / "line.png")
    assert "63,487 values" in drawn.stdout
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")


def test_more_values_than_can_be_drawn_are_said_to_be(run: Run, tmp_path: Path) -> None:
    assert "too many to draw" in run("formats", "float32").stdout
    assert run("formats", "float32", "--png", tmp_path / "line.png").exit_code == 2


def test_an_unknown_format_is_bad_input(run: Run) -> None:
    result = run("formats", "fixd(4,2)")
    assert result.exit_code == 2
    assert "fixed" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("strategy", "stratgy", "unknown key 'stratgy'. Did you mean 'strategy'?"),
        ('"brute-force"', '"brute-forse"', "unknown strategy 'brute-forse'. Did you mean 'brute-force'?"),
        ("accuracy =", "acuracy =", "unknown metric 'acuracy'. Did you mean 'accuracy'"),
        ('"fixed(4,2)"]', '"fixt(4,2)"]', "space.precision[0].data_in[1]: "),
        ('"linear"', '"linaer"', "matches nothing"),
        ("epochs = 8", 'epochs = "8"', "train.epochs: must be int, got str '8'."),
        ('"points.npz"', '"pints.npz"', "pints.npz"),
        ('"net.py:small"', '"net.py:smal"', "smal"),
        (
            'name = "net.py:small"',
            'name = "net.py:small"\ncheckpoint = "none.safetensors"',
            "none.safetensors: must be a file",
        ),
        ("[search.metrics]", "[search.constraints]\naverage_bitwidth = '= 4'\n[search.metrics]", "'<=' or '>='"),
        ("[search.metrics]", "[search.constraints]\naccuracy = '>= 4 KiB'\n[search.metrics]", "a limit in share"),
        ("[search.metrics]", "[search.constraints]\nmodel_bytes = '<= 4 ms'\n[search.metrics]", "a limit in bytes"),
        ("[train]", "device = 3\n[train]", "device"),
    ],
)
def test_bad_input_is_one_line_that_names_the_place_and_writes_nothing(
    project: Path, run: Run, old: str, new: str, says: str
) -> None:
    assert old in CONFIG
    (project / "bad.toml").write_text(CONFIG.replace(old, new, 1))
    result = run("search", project / "bad.toml", "--out", project / "bad")
    assert result.exit_code == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not (project / "bad").exists()


def test_a_corrupt_checkpoint_and_data_with_nan_are_bad_input(project: Path, run: Run) -> None:
    (project / "broken.safetensors").write_bytes(b"not a checkpoint")
    text = CONFIG.replace('name = "net.py:small"', 'name = "net.py:small"\ncheckpoint = "broken.safetensors"')
    (project / "bad.toml").write_text(text)
    assert "broken.safetensors" in run("profile", project / "bad.toml").stderr
    x = np.full((40, 4), np.nan)
    np.savez(project / "nan.npz", x_train=x, y_train=np.arange(40) % 3, x_test=x, y_test=np.arange(40) % 3)
    (project / "bad.toml").write_text(CONFIG.replace("points.npz", "nan.npz"))
    result = run("search", project / "bad.toml", "--out", project / "bad")
    assert result.exit_code == 2
    assert "error: " in result.stderr


@pytest.mark.parametrize(
    "text", ["[formats]\nx = 3", "nonsense", '[formats."9"]\nweight = "fixed(8,4)"', "[width]\n0 = 3"]
)
def test_a_plan_that_is_none_or_of_another_model_is_bad_input(project: Path, run: Run, text: str) -> None:
    (project / "plan.toml").write_text(text)
    for command in ("transform", "profile"):
        result = run(command, project / "run.toml", "--plan", project / "plan.toml")
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].startswith(f"error: {project / 'plan.toml'}: ")


def test_bad_usage_is_exit_code_2(run: Run) -> None:
    assert run("search").exit_code == 2
    assert run("seach").exit_code == 2
    assert run("search", "x.toml", "--trials", 0).exit_code == 2
