"""Trials as CSV: one row per trial, one column per decision and per figure, floats in full."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from dovetail.record import Trial
from dovetail.report.run_files import write_atomically
from dovetail.study.header import StudyHeader

__all__ = ["write_csv", "write_trials_csv"]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows under their heads; floats as the shortest text that reads back to the same float, None as nothing.

    Raises:
        StudyError: The file cannot be written; what stood there before stays.
    """
    with write_atomically(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([repr(cell) if isinstance(cell, float) else cell for cell in row] for row in rows)


def write_trials_csv(path: Path, header: StudyHeader, trials: Sequence[Trial]) -> None:
    """Write every trial: a column per decision and per figure; for figures from samples also samples and interval.

    Raises:
        StudyError: The file cannot be written.
    """
    quality = _in_order(name for trial in trials if trial.score for name, _ in trial.score.metrics)
    others = _in_order(name for trial in trials for name, _ in (*trial.costs, *trial.measurements))
    details = _in_order(name for trial in trials for name, _ in trial.details)
    spread = [f"{name}_{part}" for name in quality for part in ("samples", "low", "high")]
    scaled = [f"scaled_{o.name}" for o in header.objectives]
    columns = [
        "number", "state", "reason", *(d.name for d in header.decisions), *quality, *others, *scaled, *spread, *details,
        "seed", "duration_s", "finished_at",
    ]  # fmt: skip

    def cells(trial: Trial) -> list[object]:
        figures = trial.figures
        measured = [trial.measured(name) for name in quality]
        ends = [part for m in measured for part in ((m.samples, m.low, m.high) if m else (None, None, None))]
        scaled = [o.scale * figures[o.name] if o.name in figures else None for o in header.objectives]
        found = dict(trial.details)
        return [
            trial.number, trial.state.value, trial.reason, *(label for _, label in trial.choices),
            *(figures.get(name) for name in (*quality, *others)), *scaled, *ends,
            *(found.get(name) for name in details), trial.seed, trial.duration_s, trial.finished_at,
        ]  # fmt: skip

    write_csv(path, columns, (cells(trial) for trial in trials))


def _in_order(names: Iterable[str]) -> list[str]:
    """Each name once, where it first came."""
    return list(dict.fromkeys(names))
