from __future__ import annotations

import json
import math

import pytest

from dovetail.errors import StudyError
from dovetail.evaluation import Measured, Score
from dovetail.formats import parse
from dovetail.plan import Plan, Site, SiteKind
from dovetail.record import Trial, TrialState

PLAN = Plan.of({Site("fc", SiteKind.WEIGHT): parse("fixed(8,4)")}, {"fc": 64})
TRIAL = Trial(
    number=7,
    row=(0, 2),
    choices=(("fc:weight", "fixed(8,4)"), ("fc:width", "x2")),
    plan=PLAN,
    costs=(("params", 3013.0),),
    measurements=(("latency_ms", 0.25),),
    score=Score(
        (("accuracy", Measured(0.1 + 0.2, 3, 0.0, 1.0)), ("loss", Measured(1.5, 1, -math.inf, math.inf))), b"\xa0"
    ),
    details=(("device", "cpu"), ("epochs", 2.0)),
    seed=11,
    duration_s=0.125,
    finished_at="2026-01-01T00:00:00+00:00",
)


def test_a_trial_survives_json_to_the_bit() -> None:
    assert Trial.from_dict(json.loads(json.dumps(TRIAL.to_dict()))) == TRIAL


def test_figures_of_all_three_kinds_are_found_by_name() -> None:
    assert TRIAL.figures == {"accuracy": 0.1 + 0.2, "loss": 1.5, "params": 3013.0, "latency_ms": 0.25}
    assert TRIAL.value("params") == 3013.0


def test_a_missing_figure_is_an_error_that_names_the_nearest_and_never_a_number() -> None:
    with pytest.raises(StudyError, match=r"trial 7: unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        TRIAL.value("acuracy")


def test_only_figures_from_samples_have_an_interval() -> None:
    measured = TRIAL.measured("accuracy")
    assert measured is not None
    assert measured.samples == 3
    assert TRIAL.measured("params") is None


@pytest.mark.parametrize(("state", "reason"), [(TrialState.FAILED, None), (TrialState.COMPLETE, "out of memory")])
def test_a_trial_has_a_reason_exactly_when_it_failed(state: TrialState, reason: str | None) -> None:
    with pytest.raises(StudyError, match="a failed trial, and only that, has a reason"):
        Trial(number=0, row=(), choices=(), plan=Plan(), state=state, reason=reason)


@pytest.mark.parametrize("damage", [{"row": None}, {"costs": 3}, {"score": 1}])
def test_a_damaged_record_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(StudyError, match="must have every key"):
        Trial.from_dict({**TRIAL.to_dict(), **damage})
