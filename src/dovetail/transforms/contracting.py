"""Rules for operations that multiply and sum over channels."""

from __future__ import annotations

from typing import Any

import sympy

from dovetail.transforms.arguments import Operands, fresh
from dovetail.transforms.elementwise import pointwise
from dovetail.transforms.layout import Layout
from dovetail.transforms.reshaping import cut
from dovetail.transforms.tracking import Dim, State, Value

__all__ = ["addmm", "attention", "convolution", "embedding", "linear", "matmul"]


def linear(state: State, op: Operands) -> Value:
    x, weight, bias = op.x, op.value("weight"), op.value("bias")
    assert weight is not None
    state.contract(x, -1, weight, -1, op.where)
    out = list(weight.dims[:-1])
    if weight.origins[0] is not None:
        state.produced.add(weight.origins[0])
    if bias is not None and out:
        out[0] = state.unify(out[0], bias.dims[0], op.where)
        state.produce(bias)
    return Value.of([*x.dims[:-1], *out])


def addmm(state: State, op: Operands) -> Value:
    a, b, bias = op.value("mat1", "batch1"), op.value("mat2", "batch2"), op.x
    assert a is not None
    assert b is not None
    return pointwise(state, Operands(op.name, op.function, {"a": bias, "b": _multiply(state, a, b, op)}, op.shape))


def matmul(state: State, op: Operands) -> Value:
    b = op.value("other", "mat2")
    assert b is not None
    return _multiply(state, op.x, b, op)


def _multiply(state: State, a: Value, b: Value, op: Operands) -> Value:
    j = -2 if len(b.dims) > 1 else -1
    state.contract(a, -1, b, j, op.where)
    kept_a = list(range(len(a.dims) - 1))
    kept_b = [i for i in range(len(b.dims)) if i != len(b.dims) + j]
    for value, kept in ((a, kept_a), (b, kept_b)):
        state.produced.update(o for i in kept if (o := value.origins[i]) is not None)
    rows = list(a.dims[-2:-1])
    columns = [b.dims[-1]] if len(b.dims) > 1 else []
    batch_shape = op.shape[: len(op.shape) - len(rows) - len(columns)]
    outer = Operands(op.name, op.function, {"a": Value.of(a.dims[:-2]), "b": Value.of(b.dims[:-2])}, batch_shape)
    return Value.of([*pointwise(state, outer).dims, *rows, *columns])


def attention(state: State, op: Operands) -> Value:
    q, k, v = (op.arguments[name] for name in ("query", "key", "value"))
    state.unify(q.dims[-1], k.dims[-1], op.where)
    reason = f"{op.where} sums products of queries and keys over the channels, and scales them by the width"
    state.block(state.symbols([q.dims[-1], k.dims[-1]]), reason)
    lead = list(q.dims[:-2])
    for i in range(len(lead)):
        if not op.arguments.get("enable_gqa", False):
            lead[i] = state.unify(state.unify(lead[i], k.dims[i], op.where), v.dims[i], op.where)
    return Value.of([*lead, q.dims[-2], v.dims[-1]])


def embedding(state: State, op: Operands) -> Value:
    weight, indices = op.value("weight"), op.value("indices", "input")
    assert weight is not None
    assert indices is not None
    state.produce(weight)
    return Value.of([*indices.dims, weight.dims[1]])


def convolution(state: State, op: Operands) -> Value:
    x, weight, bias = op.x, op.value("weight"), op.value("bias")
    assert weight is not None
    spatial = len(weight.dims) - 2
    at = len(x.dims) - spatial - 1
    transposed = "transpose" in op.function or bool(op.arguments.get("transposed", False))
    groups = op.arguments.get("groups", 1)
    inputs, outputs = (0, 1) if transposed else (1, 0)
    out: Dim | None
    if groups == 1:
        state.contract(x, at, weight, inputs, op.where)
        out = weight.dims[outputs]
        state.produced.update(o for o in [weight.origins[outputs]] if o is not None)
    else:
        out = _grouped(state, op, x, at, weight, groups, transposed)
    if bias is not None:
        out = state.unify(out, bias.dims[0], op.where) if out is not None else None
        state.produce(bias)
    unknown = fresh(state, op).dims
    return Value.of([*x.dims[:at], out if out is not None else unknown[at], *unknown[at + 1 :]])


def _grouped(state: State, op: Operands, x: Value, at: int, weight: Value, groups: Any, transposed: bool) -> Dim | None:
    """Blocks of channels, each with filters of its own."""
    state.produce(weight)
    channels = state.resolve(x.dims[at])
    if transposed:
        state.block(state.symbols([channels, *weight.dims]), f"{op.where} is a grouped transposed convolution")
        return fresh(state, op).dims[at]
    size = channels.size
    if sympy.expand(sympy.sympify(groups) - size) == 0:
        return _depthwise(state, op, at, weight, sympy.cancel(op.shape[at] / size))
    filters = state.resolve(weight.dims[0])
    if not sympy.sympify(groups).is_Integer:
        state.block(state.symbols([channels, *weight.dims]), f"{op.where} has a number of groups that follows a width")
        return filters
    columns = cut(state, channels, int(groups), op.where)
    if columns is not None:
        state.unify(columns, weight.dims[1], op.where)
    cut(state, filters, int(groups), op.where)
    if weight.origins[1] is not None:
        state.produced.discard(weight.origins[1])
        state.contracted.add(weight.origins[1])
    return state.resolve(weight.dims[0])


def _depthwise(state: State, op: Operands, at: int, weight: Value, multiplier: sympy.Expr) -> Dim | None:
    """As many groups as channels: each channel has filters of its own. None while nothing is known of the channels, so
    that what comes after does not lay out the filters."""
    channels = state.resolve(op.x.dims[at])
    if multiplier == 1:
        return state.unify(channels, weight.dims[0], op.where)
    if not isinstance(channels, Layout):
        state.block(state.symbols([channels, *weight.dims]), f"{op.where} has channels of which nothing is known")
        return None
    out = channels.times(Layout.of([(int(multiplier),)]))
    assert out is not None, "a single segment merges with anything"
    return state.unify(out, weight.dims[0], op.where)
