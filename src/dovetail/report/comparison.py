"""A comparison of strategies as tables and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dovetail.errors import StudyError
from dovetail.report.tables import Table
from dovetail.search.compare import Comparison, Milestone

__all__ = ["milestone_table", "plot_comparison", "rank_table"]

_SIGNIFICANCE = 0.05


def milestone_table(comparison: Comparison) -> Table:
    """Evaluations to each share of the goal: the median, its 95 % interval, and how many runs got there."""
    found = {(m.strategy, m.figure, m.share): m for m in comparison.milestones()}
    heads = list(dict.fromkeys((m.figure, m.share) for m in found.values()))
    rows = [(s, *(_milestone(found[s, *head]) for head in heads)) for s in comparison.strategies]
    runs = max(m.runs for m in found.values())
    of = "of the true front's" if comparison.exhausted else "of that of all plans seen"
    return Table(
        title=f"Evaluations to a share of the best value and of the hypervolume ({of}); median of {runs} runs [95 %]",
        columns=("strategy", *(f"{share:.0%} {figure}" for figure, share in heads)),
        rows=tuple(rows),
        numeric=tuple(f"{share:.0%} {figure}" for figure, share in heads),
    )


def rank_table(comparison: Comparison) -> Table:
    """Which strategies differ: Mann-Whitney tests on the areas under hypervolume curves, corrected for all pairs."""
    tests = comparison.rank_tests()
    rows = tuple(
        (f"{t.better} over {t.worse}", f"{t.p_value:.2g}", "yes" if t.p_value < _SIGNIFICANCE else "not shown")
        for t in tests
    )
    return Table(
        title="Pairs of strategies, by area under the hypervolume curve (Mann-Whitney U, Holm's correction)",
        columns=("pair", "p", "better"),
        rows=rows,
        numeric=("p",),
    )


def plot_comparison(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Draw best-so-far and hypervolume against evaluations: medians as lines, quartiles as bands.

    Args:
        comparison: what to draw.
        paths: files to write, each .png or .svg.

    Raises:
        StudyError: A file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    evaluations = np.arange(1, comparison.num_evaluations + 1)
    panels = (("best", "best so far (share of the best)"), ("hypervolume", "hypervolume (share of the front's)"))
    for axes, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
        lows = []
        for strategy in comparison.strategies:
            curves = np.stack([getattr(comparison, name)(c) for c in comparison.curves if c.strategy == strategy])
            low, middle, high = np.percentile(curves, (25, 50, 75), axis=0)
            (line,) = axes.plot(evaluations, middle, label=strategy, linewidth=1.6, drawstyle="steps-post")
            axes.fill_between(evaluations, low, high, step="post", color=line.get_color(), alpha=0.15, linewidth=0)
            lows.append(middle[min(len(middle) - 1, len(middle) // 20)])
        axes.set_xlabel("evaluations")
        axes.set_ylabel(label)
        axes.set_ylim(max(0.0, min(lows) - 0.1), 1.01)
        axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)
        except OSError as error:
            raise StudyError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _milestone(m: Milestone) -> str:
    if m.reached == 0:
        return f"none in {m.runs}"
    interval = f" [{_count(m.low)}-{_count(m.high)}]"
    return f"{_count(m.median)}{interval}" + (f" {m.reached}/{m.runs}" if m.reached < m.runs else "")


def _count(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:g}"
