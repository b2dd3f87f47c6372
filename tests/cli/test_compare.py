"""`dovetail compare` from one command: tables, files, and the second run that evaluates nothing anew."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def compared(project: Path, run: Run) -> Path:
    folder = project / "compared"
    result = run(
        "compare", project / "run.toml", "--strategies", "random,pareto,brute-force", "--repeats", 4,
        "--trials", 16, "--workers", 1, "--out", folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    for heading in ("random", "pareto", "brute-force", "hypervolume"):
        assert heading in result.stdout
    return folder


def test_compare_writes_one_line_per_evaluation_and_two_pictures(compared: Path) -> None:
    rows = list(csv.DictReader((compared / "compare.csv").read_text().splitlines()))
    assert list(rows[0]) == ["strategy", "seed", "evaluation", "best", "hypervolume"]
    assert {row["strategy"] for row in rows} == {"random", "pareto", "brute-force"}
    assert {row["seed"] for row in rows} == {"0", "1", "2", "3"}
    last = [row for row in rows if row["evaluation"] == "16"]
    assert len(last) == 3 * 4
    assert all(float(row["hypervolume"]) == pytest.approx(1.0) for row in last)  # all 16 plans: the true front
    assert (compared / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (compared / "compare.svg").read_text()


def test_best_so_far_and_hypervolume_never_fall(compared: Path) -> None:
    rows = list(csv.DictReader((compared / "compare.csv").read_text().splitlines()))
    for before, after in itertools.pairwise(rows):
        if (before["strategy"], before["seed"]) == (after["strategy"], after["seed"]):
            assert float(after["hypervolume"]) >= float(before["hypervolume"])
            assert float(after["best"]) >= float(before["best"])


def test_compared_again_the_kept_table_is_replayed(project: Path, run: Run, compared: Path) -> None:
    result = run(
        "compare", project / "run.toml", "--strategies", "random,pareto", "--repeats", 4, "--trials", 16,
        "--workers", 1, "--out", compared, "--json",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert found["exhausted"] is True
    assert {m["strategy"] for m in found["milestones"]} == {"random", "pareto"}
    assert all(m["reached"] == m["runs"] == 4 for m in found["milestones"])


def test_a_strategy_that_is_none_is_an_error_that_names_those_there_are(project: Path, run: Run) -> None:
    result = run("compare", project / "run.toml", "--strategies", "random,tpee")
    assert result.exit_code == 2
    assert "'tpee'" in result.stderr
    assert "tpe" in result.stderr
    assert "Traceback" not in result.stderr
