"""What each operation costs, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from dovetail.costs.model import Cost, CostModel
from dovetail.costs.work import Shape
from dovetail.graph import Graph
from dovetail.plan import Plan

__all__ = ["ProfileRow", "profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """Costs of one operation, or of all.

    Args:
        operation: its name; `total` in the last row.
        type: its type.
        output: shape of what it gives, in the widths of the plan.
        params: parameters, under the operation that reads them first.
        macs: multiply-accumulates; None where no counting rule is known.
        flops: as the cost `flops`; None where no counting rule is known.
        activation_bytes: bytes of what it makes; the model's inputs are in rows of their own.
        share: its part of the total FLOPs.
    """

    operation: str
    type: str
    output: tuple[int, ...]
    params: int
    macs: int | None
    flops: int | None
    activation_bytes: float
    share: float


def profile(graph: Graph, batch: int, plan: Plan | None = None) -> tuple[ProfileRow, ...]:
    """A row per operation in order, after one per tensor that belongs to none (an input), before one for the total.

    Args:
        graph: the model.
        batch: the batch size.
        plan: what is applied to it; the model as it is where None.

    Raises:
        UnknownSiteError, PlanError: The plan does not fit the graph.

    Example:
        >>> import torch
        >>> from dovetail.graph import trace
        >>> rows = profile(trace(torch.nn.Sequential(torch.nn.Linear(4, 2)), (torch.zeros(2, 4),)), batch=1)
        >>> [(row.operation, row.params, row.flops) for row in rows]
        [('inputs_0', 0, 0), ('0', 10, 16), ('total', 10, 16)]
    """
    plan = plan or Plan()
    costs = CostModel(graph, batch)
    prices = costs.price(plan, ["params", "macs", "flops", "activation_bytes"])
    parts = {name: dict(cost.by_operation) for name, cost in prices.items()}
    entries = {entry.name: entry for entry in costs.ledger.entries}
    names = dict.fromkeys([*parts["activation_bytes"], *entries, *parts["params"]])
    ordered = [name for name in names if name not in entries] + [name for name in names if name in entries]
    widths = graph.widths(plan)
    total = prices["flops"].value

    def row(name: str) -> ProfileRow:
        entry = entries.get(name)
        priced = entry is None or entry.work is not None
        flops = int(parts["flops"].get(name, 0))
        return ProfileRow(
            operation=name,
            type=entry.type if entry else "tensor",
            output=_sizes(entry.output, widths) if entry else (),
            params=int(parts["params"].get(name, 0)),
            macs=int(parts["macs"].get(name, 0)) if priced else None,
            flops=flops if priced else None,
            activation_bytes=parts["activation_bytes"].get(name, 0),
            share=flops / total if total else 0.0,
        )

    return (*(row(name) for name in ordered), _total_row(prices))


def _sizes(shape: Shape, widths: Mapping[sympy.Symbol, int]) -> tuple[int, ...]:
    return tuple(int(size.xreplace(widths)) for size in shape)


def _total_row(prices: Mapping[str, Cost]) -> ProfileRow:
    return ProfileRow(
        operation="total",
        type="",
        output=(),
        params=int(prices["params"].value),
        macs=int(prices["macs"].value),
        flops=int(prices["flops"].value),
        activation_bytes=prices["activation_bytes"].value,
        share=1.0,
    )
