"""The space of a search: an ordered list of decisions, each with its choices.

A row is a tuple of choice indices, one per decision; a space can be counted, enumerated (mixed radix, last decision
fastest), turned into plans and priced in bulk, all without listing it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from dovetail.errors import ConfigError, PlanError, unknown_name
from dovetail.formats import FLOAT32, Format
from dovetail.graph import Graph, Operation, WidthGroup
from dovetail.plan import Plan, Site, SiteKind

if TYPE_CHECKING:
    from dovetail.costs import CostModel

__all__ = ["Decision", "PrecisionRule", "Row", "Rows", "Space", "WidthRule", "build_space"]

Row = tuple[int, ...]
Rows = NDArray[np.int64]  # [n, decisions]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRule:
    """Formats to choose from for the operations that a pattern names.

    Args:
        operations: an operation's type, its name, or a glob of names.
        data_in, weight, bias: formats to choose from at that site; empty leaves it alone.
        together: one decision for all operations that match, or one for each.
        optional: whether matching nothing is a note rather than an error.
        where: what to call the rule in messages.
    """

    operations: str
    data_in: tuple[Format, ...] = ()
    weight: tuple[Format, ...] = ()
    bias: tuple[Format, ...] = ()
    together: bool = False
    optional: bool = False
    where: str = "space.precision"

    def choices(self, kind: SiteKind) -> tuple[Format, ...]:
        """Formats to choose from at one kind of site."""
        return {SiteKind.DATA_IN: self.data_in, SiteKind.WEIGHT: self.weight, SiteKind.BIAS: self.bias}[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthRule:
    """Channel multipliers to choose from for the width groups that a pattern names.

    A group of base width b gets `b * multiplier` channels, rounded to the nearest multiple of `round_to` and of what
    the group itself demands (half goes up).

    Args:
        groups: a group's name or a glob of names.
        multipliers: positive numbers; fractions shrink.
        together: one multiplier for all groups that match, or one for each.
        round_to: channels are a multiple of this.
        optional: whether matching nothing is a note rather than an error.
        where: what to call the rule in messages.
    """

    groups: str
    multipliers: tuple[Fraction, ...]
    together: bool = False
    round_to: int = 1
    optional: bool = False
    where: str = "space.width"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One choice to make: a format for some sites, or a multiplier for some width groups.

    Args:
        name: unique in its space.
        kind: what is decided.
        labels: a short text per choice.
        formats: per choice, what each target site gets (precision decisions).
        widths: per choice, the channels of each target group (width decisions).
        sites: the target sites (precision decisions).
        groups: the target groups (width decisions).
    """

    name: str
    kind: Literal["precision", "width"]
    labels: tuple[str, ...]
    sites: tuple[Site, ...] = ()
    formats: tuple[Format, ...] = ()
    groups: tuple[str, ...] = ()
    widths: tuple[tuple[int, ...], ...] = ()

    @property
    def num_choices(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> tuple[float, ...]:
        """A number per choice that grows with precision (bits per element) or width (channels)."""
        if self.kind == "precision":
            return tuple(fmt.bits for fmt in self.formats)
        return tuple(float(sum(widths)) for widths in self.widths)

    @property
    def first_equal(self) -> tuple[int, ...]:
        """Per choice, the first choice that says the same."""
        effects: Sequence[object] = self.formats if self.kind == "precision" else self.widths
        return tuple(effects.index(effect) for effect in effects)


@dataclass(frozen=True)
class Space:
    """All plans a search may choose from.

    Args:
        decisions: in the order of the graph; the last one varies fastest.
        base_widths: channels of each width group in the user's model.
        notes: what the user should know about the rules that made it.

    Example:
        Two decisions with four choices each make a space of size 16; `space.plan(space.row_at(5))` is its sixth plan.
    """

    decisions: tuple[Decision, ...]
    base_widths: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Choices per decision."""
        return tuple(d.num_choices for d in self.decisions)

    @property
    def size(self) -> int:
        """Rows in the space, an exact int however large."""
        return math.prod(self.shape)

    @cached_property
    def distinct(self) -> int:
        """Plans that differ in effect: rows that spell the same plan count once."""
        return math.prod(len(set(d.first_equal)) for d in self.decisions)

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        strides = [1]
        for count in reversed(self.shape[1:]):
            strides.append(strides[-1] * count)
        return tuple(reversed(strides)) if self.shape else ()

    @cached_property
    def _first_equal(self) -> tuple[tuple[int, ...], ...]:
        return tuple(d.first_equal for d in self.decisions)

    @cached_property
    def _are_distinct(self) -> bool:
        """Whether no two rows spell the same plan."""
        return all(first == tuple(range(len(first))) for first in self._first_equal)

    @cached_property
    def _base(self) -> dict[str, int]:
        return dict(self.base_widths)

    def check(self, row: Sequence[int]) -> Row:
        """The row as a tuple of ints.

        Raises:
            PlanError: It is not of this space.
        """
        if len(row) != len(self.shape) or min(row, default=0) < 0 or not all(map(operator.lt, row, self.shape)):
            raise PlanError(f"row {tuple(row)}: must have one choice index per decision, below {self.shape}.")
        return tuple(map(int, row))

    def row_at(self, index: int) -> Row:
        """The row at a position of the enumeration."""
        if not 0 <= index < self.size:
            raise PlanError(f"index {index}: must be between 0 and {self.size - 1}.")
        return tuple(index // stride % count for stride, count in zip(self._strides, self.shape, strict=True))

    def index(self, row: Sequence[int]) -> int:
        """The position of a row in the enumeration."""
        return sum(c * stride for c, stride in zip(self.check(row), self._strides, strict=True))

    def rows(self, start: int = 0, stop: int | None = None) -> Rows:
        """Rows start..stop of the enumeration, as an array [stop - start, decisions]."""
        stop = self.size if stop is None else min(stop, self.size)
        count = max(stop - start, 0)
        rows = np.empty((count, len(self.shape)), dtype=np.int64)
        if self.size <= np.iinfo(np.int64).max:
            index = np.arange(start, start + count, dtype=np.int64)
            for column, (stride, choices) in enumerate(zip(self._strides, self.shape, strict=True)):
                rows[:, column] = index // stride % choices
        else:  # positions beyond 64 bits
            for i in range(count):
                rows[i] = self.row_at(start + i)
        return rows

    def canonical(self, row: Sequence[int]) -> Row:
        """The first row of the enumeration that spells the same plan."""
        if self._are_distinct:
            return tuple(row)
        return tuple([first[c] for first, c in zip(self._first_equal, row, strict=True)])

    def is_canonical(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are the first to spell their plan."""
        keep = np.ones(len(rows), dtype=np.bool_)
        for column, equal in enumerate(self._first_equal):
            first = np.asarray(equal)
            if (first != np.arange(len(first))).any():
                keep &= first[rows[:, column]] == rows[:, column]
        return keep

    @cached_property
    def _sites(self) -> tuple[tuple[int, tuple[tuple[Site, Format] | None, ...]], ...]:
        """(decision, per choice the site with its format, or None for float32), sorted by site."""
        named = [(site, i, d.formats) for i, d in enumerate(self.decisions) for site in d.sites]
        return tuple(
            (i, tuple(None if fmt == FLOAT32 else (site, fmt) for fmt in formats))
            for site, i, formats in sorted(named, key=lambda item: item[0])
        )

    @cached_property
    def _groups(self) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """(width group, decision, channels per choice), sorted by group."""
        columns = []
        for i, decision in enumerate(self.decisions):
            if decision.kind == "width":
                per_group = zip(*decision.widths, strict=True)
                columns += [(group, i, widths) for group, widths in zip(decision.groups, per_group, strict=True)]
        return tuple(sorted(columns))

    def plan(self, row: Sequence[int]) -> Plan:
        """The plan that a row spells; equal effects give equal plans."""
        row = self.check(row)
        formats = [pair for i, pairs in self._sites if (pair := pairs[row[i]]) is not None]
        widths = [(g, table[row[i]]) for g, i, table in self._groups if table[row[i]] != self._base[g]]
        return Plan.of_sorted(tuple(formats), tuple(widths))

    def labels(self, row: Sequence[int]) -> tuple[tuple[str, str], ...]:
        """(decision's name, chosen label) per decision."""
        return tuple((d.name, d.labels[c]) for d, c in zip(self.decisions, self.check(row), strict=True))

    def price(self, costs: CostModel, rows: Rows, names: Sequence[str] | None = None) -> dict[str, NDArray[np.float64]]:
        """Costs of many rows at once, in closed form; see `CostModel.price_arrays`."""
        return costs.price_arrays(*self._arrays(list(rows.T)), len(rows), names)

    def price_grid(
        self, costs: CostModel, choices: Sequence[NDArray[np.int64]], names: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Costs of the plans that arrays of choices, one per decision, broadcast to; each of the shape of what it hangs
        on. The same to the bit as `price`, and as much faster as the arrays are smaller than the grid."""
        return costs.price_arrays(*self._arrays(choices), None, names)

    def _arrays(
        self, choices: Sequence[NDArray[np.int64]]
    ) -> tuple[dict[str, NDArray[np.int64]], dict[Site, tuple[tuple[Format | None, ...], NDArray[np.int64]]]]:
        """Widths per group, and per site the formats to choose from and the places chosen."""
        widths: dict[str, NDArray[np.int64]] = {}
        formats: dict[Site, tuple[tuple[Format | None, ...], NDArray[np.int64]]] = {}
        for decision, chosen in zip(self.decisions, choices, strict=True):
            if decision.kind == "precision":
                formats.update(dict.fromkeys(decision.sites, (tuple(decision.formats), chosen)))
            else:
                table = np.asarray(decision.widths, dtype=np.int64)
                widths.update((group, table[chosen, i]) for i, group in enumerate(decision.groups))
        return widths, formats


def build_space(
    graph: Graph, precision: Sequence[PrecisionRule] = (), width: Sequence[WidthRule] = (), *, allow_empty: bool = False
) -> Space:
    """The space that rules span over a graph.

    Rules are read in order and the first that matches an operation or a group wins. Decisions stand in the order of
    their first target.

    Raises:
        ConfigError: A rule matches nothing (unless optional), names a frozen group, has no choices, or gives a group no
            channels; or there is nothing to decide.
    """
    notes = list(graph.notes)
    decisions = _precision_decisions(graph, precision, notes) + _width_decisions(graph, width, notes)
    if not decisions and not allow_empty:
        raise ConfigError(
            "space: there is nothing to decide. Add a [[space.precision]] or [[space.width]] rule that matches."
        )
    base = tuple((group.name, group.base) for group in graph.groups)
    return Space(tuple(decisions), base, tuple(notes))


def _precision_decisions(graph: Graph, rules: Sequence[PrecisionRule], notes: list[str]) -> list[Decision]:
    taken: set[str] = set()
    order = {op.name: i for i, op in enumerate(graph.operations)}
    decisions: list[tuple[int, Decision]] = []
    for rule in rules:
        matched = [op for op in graph.select(rule.operations) if op.sites]
        fresh = [op for op in matched if op.name not in taken]
        taken.update(op.name for op in fresh)
        if not any(rule.choices(kind) for kind in SiteKind):
            raise ConfigError(f"{rule.where}: a rule must list formats for data_in, weight or bias, got none.")
        if not fresh:
            _unmatched(rule, _why_no_operation(graph, rule, matched), notes)
            continue
        for kind in SiteKind:
            if not rule.choices(kind):
                continue
            targets = [op for op in fresh if kind in op.sites]
            if not targets:
                notes.append(
                    f"{rule.where}: nothing that {rule.operations!r} matches has a {kind}; its formats are not used."
                )
            decisions += [
                (order[ops[0].name], _decide_formats(rule, kind, ops)) for ops in _bundles(targets, rule.together)
            ]
    return [decision for _, decision in sorted(decisions, key=lambda item: item[0])]


def _bundles(targets: list[Operation], together: bool) -> list[list[Operation]]:
    return ([targets] if targets else []) if together else [[op] for op in targets]


def _decide_formats(rule: PrecisionRule, kind: SiteKind, ops: list[Operation]) -> Decision:
    formats = rule.choices(kind)
    name = f"{rule.operations if rule.together and len(ops) > 1 else ops[0].name}:{kind}"
    labels = tuple("float32" if fmt == FLOAT32 else str(fmt) for fmt in formats)
    sites = tuple(Site(op.name, kind) for op in ops)
    return Decision(name=name, kind="precision", labels=labels, sites=sites, formats=formats)


def _why_no_operation(graph: Graph, rule: PrecisionRule, matched: list[Operation]) -> str:
    if matched:
        return f"{rule.where}: all that {rule.operations!r} matches is taken by earlier rules. Remove it or move it up."
    known = {name for op in graph.operations if op.sites for name in (op.name, op.type)}
    near = unknown_name("operation", rule.operations, known)
    return f"{rule.where}: operations = {rule.operations!r} matches nothing: {near}"


def _width_decisions(graph: Graph, rules: Sequence[WidthRule], notes: list[str]) -> list[Decision]:
    taken: set[str] = set()
    order = {group.name: i for i, group in enumerate(graph.groups)}
    decisions: list[tuple[int, Decision]] = []
    for rule in rules:
        if not rule.multipliers:
            raise ConfigError(f"{rule.where}: a rule must list multipliers, got none.")
        for multiplier in rule.multipliers:
            if multiplier <= 0:
                raise ConfigError(f"{rule.where}.multipliers: a multiplier must be > 0, got {_number(multiplier)}.")
        matched = graph.select_groups(rule.groups)
        fresh = [group for group in matched if group.frozen is None and group.name not in taken]
        taken.update(group.name for group in fresh)
        if not fresh:
            _unmatched(rule, _why_no_group(graph, rule, matched), notes)
        elif rule.together:
            decisions.append((order[fresh[0].name], _decide_widths(rule, fresh)))
        else:
            decisions += [(order[group.name], _decide_widths(rule, [group])) for group in fresh]
    return [decision for _, decision in sorted(decisions, key=lambda item: item[0])]


def _decide_widths(rule: WidthRule, groups: list[WidthGroup]) -> Decision:
    widths = tuple(tuple(_scale(rule, group, m) for group in groups) for m in rule.multipliers)
    return Decision(
        name=f"{rule.groups if len(groups) > 1 else groups[0].name}:width",
        kind="width",
        labels=tuple(f"x{_number(m)}" for m in rule.multipliers),
        groups=tuple(group.name for group in groups),
        widths=widths,
    )


def _scale(rule: WidthRule, group: WidthGroup, multiplier: Fraction) -> int:
    step = math.lcm(rule.round_to, group.multiple_of)
    width = math.floor(group.base * multiplier / step + Fraction(1, 2)) * step
    if width < 1:
        raise ConfigError(
            f"{rule.where}: group {group.name!r} has {group.base} channels, and x{_number(multiplier)} rounded to a "
            f"multiple of {step} leaves 0. The smallest multiplier that leaves any is "
            f"{_number(Fraction(step, 2 * group.base))}."
        )
    return width


def _why_no_group(graph: Graph, rule: WidthRule, matched: Iterable[WidthGroup]) -> str:
    groups = list(matched)
    if any(group.frozen is None for group in groups):
        return f"{rule.where}: all that {rule.groups!r} matches is taken by earlier rules. Remove it or move it up."
    if groups:
        return f"{rule.where}: group {groups[0].name!r} is frozen: {groups[0].frozen}"
    known = [group.name for group in graph.groups if group.frozen is None]
    return f"{rule.where}: groups = {rule.groups!r} matches nothing: {unknown_name('width group', rule.groups, known)}"


def _unmatched(rule: PrecisionRule | WidthRule, message: str, notes: list[str]) -> None:
    if not rule.optional:
        raise ConfigError(message)
    notes.append(message)


def _number(value: Fraction) -> str:
    """An integer as such, a finite decimal as such, else the fraction."""
    text = f"{float(value):.6g}"
    return text if Fraction(text) == value else str(value)
