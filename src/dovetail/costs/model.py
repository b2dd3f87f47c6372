"""The cost model of a graph: exact costs of one plan or of a million."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

from dovetail.costs.bulk import FormatArrays, price_broadcast, price_in_bulk
from dovetail.costs.definitions import COSTS, CostDefinition, Peak, Ratio, Sum
from dovetail.costs.exact import Exact
from dovetail.costs.ledger import Ledger, read_ledger
from dovetail.costs.sheet import Layout, Sheet, read_layout
from dovetail.costs.symbolic import plain_value
from dovetail.costs.terms import Term
from dovetail.errors import PlanError, PricingError, UnknownSiteError, unknown_name
from dovetail.graph import Graph, WidthGroup
from dovetail.plan import Plan, Site

__all__ = ["Cost", "CostModel"]

_KEPT_SHEETS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A figure that follows from a graph and a plan alone.

    Args:
        name: as in the table `COSTS`.
        value: the figure; whole where the cost counts. Not a number where a ratio has nothing below its line.
        unit: of the figure.
        by_operation: (operation, its part), for those that have one, in order. The parts of a sum add up to the value;
            those of a ratio or a peak are the ratio of, or the sum alive at, that operation alone.
        unpriced: operations that the figure lacks, for want of a counting rule, as `name (operator)`.
    """

    name: str
    value: float
    unit: str
    by_operation: tuple[tuple[str, float], ...]
    unpriced: tuple[str, ...]


class CostModel:
    """Costs of a graph's plans in closed form; nothing is built and nothing runs.

    Args:
        graph: the model.
        batch: the batch size that FLOPs, activations and traffic are for.

    Raises:
        PricingError: The graph holds for another batch size only.

    Example:
        >>> import torch
        >>> from dovetail.graph import trace
        >>> graph = trace(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)), (torch.zeros(2, 4),))
        >>> costs = CostModel(graph, batch=1)
        >>> costs.price(Plan())["params"].value
        58
        >>> costs.price(Plan.of(widths={"0": 16}))["params"].value
        114
        >>> print(costs.formula("params"))
        7*w[0] + 2
    """

    def __init__(self, graph: Graph, batch: int):
        if batch < 1:
            raise PricingError(f"batch: must be at least 1, got {batch}.")
        self.graph = graph
        self.batch = batch
        self._sheets: dict[Layout, Sheet] = {}

    @cached_property
    def ledger(self) -> Ledger:
        """What the costs follow from; read off the graph once."""
        return read_ledger(self.graph, self.batch)

    @cached_property
    def _base(self) -> dict[sympy.Symbol, int]:
        return {group.symbol: group.base for group in self.graph.groups}

    def definition(self, name: str) -> CostDefinition:
        """What a cost is.

        Raises:
            PricingError: There is no such cost; the message lists near names.
        """
        if name not in COSTS:
            raise PricingError(unknown_name("cost", name, COSTS))
        return COSTS[name]

    def unpriced(self, name: str) -> tuple[str, ...]:
        """The operations that a cost lacks, for want of a counting rule."""
        return self.ledger.unpriced if self.definition(name).counts_work else ()

    def price(self, plan: Plan, names: Sequence[str] | None = None) -> dict[str, Cost]:
        """Every cost of one plan, split by operation: exact, and obvious rather than fast.

        Args:
            plan: what to price.
            names: the costs wanted; all of them where None.

        Raises:
            UnknownSiteError, PlanError: The plan does not fit the graph.
            PricingError: A name is no cost.
        """
        self.graph.check(plan)
        widths = {**self._base, **{self.graph.group(name).symbol: width for name, width in plan.widths}}
        exact = Exact(plan.precision, widths)
        return {name: self._price(name, exact) for name in (COSTS if names is None else names)}

    def _price(self, name: str, exact: Exact) -> Cost:
        definition = self.definition(name)
        match definition:
            case Sum():
                parts = _by_operation(definition.terms(self.ledger), exact)
                value = _quotient(sum(parts.values()), definition.divisor)
                split = {op: _quotient(part, definition.divisor) for op, part in parts.items()}
            case Ratio():
                above = _by_operation(definition.above(self.ledger), exact)
                below = _by_operation(definition.below(self.ledger), exact)
                value = _ratio(definition.factor * sum(above.values()), sum(below.values()))
                split = {op: _ratio(definition.factor * above.get(op, 0), part) for op, part in below.items() if part}
            case Peak():
                alive = self._alive(exact)
                value = _quotient(max(alive.values(), default=0), definition.divisor)
                split = {op: _quotient(part, definition.divisor) for op, part in alive.items()}
        return Cost(
            name=name,
            value=value,
            unit=definition.unit,
            by_operation=tuple(split.items()),
            unpriced=self.unpriced(name),
        )

    def _alive(self, exact: Exact) -> dict[str, int]:
        """Bits of the activations alive at each operation."""
        alive: dict[str, int] = {}
        for step, entry in enumerate(self.ledger.entries):
            bits = sum(exact.value(a.tensor) for a in self.ledger.activations if a.born <= step <= a.dies)
            alive[entry.name] = max(bits, alive.get(entry.name, 0))
        return alive

    def price_arrays(
        self,
        widths: Mapping[str, NDArray[np.int64]],
        formats: FormatArrays,
        count: int | None,
        names: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float64]]:
        """Costs of many plans at once, in closed form and bounded memory.

        Whole numbers are exact up to 2**53.

        Args:
            widths: per width group that varies, the channels of each plan: [count].
            formats: per site that varies, the formats to choose from (None and float32 leave it alone), and the place
                of the one that each plan chooses: [count]. Sites that share one array of places share a decision, which
                is faster.
            count: how many plans. None: arrays may have any shapes that broadcast, as for a grid of plans; nothing is
                cut into chunks.
            names: the costs wanted; all of them where None.

        Returns:
            Per cost, its value for each plan: [count]; where count is None of the shape of what the cost hangs on.

        Raises:
            UnknownSiteError: A group or site is not in the graph.
            PlanError: A width cannot be given to its group, or an array has another length than count.
            PricingError: A name is no cost.
        """
        definitions = {name: self.definition(name) for name in (COSTS if names is None else names)}
        by_symbol = {}
        for name, values in widths.items():
            group = self.graph.group(name)
            _check_widths(group, values, count)
            if group.frozen is None:
                by_symbol[group.symbol] = values
        for site, (options, index) in formats.items():
            _check_choices(self.graph, site, options, index, count)
        layout, choices = read_layout(by_symbol, formats, definitions.values())
        sheet, values_of = self._sheet(layout), list(by_symbol.values())
        if count is None:
            prices = price_broadcast(sheet, values_of, choices)
        else:
            prices = price_in_bulk(sheet, values_of, choices, count)
        return dict(zip(definitions, prices, strict=True))

    def _sheet(self, layout: Layout) -> Sheet:
        """The compiled closed forms; kept for the layouts last asked for."""
        if layout not in self._sheets:
            while len(self._sheets) >= _KEPT_SHEETS:
                del self._sheets[next(iter(self._sheets))]
            self._sheets[layout] = Sheet(self.ledger, layout, self._base)
        return self._sheets[layout]

    def price_rows(
        self, space: Any, rows: NDArray[np.int64], names: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Costs of rows of a space: `space.price(self, rows, names)`."""
        prices: dict[str, NDArray[np.float64]] = space.price(self, rows, names)
        return prices

    def formula(self, name: str) -> sympy.Expr:
        """A cost in closed form in the widths of the groups that can change, each a symbol such as `w[fc1]`.

        Every tensor is taken as it is, at float32: the formula of a model whose widths alone change.

        Raises:
            PricingError: A name is no cost.
        """
        definition = self.definition(name)
        match definition:
            case Sum():
                formula = _total(definition.terms(self.ledger)) / definition.divisor
            case Ratio():
                formula = (
                    definition.factor * _total(definition.above(self.ledger)) / _total(definition.below(self.ledger))
                )
            case Peak():
                formula = self._peak_formula() / definition.divisor
        names = {
            group.symbol: sympy.Symbol(f"w[{group.name}]", positive=True, integer=True) for group in self.graph.groups
        }
        return sympy.expand(formula.xreplace(names)) if not isinstance(definition, Ratio) else formula.xreplace(names)

    def _peak_formula(self) -> sympy.Expr:
        sums = set()
        for step in range(len(self.ledger.entries)):
            tensors = [a.tensor for a in self.ledger.activations if a.born <= step <= a.dies]
            sums.add(sympy.expand(_total(tensors)))
        return sympy.Max(*sums, evaluate=False) if len(sums) > 1 else sums.pop()


def _by_operation(terms: Iterable[Term], exact: Exact) -> dict[str, int]:
    parts: dict[str, int] = defaultdict(int)
    for term in terms:
        parts[term.operation] += exact.value(term)
    return dict(parts)


def _total(terms: Iterable[Term]) -> sympy.Expr:
    return sympy.Add(*(plain_value(term) for term in terms))


def _quotient(value: int, divisor: int) -> float:
    """Whole where it comes out whole."""
    return value // divisor if value % divisor == 0 else value / divisor


def _ratio(above: int, below: int) -> float:
    if below == 0:
        return math.inf if above else math.nan
    return above / below


def _check_widths(group: WidthGroup, values: NDArray[np.int64], count: int | None) -> None:
    if count is not None and values.shape != (count,):
        raise PlanError(f"widths of group {group.name!r}: must be {count} numbers, got shape {values.shape}.")
    if (wrong := values[(values < 1) | (values % group.multiple_of != 0)]).size:
        raise PlanError(
            f"width group {group.name!r} must be a positive multiple of {group.multiple_of}, got {int(wrong[0])}."
        )
    if group.frozen is not None and (wrong := values[values != group.base]).size:
        raise PlanError(
            f"width group {group.name!r} must keep its {group.base} channels, got {int(wrong[0])}: {group.frozen}."
        )


def _check_choices(
    graph: Graph, site: Site, options: tuple[Any, ...], index: NDArray[np.int64], count: int | None
) -> None:
    operation = graph.operation(site.operation)
    if site.kind not in operation.sites:
        raise UnknownSiteError(f"operation {site.operation!r} has no {site.kind}; it has {', '.join(operation.sites)}.")
    if count is not None and index.shape != (count,):
        raise PlanError(f"choices at {site}: must be {count} numbers, got shape {index.shape}.")
    if index.size and (index.min() < 0 or index.max() >= len(options)):
        raise PlanError(f"choices at {site}: must be places in {len(options)} formats, got {int(index.max())}.")
