"""Rules for operations that move elements and compute none."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from dovetail.transforms.arguments import Operands, dims_in, is_one
from dovetail.transforms.elementwise import pointwise
from dovetail.transforms.layout import Layout
from dovetail.transforms.reshaping import reshape
from dovetail.transforms.tracking import Dim, Hole, State, Value

__all__ = [
    "cat",
    "expand",
    "pad",
    "permute",
    "pieces",
    "repeat",
    "select",
    "slice_",
    "squeeze",
    "stack",
    "unsqueeze",
    "view",
]


def cat(state: State, op: Operands) -> Value:
    # An empty tensor of one dimension may be concatenated with anything: an empty cache of keys.
    values = [value for value in op.arguments["tensors"] if len(value.dims) == len(op.shape)]
    axis = int(op.arguments.get("dim", 0)) % len(op.shape)
    for value in values:
        state.produce(value)
    dims = list(values[0].dims)
    for value in values[1:]:
        for i in range(len(dims)):
            if i != axis:
                dims[i] = state.unify(dims[i], value.dims[i], op.where)
    parts = [state.resolve(value.dims[axis]) for value in values]
    if all(isinstance(part, Layout) for part in parts):
        dims[axis] = Layout.of([s for part in parts if isinstance(part, Layout) for s in part.segments])
    else:
        dims[axis] = state.dim((op.name, axis), op.shape[axis])
    return Value.of(dims)


def stack(state: State, op: Operands) -> Value:
    values: list[Value] = op.arguments["tensors"]
    axis = int(op.arguments.get("dim", 0)) % len(op.shape)
    inner = op.shape[:axis] + op.shape[axis + 1 :]
    dims = list(pointwise(state, Operands(op.name, op.function, dict(enumerate(values)), inner)).dims)  # type: ignore[arg-type]
    return Value.of([*dims[:axis], Layout.of([(len(values),)]), *dims[axis:]])


def view(state: State, op: Operands) -> Value:
    return reshape(state, op.x, op.shape, op.name, op.where)


def permute(state: State, op: Operands) -> Value:
    ndim = len(op.x.dims)
    if op.function == "permute":
        order = dims_in(op.arguments["dims"], ndim)
    elif op.function == "transpose":
        order = list(range(ndim))
        a, b = int(op.arguments["dim0"]) % ndim, int(op.arguments["dim1"]) % ndim
        order[a], order[b] = b, a
    else:  # t, mT, numpy_T
        order = list(range(ndim))
        order[-2:] = order[-2:][::-1]
        if op.function == "numpy_T":
            order = list(range(ndim))[::-1]
    return Value(tuple(op.x.dims[i] for i in order), tuple(op.x.origins[i] for i in order))


def unsqueeze(state: State, op: Operands) -> Value:
    at = int(op.arguments["dim"]) % len(op.shape)
    one = Layout.of([(1,)])
    return Value((*op.x.dims[:at], one, *op.x.dims[at:]), (*op.x.origins[:at], None, *op.x.origins[at:]))


def squeeze(state: State, op: Operands) -> Value:
    ndim = len(op.x.dims)
    asked = dims_in(op.arguments.get("dim"), ndim)
    gone = {i for i in asked if is_one(op.x.dims[i])}
    kept = [i for i in range(ndim) if i not in gone]
    return Value(tuple(op.x.dims[i] for i in kept), tuple(op.x.origins[i] for i in kept))


def expand(state: State, op: Operands) -> Value:
    lead = len(op.shape) - len(op.x.dims)
    dims: list[Dim] = []
    for i, size in enumerate(op.shape):
        old = op.x.dims[i - lead] if i >= lead else None
        repeated = old is None or (is_one(old) and size != 1)
        dims.append(state.dim((op.name, i), size) if repeated or old is None else old)
    return Value(tuple(dims), ((None,) * lead + op.x.origins))


def repeat(state: State, op: Operands) -> Value:
    state.produce(op.x)
    repeats = list(op.arguments["repeats"])
    lead = len(repeats) - len(op.x.dims)
    padded: list[Dim] = [*[Layout.of([(1,)])] * lead, *op.x.dims]
    dims: list[Dim] = []
    for i, (count, dim) in enumerate(zip(repeats, padded, strict=True)):
        dim = state.resolve(dim)
        outer = Layout.from_size(count)
        merged = outer.times(dim) if outer is not None and isinstance(dim, Layout) else None
        dims.append(merged or state.dim((op.name, i), op.shape[i]))
    return Value.of(dims)


def select(state: State, op: Operands) -> Value:
    at = int(op.arguments["dim"]) % len(op.x.dims)
    state.block(state.symbols([op.x.dims[at]]), f"{op.where} picks one channel by its number")
    keep = [i for i in range(len(op.x.dims)) if i != at]
    state.produced.update(o for i in keep if (o := op.x.origins[i]) is not None)
    return Value(tuple(op.x.dims[i] for i in keep), tuple(op.x.origins[i] for i in keep))


def slice_(state: State, op: Operands) -> Value:
    at = int(op.arguments.get("dim", 0)) % len(op.x.dims)
    old = state.resolve(op.x.dims[at])
    size = op.shape[at]
    if sympy.expand(old.size - size) == 0:
        return op.x
    start, step = op.arguments.get("start") or 0, op.arguments.get("step", 1)
    dims, origins = list(op.x.dims), list(op.x.origins)
    dims[at], origins[at] = state.dim((op.name, at), size), None
    if not state.symbols([old]):
        return Value(tuple(dims), tuple(origins))
    if isinstance(old, Layout) and step == 1:
        begin = sympy.sympify(start)
        if begin.is_negative:
            begin = sympy.expand(old.size + begin)
        parts = old.cut([begin, size, sympy.expand(old.size - begin - size)])
        if parts is not None:
            dims[at] = parts[1]
            return Value(tuple(dims), tuple(origins))
    state.block(state.symbols([old]), f"{op.where} picks channels by their numbers")
    return Value(tuple(dims), tuple(origins))


def pieces(state: State, op: Operands) -> list[Value]:
    """chunk, split, split_with_sizes, unbind."""
    at = int(op.arguments.get("dim", 0)) % len(op.x.dims)
    if op.function == "unbind":
        state.block(state.symbols([op.x.dims[at]]), f"{op.where} takes the channels apart")
        keep = [i for i in range(len(op.x.dims)) if i != at]
        one = Value(tuple(op.x.dims[i] for i in keep), tuple(op.x.origins[i] for i in keep))
        return [one] * len(op.shapes)
    sizes = [shape[at] for shape in op.shapes]
    old = state.resolve(op.x.dims[at])
    parts: Sequence[Dim] | None = old.cut(sizes) if isinstance(old, Layout) else None
    if parts is None and isinstance(old, Hole):
        layouts = [layout for size in sizes if (layout := Layout.from_size(size)) is not None]
        if len(layouts) == len(sizes):
            parts = layouts
            state.filled[old.owner] = Layout.of([segment for layout in layouts for segment in layout.segments])
    if parts is None:
        state.block(state.symbols([old]), f"{op.where} cuts through the channels")
        parts = [state.dim((f"{op.name}.{i}", at), size) for i, size in enumerate(sizes)]
    found = []
    for part in parts:
        dims, origins = list(op.x.dims), list(op.x.origins)
        if origins[at] is not None and state.symbols([old]):
            state.block(state.symbols([old]), f"{op.where} cuts a parameter")
        dims[at], origins[at] = part, None
        found.append(Value(tuple(dims), tuple(origins)))
    return found


def pad(state: State, op: Operands) -> Value:
    amounts = list(op.arguments["pad"])
    dims = list(op.x.dims)
    state.produce(op.x)
    for k in range(len(amounts) // 2):
        at = len(dims) - 1 - k
        before, after = sympy.sympify(amounts[2 * k]), sympy.sympify(amounts[2 * k + 1])
        if before == 0 and after == 0:
            continue
        old = state.resolve(dims[at])
        sides = Layout.guess(before) if before != 0 else Layout(()), Layout.guess(after) if after != 0 else Layout(())
        if isinstance(old, Layout) and sides[0] is not None and sides[1] is not None:
            dims[at] = Layout.of([*sides[0].segments, *old.segments, *sides[1].segments])
        else:
            state.block(state.symbols([old]), f"{op.where} pads or crops the channels")
            dims[at] = state.dim((op.name, at), op.shape[at])
    if op.arguments.get("mode", "constant") != "constant":
        touched = state.symbols(dims[len(dims) - len(amounts) // 2 :])
        state.block(touched, f"{op.where} pads with copies of channels")
    return Value.of(dims)
