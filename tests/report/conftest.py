from __future__ import annotations

import pytest

from dovetail.evaluation import Measured, Score
from dovetail.objective import Constraint, Objective
from dovetail.record import Trial, TrialState
from dovetail.study import DecisionRecord, StudyHeader


@pytest.fixture
def header() -> StudyHeader:
    """One decision among four formats; accuracy against bits."""
    formats = ("fixed(16,8)", "fixed(8,4)", "fixed(4,2)", "fixed(2,1)")
    return StudyHeader(
        decisions=(
            DecisionRecord(
                name="fc:weight",
                kind="precision",
                labels=formats,
                effects=tuple((("fc:weight", text),) for text in formats),
            ),
        ),
        objectives=(
            Objective(name="accuracy", direction="maximize"),
            Objective(name="bits", direction="minimize", scale=0.2, is_cost=True),
        ),
        constraints=(Constraint(metric="bits", op="<=", limit=15.0, is_cost=True),),
        unpriced=(("bits", ("fc2 (fft)",)),),
        units=(("bits", "bits"),),
    )


@pytest.fixture
def trials(header: StudyHeader) -> list[Trial]:
    """16 bits (beyond the constraint), 8 bits, 4 bits, and a failure at 2 bits."""
    made = []
    for number, (accuracy, bits) in enumerate(((0.95, 16.0), (0.1 + 0.2, 8.0), (0.25, 4.0), (0.0, 2.0))):
        failed = number == 3
        made.append(
            Trial(
                number=number,
                row=(number,),
                choices=header.labels((number,)),
                plan=header.plan((number,)),
                state=TrialState.FAILED if failed else TrialState.COMPLETE,
                reason="loss is nan" if failed else None,
                costs=(("bits", bits),),
                score=None
                if failed
                else Score((("accuracy", Measured(accuracy, 40, accuracy - 0.1, accuracy + 0.1)),)),
                finished_at="2026-01-01T00:00:00+00:00",
            )
        )
    return made
