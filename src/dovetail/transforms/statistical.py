"""Rules for operations that take statistics: normalisation, pooling, reductions."""

from __future__ import annotations

from dovetail.transforms.arguments import Operands, dims_in, fresh
from dovetail.transforms.elementwise import unknown
from dovetail.transforms.layout import Layout
from dovetail.transforms.reshaping import cut
from dovetail.transforms.tracking import ObstacleKind, State, Value

__all__ = ["batch_norm", "group_norm", "layer_norm", "pool", "reduction", "softmax"]


def batch_norm(state: State, op: Operands) -> Value:
    x = op.x
    met = x.dims[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = op.value(name)
        if value is not None:
            met = state.unify(met, value.dims[0], op.where)
            state.produce(value)
    return Value.of([x.dims[0], met, *x.dims[2:]])


def layer_norm(state: State, op: Operands) -> Value:
    x, dims = op.x, list(op.x.dims)
    count = len(op.arguments["normalized_shape"])
    for name in ("weight", "bias"):
        value = op.value(name)
        if value is not None:
            state.produce(value)
            for i in range(1, count + 1):
                dims[-i] = state.unify(dims[-i], value.dims[-i], op.where)
    reason = f"{op.where} takes statistics over the channels, which stay only if every channel is copied equally often"
    state.block(state.symbols(x.dims[-count:]), reason, ObstacleKind.UNIFORM)
    return Value.of(dims)


def group_norm(state: State, op: Operands) -> Value:
    met = op.x.dims[1]
    for name in ("weight", "bias"):
        value = op.value(name)
        if value is not None:
            met = state.unify(met, value.dims[0], op.where)
            state.produce(value)
    cut(state, met, int(op.arguments["num_groups"]), op.where)
    reason = (
        f"{op.where} takes statistics over groups of channels, which stay only if every channel is copied equally often"
    )
    state.block(state.symbols([met]), reason, ObstacleKind.UNIFORM)
    return Value.of([op.x.dims[0], met, *op.x.dims[2:]])


def pool(state: State, op: Operands) -> Value | list[Value]:
    """Over the last dimensions, as many as the operation's name says; the channels stay."""
    spatial = next(int(c) for c in op.function if c.isdigit())
    shapes = op.shapes or (op.shape,)
    found = [
        Value.of([*op.x.dims[: len(shape) - spatial], *fresh(state, op, shape, f".{i}").dims[len(shape) - spatial :]])
        for i, shape in enumerate(shapes)
    ]
    return found if op.shapes else found[0]


_KEEPS_COPIES = {
    "amax": None,
    "amin": None,
    "max": None,
    "min": None,
    "any": None,
    "all": None,
    "mean": ObstacleKind.UNIFORM,
}


def reduction(state: State, op: Operands) -> Value | list[Value]:
    """A figure of the elements along some dimensions."""
    x = op.x
    state.produce(x)
    over = dims_in(op.arguments.get("dim"), len(x.dims))
    carried = state.symbols(x.dims[i] for i in over)
    kind = _KEEPS_COPIES.get(op.function, ObstacleKind.UNIFORM if op.function in ("var", "std") else ObstacleKind.NEVER)
    if op.function in ("var", "std") and op.arguments.get("correction", 1) != 0:
        kind = ObstacleKind.NEVER
    if carried and kind is not None:
        state.block(carried, f"{op.where} sums up the channels", kind)
    kept = [d for i, d in enumerate(x.dims) if i not in over]
    shapes = op.shapes or (op.shape,)
    if len(shapes[0]) == len(x.dims):  # keepdim
        kept = [Layout.of([(1,)]) if i in over else d for i, d in enumerate(x.dims)]
    if len(kept) != len(shapes[0]):
        return unknown(state, op)
    return [Value.of(kept) for _ in op.shapes] if op.shapes else Value.of(kept)


def softmax(state: State, op: Operands) -> Value:
    x = op.x
    state.produce(x)
    over = dims_in(op.arguments["dim"], len(x.dims))
    state.block(state.symbols(x.dims[i] for i in over), f"{op.where} normalises over the channels")
    return Value.of(x.dims)
