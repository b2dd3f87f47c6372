from __future__ import annotations

import math

import pytest

from dovetail.evaluation import Measured, Score
from dovetail.objective import Constraint, Objective
from dovetail.record import Trial, TrialState
from dovetail.study import DecisionRecord, StudyHeader


@pytest.fixture
def header() -> StudyHeader:
    """Two decisions: a weight format out of two, a width out of two (the first of which is the model's own)."""
    return StudyHeader(
        decisions=(
            DecisionRecord(
                name="fc:weight",
                kind="precision",
                labels=("fixed(8,4)", "fixed(4,2)"),
                effects=((("fc:weight", "fixed(8,4)"),), (("fc:weight", "fixed(4,2)"),)),
            ),
            DecisionRecord(name="fc:width", kind="width", labels=("x1", "x2"), effects=((), (("fc", 64),))),
        ),
        objectives=(
            Objective(name="accuracy", direction="maximize"),
            Objective(name="average_bitwidth", direction="minimize", scale=0.2, is_cost=True),
        ),
        constraints=(Constraint(metric="model_bytes", op="<=", limit=4096.0, is_cost=True),),
        seed=3,
        identity=(("data.name", '"digits"'), ("search.seed", "3")),
        versions=(("dovetail", "0.1.0"),),
        created_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def trials(header: StudyHeader) -> list[Trial]:
    """Four rows: three complete, the last failed; the first with values that are easily lost in storage."""
    awkward = Score(
        (("accuracy", Measured(0.1 + 0.2, 10, 1 / 3, 0.9)), ("loss", Measured(2.0, 1, -math.inf, math.inf))),
        b"\x00\xff",
    )
    rows = [(0, 0), (0, 1), (1, 0), (1, 1)]
    made = []
    for number, row in enumerate(rows):
        failed = number == 3
        score = (
            awkward if number == 0 else Score((("accuracy", Measured(0.5 + number / 10, 10, 0.2, 0.9)),), b"\xaa\x80")
        )
        made.append(
            Trial(
                number=number,
                row=row,
                choices=header.labels(row),
                plan=header.plan(row),
                state=TrialState.FAILED if failed else TrialState.COMPLETE,
                reason="loss is nan" if failed else None,
                costs=(("average_bitwidth", 8.0 if row[0] == 0 else 4.0), ("model_bytes", 1e15 + 1)),
                measurements=(("latency_ms", 0.1 + number),),
                score=None if failed else score,
                details=(("epochs", 3.0), ("device", "cpu")),
                seed=2**31 - 1,
                duration_s=1e-5,
                finished_at="2026-01-01T00:00:01.000002+00:00",
            )
        )
    return made
