"""Rules for operations on each element by itself, and for those that have no rule."""

from __future__ import annotations

import sympy

from dovetail.transforms.arguments import Operands, fresh, is_one
from dovetail.transforms.tracking import Dim, State, Value

__all__ = ["filled", "pointwise", "prelu", "same", "unknown"]


def pointwise(state: State, op: Operands) -> Value:
    """Element by element, operands broadcast."""
    for value in op.tensors:
        state.produce(value)
    for argument in op.arguments.values():
        if isinstance(argument, sympy.Expr):
            state.block(argument.free_symbols, f"{op.where} computes with the width itself")
    dims: list[Dim] = []
    for i, size in enumerate(op.shape):
        met: Dim | None = None
        for value in op.tensors:
            j = i - len(op.shape) + len(value.dims)
            if j < 0 or (is_one(value.dims[j]) and size != 1):
                continue
            met = value.dims[j] if met is None else state.unify(met, value.dims[j], op.where)
        dims.append(met if met is not None else state.dim((op.name, i), size))
    return Value.of(dims)


def same(state: State, op: Operands) -> Value:
    """The same elements: copies, casts, dropout."""
    return op.x


def filled(state: State, op: Operands) -> Value:
    """A constant of some shape."""
    return fresh(state, op)


def prelu(state: State, op: Operands) -> Value:
    weight = op.value("weight")
    assert weight is not None
    state.produce(weight)
    dims = list(op.x.dims)
    if not is_one(weight.dims[0]) and len(dims) > 1:
        dims[1] = state.unify(dims[1], weight.dims[0], op.where)
    return Value.of(dims)


def unknown(state: State, op: Operands) -> Value | list[Value]:
    """An operation without a rule: runs at any width that the trace allows, but nothing is promised of copied
    channels."""
    for value in op.tensors:
        state.produce(value)
    shapes = op.shapes or (op.shape,)
    touched = state.symbols(d for value in op.tensors for d in value.dims)
    for shape in shapes:
        touched |= frozenset().union(*(size.free_symbols for size in shape)) if shape else frozenset()
    state.block(touched, f"{op.where} has no rule for copied channels")
    if op.shapes:
        return [fresh(state, op, shape, f".{i}") for i, shape in enumerate(op.shapes)]
    return fresh(state, op)
