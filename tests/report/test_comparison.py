"""What a comparison shows is what it found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dovetail.errors import StudyError
from dovetail.objective import Objective
from dovetail.report.comparison import milestone_table, plot_comparison, rank_table
from dovetail.search.compare import Comparison, Curve


def comparison() -> Comparison:
    objectives = (
        Objective(name="accuracy", direction="maximize"),
        Objective(name="bops", direction="minimize", is_cost=True),
    )
    reference = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.2]])
    fast = [Curve("fast", seed, reference[[1, 2, 0]]) for seed in range(4)]
    slow = [Curve("slow", seed, reference[[0, 0, 2]]) for seed in range(4)]
    return Comparison(objectives, False, (*fast, *slow), reference, True, 3)


def test_the_table_shows_medians_intervals_and_runs_that_never_arrived() -> None:
    table = milestone_table(comparison())
    assert table.columns[:2] == ("strategy", "90% best")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["fast"][0] == "1 [1-1]"
    assert rows["slow"][0] == "none in 4"
    assert "median of 4 runs" in table.title


def test_pairs_are_ranked_only_where_the_runs_support_it() -> None:
    (row,) = rank_table(comparison()).rows
    assert row[0] == "fast over slow"
    assert row[2] == "yes"


def test_the_picture_is_written_in_each_format(tmp_path: Path) -> None:
    paths = [tmp_path / "c.png", tmp_path / "c.svg"]
    plot_comparison(comparison(), paths)
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in paths[1].read_text()


def test_a_picture_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        plot_comparison(comparison(), [tmp_path / "file" / "c.png"])
