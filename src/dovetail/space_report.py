"""A space before anything is evaluated: decisions, width groups and cost ranges."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dovetail.costs import COSTS
from dovetail.graph import Graph
from dovetail.plan import Plan
from dovetail.report.figures import format_figure
from dovetail.report.tables import Table
from dovetail.search.space import Rows, Space
from dovetail.session import Session
from dovetail.space_csv import Extremes, find_extremes, merge_extremes
from dovetail.transforms import inheritance_report

__all__ = ["CostRange", "cost_ranges", "decision_table", "group_table", "growth_obstacles", "range_table"]

_COUNTED = 1 << 20  # spaces up to this size are priced whole for their ranges, larger ones by a sample of as many rows
_PART = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRange:
    """What a cost ranges over in a space.

    Args:
        name: the cost.
        unit: its unit.
        base: of the model as it is.
        minimum: least of all plans; NaN where it has no value in any.
        maximum: most of all plans, likewise.
        is_exact: whether every plan was priced, rather than a sample.
    """

    name: str
    unit: str
    base: float
    minimum: float
    maximum: float
    is_exact: bool


def cost_ranges(session: Session, extremes: Extremes | None = None) -> tuple[CostRange, ...]:
    """The range of each cost over the space; over a seeded sample where the space has more than a million plans.

    Args:
        session: the space, and what prices it.
        extremes: least and most over the whole space, where they are known.
    """
    space, names = session.space, list(COSTS)
    base = session.costs.price(Plan(), names)
    is_exact = extremes is not None or space.size <= _COUNTED
    if extremes is None:
        parts = (find_extremes(space.price(session.costs, rows, names)) for rows in _parts(space))
        extremes = functools.reduce(merge_extremes, parts)
    return tuple(
        CostRange(
            name=name,
            unit=COSTS[name].unit,
            base=float(base[name].value),
            minimum=extremes[name][0],
            maximum=extremes[name][1],
            is_exact=is_exact,
        )
        for name in names
    )


def decision_table(space: Space) -> Table:
    """What is decided, and among what."""
    rows = tuple(
        (d.name, d.kind, str(d.num_choices), ", ".join(d.labels), ", ".join(map(str, d.sites or d.groups)))
        for d in space.decisions
    )
    heads = ("decision", "kind", "choices", "among", "for")
    return Table(title=f"{len(rows)} decisions", columns=heads, rows=rows, numeric=("choices",))


def growth_obstacles(graph: Graph) -> dict[str, str]:
    """Free width groups that cannot be doubled without changing the model's function, each with the first reason."""
    doubled = Plan.of(widths={group.name: 2 * group.base for group in graph.groups if group.frozen is None})
    return {change.group: change.reasons[0] for change in inheritance_report(graph, doubled) if not change.exact}


def group_table(graph: Graph) -> Table:
    """Width groups, why a frozen one is, and why growing changes the function where it does."""
    obstacles = growth_obstacles(graph)
    heads = ["width group", "channels", "multiple of", "frozen because"]
    rows = [[g.name, str(g.base), str(g.multiple_of), g.frozen or ""] for g in graph.groups]
    if obstacles:
        heads.append("not grown exactly because")
        rows = [[*row, obstacles.get(row[0], "")] for row in rows]
    return Table(
        title=f"{len(rows)} width groups",
        columns=tuple(heads),
        rows=tuple(map(tuple, rows)),
        numeric=("channels", "multiple of"),
    )


def range_table(ranges: Sequence[CostRange]) -> Table:
    """The range of each cost."""
    exact = all(r.is_exact for r in ranges)
    rows = tuple(
        (r.name, format_figure(r.base), format_figure(r.minimum), format_figure(r.maximum), r.unit) for r in ranges
    )
    return Table(
        title="Costs" if exact else f"Costs (range of a sample of {_COUNTED:,} plans)",
        columns=("cost", "model as it is", "least", "most", "unit"),
        rows=rows,
        numeric=("model as it is", "least", "most"),
    )


def _parts(space: Space) -> Iterator[Rows]:
    if space.size <= _COUNTED:
        for start in range(0, space.size, _PART):
            yield space.rows(start, start + _PART)
        return
    rng = np.random.default_rng(0)
    for _ in range(_COUNTED // _PART):
        yield np.stack([rng.integers(0, count, _PART) for count in space.shape], axis=1)
