"""The laws of costs, for authors of new ones: `check_cost(name, graph, batch)` raises at the first broken law.

A cost that keeps them can be an objective or a constraint of any search: it is exact, the same one by one and in bulk,
and never rewards what cannot be cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dovetail.costs import COSTS, CostModel, Ratio, Sum
from dovetail.formats import FLOAT32, Format, parse
from dovetail.graph import Graph
from dovetail.plan import Plan, Site

__all__ = ["COST_LAWS", "check_cost"]

FORMATS: tuple[Format, ...] = tuple(parse(text) for text in ("fixed(4,2)", "fixed(8,4)", "fixed(16,8)", "float32"))
"""From few bits to many."""

PLANS = 12


def check_cost(name: str, graph: Graph, batch: int = 2, seed: int = 0) -> None:
    """Run every law on random plans of a graph.

    Args:
        name: of the table `COSTS`.
        graph: of a model with sites or with width groups that can change.
        batch: the batch size.
        seed: of the random plans.

    Raises:
        AssertionError: a law is broken; the message says which and where.

    Example:
        >>> import torch
        >>> from dovetail.graph import trace
        >>> check_cost("params", trace(torch.nn.Sequential(torch.nn.Linear(4, 2)), (torch.zeros(2, 4),)))
    """
    costs, rng = CostModel(graph, batch), np.random.default_rng(seed)
    for law in COST_LAWS:
        law(name, costs, rng)


def law_additive_over_operations(name: str, costs: CostModel, rng: np.random.Generator) -> None:
    """The parts of a sum add up to its value."""
    if isinstance(COSTS[name], Sum):
        cost = costs.price(random_plan(costs.graph, rng), [name])[name]
        total = math.fsum(part for _, part in cost.by_operation)
        assert math.isclose(total, cost.value, rel_tol=1e-12), f"{name}: parts add up to {total}, value {cost.value}."


def law_more_is_never_cheaper(name: str, costs: CostModel, rng: np.random.Generator) -> None:
    """More channels or more bits cost at least as much; an average of bits grows with them too, a density falls."""
    for plan, richer in _richer_pairs(costs.graph, rng):
        if isinstance(COSTS[name], Ratio) and (name not in _BIT_AVERAGES or plan.widths != richer.widths):
            continue
        lower, higher = (costs.price(p, [name])[name].value for p in (plan, richer))
        if COSTS[name].direction == "maximize":
            lower, higher = higher, lower
        assert not higher < lower, f"{name}: {higher} with more, {lower} with less, at {richer.to_dict()}."


_BIT_AVERAGES = ("average_bitwidth", "memory_density")


def law_float32_is_the_same_as_no_format(name: str, costs: CostModel, rng: np.random.Generator) -> None:
    """A float32 choice costs what silence costs."""
    index = np.zeros(1, dtype=np.int64)
    formats = dict.fromkeys(costs.graph.sites, ((FLOAT32,), index))
    spelt, silent = costs.price_arrays({}, formats, 1, [name])[name], costs.price(Plan(), [name])[name].value
    np.testing.assert_equal(spelt[0], float(silent), err_msg=f"{name} of float32")


def law_bulk_equals_one_by_one(name: str, costs: CostModel, rng: np.random.Generator) -> None:
    """To the last bit."""
    widths = {
        group.name: _widths(group.base, group.multiple_of, rng, PLANS)
        for group in costs.graph.groups
        if group.frozen is None
    }
    formats = {site: (FORMATS, rng.integers(0, len(FORMATS), PLANS)) for site in costs.graph.sites}
    bulk = costs.price_arrays(widths, formats, PLANS, [name])[name]
    for i in range(PLANS):
        chosen = {site: options[index[i]] for site, (options, index) in formats.items()}
        plan = Plan.of(chosen, {group: int(values[i]) for group, values in widths.items()})
        one = costs.price(plan, [name])[name].value
        np.testing.assert_equal(bulk[i], float(one), err_msg=f"{name} of {plan.to_dict()}")


def law_what_is_not_counted_is_said(name: str, costs: CostModel, rng: np.random.Generator) -> None:
    """A cost that rests on counting rules lists every operation without one."""
    unknown = {f"{entry.name} ({entry.target})" for entry in costs.ledger.entries if entry.work is None}
    listed = set(costs.price(Plan(), [name])[name].unpriced)
    expected = unknown if COSTS[name].counts_work else set()
    assert listed == expected, f"{name}: unpriced must be {sorted(expected)}, got {sorted(listed)}."


def random_plan(graph: Graph, rng: np.random.Generator) -> Plan:
    """A format for each site, and widths for the groups that can change."""
    formats: dict[Site, Format] = {site: FORMATS[int(rng.integers(len(FORMATS)))] for site in graph.sites}
    widths = {g.name: int(_widths(g.base, g.multiple_of, rng, 1)[0]) for g in graph.groups if g.frozen is None}
    return Plan.of(formats, widths)


def _widths(base: int, multiple_of: int, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    return multiple_of * rng.integers(1, 2 * max(base // multiple_of, 1) + 1, count)


def _richer_pairs(graph: Graph, rng: np.random.Generator) -> list[tuple[Plan, Plan]]:
    """Plans, and the same with more at one site or in one group."""
    pairs = []
    for site in graph.sites:
        plan = random_plan(graph, rng)
        ranks = dict(plan.formats)
        rank = FORMATS.index(ranks.get(site, FLOAT32))
        if rank + 1 < len(FORMATS):
            pairs.append((plan, Plan.of({**ranks, site: FORMATS[rank + 1]}, dict(plan.widths))))
    for group in graph.groups:
        if group.frozen is None:
            plan = random_plan(graph, rng)
            widths = dict(plan.widths)
            wider = {**widths, group.name: widths[group.name] + group.multiple_of}
            pairs.append((plan, Plan.of(dict(plan.formats), wider)))
    return pairs


COST_LAWS: tuple[Callable[[str, CostModel, np.random.Generator], None], ...] = (
    law_additive_over_operations,
    law_more_is_never_cheaper,
    law_float32_is_the_same_as_no_format,
    law_bulk_equals_one_by_one,
    law_what_is_not_counted_is_said,
)
