"""Weights of a resized model from those of the base model.

Growing copies channels and shares their outgoing weights among the copies, so that the function stays (Net2WiderNet,
Chen et al. 2016, arXiv:1511.05641); shrinking keeps the most important channels. New channel i of n' is a copy of
channel floor(i n / n'): copies stand side by side, so that what cuts channels into equal blocks (grouped convolution,
GroupNorm, chunk, heads) cuts between the same channels as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.graph import Graph
from dovetail.plan import Plan
from dovetail.transforms.importance import Importance, kept_channels
from dovetail.transforms.propagate import Channels, find_channels
from dovetail.transforms.tracking import ObstacleKind

__all__ = ["GroupChange", "inherit", "inheritance_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChange:
    """What a plan does to a width group whose weights are inherited.

    Args:
        group: name of the width group.
        base: its channels in the model as it is.
        width: its channels under the plan.
        exact: whether the function of the model stays as it is; never when shrinking.
        reasons: why not, where it does not.
    """

    group: str
    base: int
    width: int
    exact: bool
    reasons: tuple[str, ...] = ()


def inheritance_report(graph: Graph, plan: Plan) -> tuple[GroupChange, ...]:
    """For each width group that a plan changes, whether inherited weights keep the model's function, and why not.

    Exact means: up to rounding, the resized model computes in eval mode what the model computes.

    Args:
        graph: the model's graph.
        plan: the plan; its formats play no part.

    Raises:
        UnknownSiteError, PlanError: The plan does not fit the graph.
    """
    widths = graph.widths(plan)
    changed = [(g, width) for g in graph.groups if (width := int(widths.get(g.symbol, g.base))) != g.base]
    if not changed:
        return ()
    channels = find_channels(graph)
    found = []
    for group, width in changed:
        reasons = _reasons(channels, channels.blocks[group.name], group.base, width)
        found.append(GroupChange(group=group.name, base=group.base, width=width, exact=not reasons, reasons=reasons))
    return tuple(found)


def _reasons(channels: Channels, symbol: sympy.Symbol, base: int, width: int) -> tuple[str, ...]:
    if width < base:
        return (f"{base - width} of {base} channels are dropped",)
    met = [o for o in channels.obstacles if symbol in o.symbols]
    return tuple(
        o.reason if o.kind is ObstacleKind.NEVER else f"{o.reason}: {width} is no multiple of {base}"
        for o in met
        if o.kind is ObstacleKind.NEVER or width % base
    )


def inherit(
    graph: Graph, tensors: Mapping[str, Tensor], plan: Plan, *, importance: Importance, seed: int
) -> dict[str, Tensor]:
    """Every parameter and buffer whose shape a plan changes or whose weights are shared among copies, at its new shape.

    Args:
        graph: the model's graph.
        tensors: parameters and buffers of the model as it is.
        plan: the plan.
        importance: ranking of channels for groups that shrink.
        seed: for rankings that draw.

    Returns:
        New tensors by name, of the old ones' dtype and device. What is not in it stays as it is.
    """
    channels = find_channels(graph)
    old, new = _block_widths(graph, channels, graph.bindings), _block_widths(graph, channels, graph.widths(plan))
    maps, shares = _maps(graph, channels, tensors, old, new, importance, seed)
    changed = {symbol for symbol in maps if new[symbol] != old[symbol]}
    found: dict[str, Tensor] = {}
    for name in graph.tensor_names:
        layouts = channels.layouts[name]
        if any(layout.symbols & changed for layout in layouts):
            found[name] = _gather(tensors[name], name, channels, maps, shares, old, changed)
    return found


def _block_widths(graph: Graph, channels: Channels, widths: Mapping[sympy.Symbol, int]) -> dict[sympy.Symbol, int]:
    """Channels in one block of each group."""
    return {channels.blocks[g.name]: int(widths.get(g.symbol, g.base)) // g.multiple_of for g in graph.groups}


def _maps(
    graph: Graph,
    channels: Channels,
    tensors: Mapping[str, Tensor],
    old: Mapping[sympy.Symbol, int],
    new: Mapping[sympy.Symbol, int],
    importance: Importance,
    seed: int,
) -> tuple[dict[sympy.Symbol, NDArray[np.int64]], dict[sympy.Symbol, NDArray[np.float64]]]:
    """Per symbol, for each new channel the old one it is copied from, and its share of that channel's outgoing
    weights."""
    maps: dict[sympy.Symbol, NDArray[np.int64]] = {}
    shares: dict[sympy.Symbol, NDArray[np.float64]] = {}
    for i, group in enumerate(graph.groups):
        symbol = channels.blocks[group.name]
        base, width = old[symbol], new[symbol]
        if width >= base:
            source = np.arange(width) * base // width
        else:
            generator = np.random.default_rng([seed, i])
            source = kept_channels(channels, tensors, symbol, old, width, importance, generator)
        maps[symbol] = source
        shares[symbol] = 1.0 / np.bincount(source, minlength=base)[source]
    return maps, shares


def _gather(
    tensor: Tensor,
    name: str,
    channels: Channels,
    maps: Mapping[sympy.Symbol, NDArray[np.int64]],
    shares: Mapping[sympy.Symbol, NDArray[np.float64]],
    old: Mapping[sympy.Symbol, int],
    changed: set[sympy.Symbol],
) -> Tensor:
    result = tensor.detach()
    for dim, layout in enumerate(channels.layouts[name]):
        if not layout.symbols & changed:
            continue
        index = torch.from_numpy(layout.source(maps, old)).to(result.device)
        result = result.index_select(dim, index)
        if (name, dim) in channels.contracted:
            share = torch.from_numpy(layout.spread(shares)).to(result.device, torch.float64)
            shape = [-1 if i == dim else 1 for i in range(result.ndim)]
            # In float64, so that a third of a weight is rounded once.
            result = (result.to(torch.float64) * share.view(shape)).to(tensor.dtype)
    return result.contiguous() if tensor.is_contiguous() else result
