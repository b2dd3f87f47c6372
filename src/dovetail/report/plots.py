"""Plots, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dovetail.errors import StudyError
from dovetail.objective import Objective
from dovetail.record import Trial
from dovetail.search.best import find_front, is_within
from dovetail.study.header import StudyHeader

if TYPE_CHECKING:  # drawing is not always wanted, and importing it takes long
    from matplotlib.figure import Figure

__all__ = ["plot_front", "plot_number_line"]


def plot_front(path: Path, header: StudyHeader, trials: Sequence[Trial]) -> bool:
    """Draw trials and Pareto front: the first objective of quality against each objective of cost, one panel per pair.

    A search with one objective is drawn as its figure against the trials' numbers.

    Args:
        path: a .png or .svg file.
        header: the study's header.
        trials: its trials.

    Returns:
        Whether there was anything to draw.

    Raises:
        StudyError: The file cannot be written.
    """
    kept = [trial for trial in trials if is_within(trial, header.constraints)]
    if not kept:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    front = find_front(kept, header.objectives)
    pairs = _pairs(header.objectives)
    figure = Figure(figsize=(5.5 * max(len(pairs), 1), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    if not pairs:
        axes = figure.subplots()
        axes.scatter([t.number for t in kept], [t.value(header.objectives[0].name) for t in kept], s=12, color="0.6")
        axes.set_xlabel("trial")
        axes.set_ylabel(_label(header.objectives[0]))
    for axes, (cost, quality) in zip(
        figure.subplots(1, len(pairs), squeeze=False)[0] if pairs else (), pairs, strict=True
    ):
        xs, ys = ([t.value(o.name) for t in kept] for o in (cost, quality))
        axes.scatter(xs, ys, s=10, color="0.75", label=f"{len(kept):,} trials", rasterized=True)
        step = sorted((t.value(cost.name), t.value(quality.name)) for t in front)
        line = "-" if len(header.objectives) == 2 else ""  # a front in more figures has no outline in two of them
        drawstyle = "steps-post" if (cost.direction, quality.direction) == ("minimize", "maximize") else "default"
        axes.plot(
            *zip(*step, strict=True),
            marker="o",
            linestyle=line,
            drawstyle=drawstyle,
            color="tab:red",
            markersize=4,
            linewidth=1,
            label=f"front ({len(front)})",
        )
        if min(xs) > 0 and max(xs) / min(xs) > 50:
            axes.set_xscale("log")
        axes.set_xlabel(_label(cost))
        axes.set_ylabel(_label(quality))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)
    return True


def _pairs(objectives: Sequence[Objective]) -> list[tuple[Objective, Objective]]:
    """(x, y) of each panel."""
    qualities = [o for o in objectives if not o.is_cost]
    costs = [o for o in objectives if o.is_cost]
    if qualities and costs:
        return [(cost, qualities[0]) for cost in costs]
    return [(other, objectives[0]) for other in objectives[1:]]


def _label(objective: Objective) -> str:
    return f"{objective.name} ({objective.direction})"


def plot_number_line(path: Path, title: str, values: Sequence[float], *, logarithmic: bool = False) -> None:
    """Draw the values of a number format as marks on a line.

    Args:
        path: a .png or .svg file.
        title: over the line.
        values: what the format represents, in order.
        logarithmic: whether the line has powers of two at equal distances, on both sides of the smallest magnitude.

    Raises:
        StudyError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.vlines(values, 0, 1, color="tab:blue", linewidth=0.7)
    axes.set_yticks([])
    if logarithmic:
        axes.set_xscale("symlog", base=2, linthresh=min(abs(value) for value in values if value))
    axes.set_title(title)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:  # ValueError: a suffix that is no picture's
        raise StudyError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}.") from error
