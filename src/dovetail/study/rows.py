"""Trial <-> one row of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_SUMS = msgspec.msgpack.Decoder(dict[str, bytes])


def encode_trial(study_id: int, trial: Trial) -> tuple[Any, ...]:
    """The columns of the table, in their order; floats keep every bit."""
    score = trial.score
    return (
        study_id,
        trial.number,
        _text(trial.row),
        trial.state.value,
        trial.reason,
        _text(dict(trial.costs)),
        _text(dict(trial.measurements)),
        None if score is None else _text([(n, m.value, m.samples, m.low, m.high) for n, m in score.metrics]),
        None if score is None else score.correct,
        msgspec.msgpack.encode(dict(score.sums)) if score is not None and score.sums else None,
        _text(dict(trial.details)),
        trial.seed,
        trial.duration_s,
        trial.finished_at,
    )


def decode_trial(header: StudyHeader, columns: Sequence[Any]) -> Trial:
    """The trial of the table's columns.

    Raises:
        StudyError: They are not what `encode_trial` gives.
    """
    _, number, row, state, reason, costs, measurements, metrics, correct, sums, details, seed, spent, ended = columns
    try:
        chosen = _ROW.decode(row)
        return Trial(
            number=number,
            row=chosen,
            choices=header.labels(chosen),
            plan=header.plan(chosen),
            state=TrialState(state),
            reason=reason,
            costs=tuple(_FIGURES.decode(costs).items()),
            measurements=tuple(_FIGURES.decode(measurements).items()),
            score=None if metrics is None else _decode_score(metrics, correct, sums),
            details=tuple(
                (name, math.nan if value is None else value) for name, value in _DETAILS.decode(details).items()
            ),
            seed=seed,
            duration_s=spent,
            finished_at=ended,
        )
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        raise StudyError(f"study: trial {number} cannot be read, its row is corrupt: {error}.") from error


def _decode_score(metrics: str, correct: Any, sums: Any) -> Score:
    return Score(
        _decode_metrics(metrics),
        None if correct is None else bytes(correct),
        () if sums is None else tuple(_SUMS.decode(bytes(sums)).items()),
    )


def _decode_metrics(text: str) -> tuple[tuple[str, Measured], ...]:
    return tuple(
        (name, Measured(value, samples, -math.inf if low is None else low, math.inf if high is None else high))
        for name, value, samples, low, high in _METRICS.decode(text)
    )


def _text(value: Any) -> str:
    return _ENCODER.encode(value).decode()
