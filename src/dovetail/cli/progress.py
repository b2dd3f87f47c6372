"""Progress of a search: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from dovetail.objective import weighted_sum

if TYPE_CHECKING:
    from dovetail.search.run import Progress
    from dovetail.session import Session

__all__ = ["SearchProgress"]

_LINE_EVERY_S = 5.0
_REDRAW_EVERY_S = 0.1


class SearchProgress:
    """Shows how many trials are done, the best so far and the time left."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._objectives: Any = ()
        self._constraints: Any = ()
        self._is_sum = False
        self._best: tuple[float, str] | None = None
        self._shown_at = 0.0
        self._last: Progress | None = None

    def start(self, session: Session, known: int, total: int | None) -> None:
        """Begin: a search of `total` trials, `known` of which are there already."""
        self._objectives, self._constraints = session.objectives, session.constraints
        self._is_sum = session.problem.weighted_sum
        self._shown_at = time.monotonic()
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            SpinnerColumn(),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[best]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("search", total=total, completed=known, left="", best="")
        self._bar.start()

    def update(self, progress: Progress) -> None:
        """One trial more."""
        self._last = progress
        self._note_best(progress)
        now = time.monotonic()
        is_soon = now - self._shown_at < (_LINE_EVERY_S if self._bar is None else _REDRAW_EVERY_S)
        if is_soon and progress.evaluated != progress.total:
            return
        self._shown_at = now
        self._show(progress)
        self._last = None

    def _note_best(self, progress: Progress) -> None:
        trial = progress.trial
        if not trial.is_complete or not self._objectives:
            return
        figures = trial.figures
        if not all(c.holds(figures[c.metric]) for c in self._constraints):
            return
        if self._is_sum:
            merit = weighted_sum(self._objectives, [figures[o.name] for o in self._objectives])
            text = f"best sum {merit:.5g}"
        else:
            leading = next((o for o in self._objectives if not o.is_cost), self._objectives[0])
            merit = leading.sign * figures[leading.name]
            text = f"best {leading.name} {figures[leading.name]:.5g}"
        if self._best is None or merit > self._best[0]:
            self._best = merit, f"{text} (trial {trial.number})"

    def _show(self, progress: Progress) -> None:
        from dovetail.report.figures import format_duration

        left = "" if progress.left_s is None else f"{format_duration(progress.left_s)} left"
        best = self._best[1] if self._best else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.evaluated, left=left, best=best)
            return
        total = "" if progress.total is None else f" of {progress.total:,}"
        parts = [f"{progress.evaluated:,}{total} trials", f"{format_duration(progress.elapsed_s)} gone", left, best]
        click.echo(", ".join(filter(None, parts)), err=True)

    def finish(self) -> None:
        """The last figures where they are not shown yet, and no more."""
        if self._last is not None:
            self._show(self._last)
            self._last = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
