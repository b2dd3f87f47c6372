"""Trial <-> one row of the table."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from dovetail.errors import StudyError
from dovetail.evaluation.score import Measured, Score
from dovetail.record import Trial, TrialState
from dovetail.study.header import StudyHeader

__all__ = ["decode_trial", "encode_trial"]

_ENCODER = msgspec.json.Encoder()
_ROW = msgspec.json.Decoder(tuple[int, ...])
_FIGURES = msgspec.json.Decoder(dict[str, float])
_DETAILS = msgspec.json.Decoder(dict[str, float | str | None])
_METRICS = msgspec.json.Decoder(tuple[tuple[str, float, int, float | None, float | None], ...])


def encode_trial(study_id: int, trial: Trial) -> dict[str, Any]:
    """The table's row of a trial; floats keep every bit."""
    score = trial.score
    return {
        "study_id": study_id,
        "number": trial.number,
        "row": _text(trial.row),
        "state": trial.state.value,
        "reason": trial.reason,
        "costs": _text(dict(trial.costs)),
        "measurements": _text(dict(trial.measurements)),
        "metrics": None if score is None else _text([(n, m.value, m.samples, m.low, m.high) for n, m in score.metrics]),
        "correct": None if score is None else score.correct,
        "details": _text(dict(trial.details)),
        "seed": trial.seed,
        "duration_s": trial.duration_s,
        "finished_at": trial.finished_at,
    }


def decode_trial(header: StudyHeader, row: Any) -> Trial:
    """The trial of a table's row.

    Raises:
        StudyError: The row is not one that `encode_trial` gives.
    """
    try:
        chosen = _ROW.decode(row.row)
        return Trial(
            number=row.number,
            row=chosen,
            choices=header.labels(chosen),
            plan=header.plan(chosen),
            state=TrialState(row.state),
            reason=row.reason,
            costs=tuple(_FIGURES.decode(row.costs).items()),
            measurements=tuple(_FIGURES.decode(row.measurements).items()),
            score=None if row.metrics is None else Score(_decode_metrics(row.metrics), row.correct),
            details=tuple(
                (name, math.nan if value is None else value) for name, value in _DETAILS.decode(row.details).items()
            ),
            seed=row.seed,
            duration_s=row.duration_s,
            finished_at=row.finished_at,
        )
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        raise StudyError(f"study: trial {row.number} cannot be read, its row is corrupt: {error}.") from error


def _decode_metrics(text: str) -> tuple[tuple[str, Measured], ...]:
    return tuple(
        (name, Measured(value, samples, -math.inf if low is None else low, math.inf if high is None else high))
        for name, value, samples, low, high in _METRICS.decode(text)
    )


def _text(value: Any) -> str:
    return _ENCODER.encode(value).decode()
