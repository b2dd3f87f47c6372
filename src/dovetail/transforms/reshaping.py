"""What a reshape does to the channels of a tensor."""

from __future__ import annotations

import sympy

from dovetail.transforms.layout import Layout
from dovetail.transforms.tracking import Dim, Hole, Origin, State, Value

__all__ = ["cut", "reshape", "split"]

_ONE = Layout.of([(1,)])


def reshape(state: State, x: Value, shape: tuple[sympy.Expr, ...], name: str, where: str) -> Value:
    """The result of viewing x with another shape: dimensions are merged and split, outer first.

    Args:
        state: the walk's state; holes that the view explains are filled.
        x: what is viewed.
        shape: the result's sizes.
        name: the node's name.
        where: the operation, for messages.
    """
    dims: list[Dim] = []
    origins: list[Origin | None] = []
    for old, new in _blocks([state.resolve(d).size for d in x.dims], list(shape)):
        if len(old) == 1 and len(new) == 1:
            dims.append(x.dims[old[0]])
            origins.append(x.origins[old[0]])
            continue
        origins += [None] * len(new)
        named = [state.dim((name, j), shape[j]) for j in new]
        found = _reblock(state, [state.resolve(x.dims[i]) for i in old], [shape[j] for j in new], named)
        if found is None:
            touched = state.symbols([x.dims[i] for i in old])
            state.block(touched, f"{where} regroups the channels")
            found = named
        state.produced.update(o for i in old if (o := x.origins[i]) is not None)
        dims += found
    return Value(tuple(dims), tuple(origins))


def _blocks(old: list[sympy.Expr], new: list[sympy.Expr]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of old and new dimensions with equal products."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(a), j + len(b)
        while not _equal([old[k] for k in a], [new[k] for k in b]):
            grow_old = _prefer_old([old[k] for k in a], [new[k] for k in b])
            if (grow_old or j >= len(new)) and i < len(old):
                a.append(i)
                i += 1
            elif j < len(new):
                b.append(j)
                j += 1
            else:
                break
        found.append((a, b))
    return found


def _equal(a: list[sympy.Expr], b: list[sympy.Expr]) -> bool:
    return bool(sympy.expand(sympy.Mul(*a) - sympy.Mul(*b)) == 0)


def _prefer_old(a: list[sympy.Expr], b: list[sympy.Expr]) -> bool:
    """Whether the old side is the smaller one, judged with every symbol at one large value."""
    sides = [sympy.Mul(*side) for side in (a, b)]
    try:
        left, right = (side.subs(dict.fromkeys(side.free_symbols, 840)) for side in sides)
    except ZeroDivisionError:  # quotients of quotients: no value suits them all
        left = right = 0
    return bool(left < right) if left != right else len(a) <= len(b)


def _reblock(state: State, old: list[Dim], shape: list[sympy.Expr], named: list[Dim]) -> list[Dim] | None:
    if len(old) > 1 and isinstance(old[-1], Hole) and shape[-1] != 1:  # its inner part may be the last size
        split(state, old[-1], sympy.cancel(old[-1].size / shape[-1]), shape[-1])
        old = [*old[:-1], state.resolve(old[-1])]
    merged: Dim | None = _ONE
    for dim in old:
        if merged == _ONE:
            merged = dim
        elif dim != _ONE:
            merged = merged.times(dim) if isinstance(merged, Layout) and isinstance(dim, Layout) else None
    if merged is None:
        return None
    if not isinstance(merged, Layout):
        return _fill(state, merged, named)
    found: list[Dim] = []
    for j in range(len(shape) - 1):
        if shape[j] == 1:
            found.append(_ONE)
            continue
        inner = sympy.expand(sympy.Mul(*shape[j + 1 :]))
        if inner == 1:
            found.append(merged)
            merged = _ONE
            continue
        parts = split(state, merged, shape[j], inner)
        if parts is None:
            return None
        found.append(parts[0])
        merged = parts[1]
    return [*found, merged] if shape else found


def _fill(state: State, hole: Hole, dims: list[Dim]) -> list[Dim] | None:
    """A hole viewed as dimensions whose layouts are known is their product."""
    parts = [part for part in map(state.resolve, dims) if isinstance(part, Layout)]
    merged: Layout | None = _ONE
    for part in parts:
        merged = merged.times(part) if merged is not None else None
    if merged is None or len(parts) < len(dims):
        return None
    state.filled[hole.owner] = merged
    return [*parts]


def split(state: State, dim: Dim, outer: sympy.Expr, inner: sympy.Expr) -> tuple[Dim, Dim] | None:
    """A dimension viewed as outer x inner, or None where the view cuts through channels; fills a hole where it can."""
    dim = state.resolve(dim)
    if isinstance(dim, Layout):
        return dim.split(outer, inner)
    left, right = Layout.from_size(outer), Layout.from_size(inner)
    if left is None or right is None or _fill(state, dim, [left, right]) is None:
        return None
    return left, right


def cut(state: State, dim: Dim, groups: int, where: str) -> Dim | None:
    """The channels of one of so many equal groups; None, and an obstacle, where a group would begin amid a width.

    Args:
        state: the walk's state.
        dim: the channels.
        groups: how many.
        where: the operation, for messages.
    """
    dim = state.resolve(dim)
    parts = split(state, dim, sympy.Integer(groups), sympy.cancel(dim.size / groups))
    if parts is not None:
        return parts[1]
    reason = f"{where} cuts its channels into {groups} groups, and not between channels of a width"
    state.block(state.symbols([dim]), reason)
    return None
