"""What a search shows of itself in a log."""

from __future__ import annotations

import pytest

from dovetail.cli.progress import SearchProgress
from dovetail.plan import Plan
from dovetail.record import Trial, TrialState
from dovetail.search.run import Progress


def progress(evaluated: int, total: int | None) -> Progress:
    trial = Trial(number=evaluated - 1, row=(), choices=(), plan=Plan(), state=TrialState.FAILED, reason="none")
    return Progress(trial=trial, evaluated=evaluated, recalled=0, total=total, elapsed_s=1.0)


def test_the_last_trial_is_shown_at_once_and_no_line_comes_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchProgress() as shown:
        for number in (1, 2, 3):  # the second comes too soon after the first
            shown.update(progress(number, 3))
        before_the_end = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in before_the_end] == ["1 of 3 trials", "3 of 3 trials"]
    assert capsys.readouterr().err == ""


def test_the_last_figures_of_a_search_that_ends_early_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchProgress() as shown:
        shown.update(progress(1, 9))
        shown.update(progress(2, 9))
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["1 of 9 trials", "2 of 9 trials"]
