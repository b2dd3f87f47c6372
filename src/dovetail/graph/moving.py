"""How channels go through operators that move values: views, permutations, slices, concatenations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
from torch import fx

from dovetail.graph.following import Dims, Following
from dovetail.graph.layout import Layout

__all__ = ["MOVING"]


def _view(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    old = state.dims(named["self"])
    new = state.axes.view(old, state.flat.shapes[node.name])
    if None in new:
        for layout in old:
            if len(state.axes.symbols(layout)) and not _kept(state, layout, new):
                state.blame(layout, state.lost(node))
    return [n if n is not None else f for n, f in zip(new, state.fresh(node), strict=True)]


def _kept(state: Following, layout: Layout, new: Sequence[Layout | None]) -> bool:
    return any(n is not None and state.axes.resolve(n) == state.axes.resolve(layout) for n in new)


def _permute(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x = state.dims(named["self"])
    return [x[dim] for dim in named["dims"]]


def _transpose(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x = list(state.dims(named["self"]))
    i, j = named["dim0"], named["dim1"]
    x[i], x[j] = x[j], x[i]
    return x


def _t(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    return state.dims(named["self"])[::-1]


def _unsqueeze(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x = list(state.dims(named["self"]))
    dim = named["dim"] if named["dim"] >= 0 else named["dim"] + len(x) + 1
    x.insert(dim, Layout.of())
    return x


def _expand(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, fresh = state.dims(named["self"]), state.fresh(node)
    aligned = [None] * (len(fresh) - len(x)) + x
    return [f if layout is None or layout == Layout.of() else layout for layout, f in zip(aligned, fresh, strict=True)]


def _select(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x = list(state.dims(named["self"]))
    taken = x.pop(named.get("dim", 0))
    if state.axes.symbols(taken) - {state.flat.batch}:
        state.blame(taken, f"{state.name(node)} picks one channel by its number")
    return x


def _slice(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, dim = list(state.dims(named["self"])), named.get("dim", 0)
    shape = state.flat.shapes[node.name]
    if sympy.expand(state.axes.size(state.axes.resolve(x[dim])) - shape[dim]) == 0:
        return x
    start = state.number(named.get("start")) or sympy.Integer(0)
    part = state.axes.cut(x[dim], start, sympy.expand(start + shape[dim])) if named.get("step", 1) == 1 else None
    if part is None:
        state.blame(x[dim], f"{state.name(node)} takes some of the channels by their numbers")
    x[dim] = part or state.axes.fresh(shape[dim])
    return x


def _chunk(state: Following, node: fx.Node, named: dict[str, Any]) -> list[Dims]:
    x, dim = state.dims(named["self"]), named.get("dim", 0)
    parts = _taken(node)
    offset, results = sympy.Integer(0), list[Dims]()
    for index in range(max(parts, default=-1) + 1):
        user = parts.get(index)
        size = state.flat.shapes[(user or node).name][dim]
        part = state.axes.cut(x[dim], offset, sympy.expand(offset + size)) or _cut_evenly(state, x[dim], size)
        if part is None:
            state.blame(x[dim], f"{state.name(node)} divides channels by their numbers")
        dims = list(x)
        dims[dim] = part or state.axes.fresh(size)
        results.append(dims)
        offset = sympy.expand(offset + size)
    return results


def _cut_evenly(state: Following, layout: Layout, size: sympy.Expr) -> Layout | None:
    whole = state.axes.size(state.axes.resolve(layout))
    count = sympy.cancel(whole / size)
    if not count.is_Integer:
        return None
    parts = state.axes.split(layout, [count, size])
    return parts[1] if parts is not None else None


def _unbind(state: Following, node: fx.Node, named: dict[str, Any]) -> list[Dims]:
    x = list(state.dims(named["self"]))
    x.pop(named.get("dim", 0))
    return [x] * (1 + max(_taken(node), default=0))


def _getitem(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    source, index = node.args
    value = state.values[source]  # type: ignore[index]
    if value and not isinstance(value[0], Layout):
        return value[index]  # type: ignore[index]
    return state.dims(source)


def _cat(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    rank, dim = len(state.flat.shapes[node.name]), named.get("dim", 0)
    parts = [dims for source in named["tensors"] if len(dims := state.dims(source)) == rank]  # not an empty start
    result = list(parts[0])
    for part in parts[1:]:
        for i, (a, b) in enumerate(zip(result, part, strict=True)):
            if i != dim % len(result):
                result[i] = state.same(node, a, b)
    blocks = [block for part in parts for block in state.axes.resolve(part[dim]).blocks]
    result[dim] = Layout(tuple(blocks)).canonical()
    return result


def _stack(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    parts, dim = [state.dims(source) for source in named["tensors"]], named.get("dim", 0)
    result = list(parts[0])
    for part in parts[1:]:
        result = [state.same(node, a, b) for a, b in zip(result, part, strict=True)]
    result.insert(dim if dim >= 0 else dim + len(result) + 1, Layout.of(sympy.Integer(len(parts))))
    return result


def _pad(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, padding = list(state.dims(named["self"])), named["pad"]
    for i in range(len(padding) // 2):
        dim, amounts = len(x) - 1 - i, [state.number(n) for n in padding[2 * i : 2 * i + 2]]
        if None in amounts:
            x[dim] = state.fresh(node)[dim]
            continue
        blocks = [(amounts[0],), *state.axes.resolve(x[dim]).blocks, (amounts[1],)]
        x[dim] = Layout(tuple(b for b in blocks if b != (0,))).canonical()
    return x


def _taken(node: fx.Node) -> dict[int, fx.Node]:
    """The nodes that take members of what a node gives, by their number."""
    return {int(u.args[1]): u for u in node.users if u.target is operator.getitem and isinstance(u.args[1], int)}


MOVING: Mapping[str, Callable[[Following, fx.Node, dict[str, Any]], Dims | list[Dims]]] = {
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze"), _view),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes"), _transpose),
    **dict.fromkeys(("t", "numpy_T"), _t),
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "select": _select,
    "slice": _slice,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _chunk),
    "unbind": _unbind,
    "getitem": _getitem,
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
}
"""Kind of operator -> the layouts of its result (of each of its results)."""
