"""How channels go through operators that compute: layers with weights, normalisation, products, reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy
from torch import fx

from dovetail.graph.following import Dims, Following
from dovetail.graph.kinds import kind_of
from dovetail.graph.layout import Layout, Use

__all__ = ["COMPUTING"]


def _linear(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, weight = state.dims(named["input"]), state.dims(named["weight"])
    state.same(node, x[-1], weight[1])
    state.use(named["weight"], 0, Use.PRODUCES)
    state.use(named["weight"], 1, Use.CONSUMES)
    if named.get("bias") is not None:
        state.same(node, weight[0], state.dims(named["bias"])[0])
        state.use(named["bias"], 0, Use.PRODUCES)
    return [*x[:-1], weight[0]]


def _addmm(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    bias, x, weight = state.dims(named["self"]), state.dims(named["mat1"]), state.dims(named["mat2"])
    state.same(node, x[-1], weight[0])
    state.same(node, weight[1], bias[-1])
    state.use(named["mat2"], 0, Use.CONSUMES)
    state.use(named["mat2"], 1, Use.PRODUCES)
    state.use(named["self"], len(bias) - 1, Use.PRODUCES)
    return [x[0], weight[1]]


def _convolution(state: Following, node: fx.Node, named: dict[str, Any], *, transposed: bool = False) -> Dims:
    x, weight, groups = state.dims(named["input"]), state.dims(named["weight"]), named.get("groups", 1)
    inputs, outputs = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    channels = x[1 - len(weight)]
    use_in, use_out = Use.CONSUMES, Use.PRODUCES
    if isinstance(groups, fx.Node):  # depthwise: as many groups as channels
        repeats = state.axes.fresh(state.axes.size(outputs) / state.axes.size(channels))
        merged = state.axes.merge([channels, repeats])
        state.same(node, outputs, merged) if merged is not None else state.blame(channels, state.lost(node))
        use_out = Use.ELEMENTWISE if repeats == Layout.of() else Use.PRODUCES
    elif groups != 1:
        merged = state.axes.merge([Layout.of(sympy.Integer(groups)), state.axes.resolve(inputs)])
        state.same(node, channels, merged) if merged is not None else state.blame(channels, state.lost(node))
        state.axes.split(outputs, [sympy.Integer(groups), sympy.expand(state.axes.size(outputs) / groups)])
    else:
        state.same(node, channels, inputs)
    state.use(named["weight"], 0, use_in if transposed else use_out)
    state.use(named["weight"], 1, use_out if transposed else use_in)
    if named.get("bias") is not None:
        state.same(node, outputs, state.dims(named["bias"])[0])
        state.use(named["bias"], 0, use_out)
    return [*x[: 1 - len(weight)], state.axes.resolve(outputs), *state.fresh(node)[2 - len(weight) :]]


def _transposed_convolution(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    return _convolution(state, node, named, transposed=True)


def _batch_norm(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x = state.dims(named["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if named.get(name) is not None:
            state.same(node, x[1], state.dims(named[name])[0])
            state.use(named[name], 0, Use.ELEMENTWISE)
    return x


def _layer_norm(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x = state.dims(named["input"])
    count = len(named["normalized_shape"])
    for name in ("weight", "bias"):
        if named.get(name) is not None:
            for dim, layout in enumerate(state.dims(named[name])):
                state.same(node, x[dim - count], layout)
                state.use(named[name], dim, Use.ELEMENTWISE)
    state.mean(node, x[-count:])
    return x


def _group_norm(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, groups = state.dims(named["input"]), sympy.Integer(named["num_groups"])
    size = state.axes.size(state.axes.resolve(x[1]))
    state.axes.split(x[1], [groups, sympy.expand(size / groups)])
    for name in ("weight", "bias"):
        if named.get(name) is not None:
            state.same(node, x[1], state.dims(named[name])[0])
            state.use(named[name], 0, Use.ELEMENTWISE)
    state.mean(node, [x[1]])
    return x


def _embedding(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    state.use(named["weight"], 1, Use.PRODUCES)
    return [*state.dims(named["indices"]), state.dims(named["weight"])[1]]


def _matmul(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    a_node, b_node = named["self"], named.get("other", named.get("mat2"))
    a, b = state.dims(a_node), state.dims(b_node)
    if len(a) < 2 or len(b) < 2:
        return state.elementwise(node)
    state.same(node, a[-1], b[-2])
    if b_node in state.tensors:
        state.use(b_node, len(b) - 2, Use.CONSUMES)
        state.use(b_node, len(b) - 1, Use.PRODUCES)
    elif a_node in state.tensors:
        state.use(a_node, len(a) - 1, Use.CONSUMES)
        state.use(a_node, len(a) - 2, Use.PRODUCES)
    else:
        state.contract(node, a[-1])
    batch = [state.same(node, x, y) for x, y in zip(a[-3::-1], b[-3::-1], strict=False)][::-1]
    longer = a if len(a) >= len(b) else b
    return [*longer[: max(len(longer) - 2 - len(batch), 0)], *batch, a[-2], b[-1]]


def _attention(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    q, k, v = (state.dims(named[name]) for name in ("query", "key", "value"))
    state.contract(node, state.same(node, q[-1], k[-1]))
    for other in (k, v):
        for x, y in zip(q[:-2], other[:-2], strict=False):
            if state.axes.size(state.axes.resolve(x)) == state.axes.size(state.axes.resolve(y)):
                state.same(node, x, y)
    return [*q[:-1], v[-1]]


def _reduce(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, dims = state.dims(named["self"]), named.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims) if dims else list(range(len(x)))
    reduced = {dim % len(x) for dim in dims} if x else set()
    kind = kind_of(node.target).type
    for dim in reduced:
        if kind in ("mean", "amax", "amin"):
            state.mean(node, [x[dim]])
        else:
            state.blame(x[dim], f"{state.name(node)} takes the {kind} over the channels")
    fresh = state.fresh(node)
    if len(fresh) == len(x):
        return [Layout.of() if i in reduced else layout for i, layout in enumerate(x)]
    return [layout for i, layout in enumerate(x) if i not in reduced]


def _mix(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    x, dim = state.dims(named["self"]), named.get("dim", -1)
    kind = kind_of(node.target).type
    if isinstance(dim, int) and x:
        state.blame(x[dim], f"{state.name(node)} takes the {kind} over the channels")
    return state.elementwise(node)


def _pool(state: Following, node: fx.Node, named: dict[str, Any]) -> Dims:
    return [*state.dims(named.get("self") or named["input"])[:2], *state.fresh(node)[2:]]


# Operators that mix along one dimension without weights.
_MIXING = ("softmax", "log_softmax", "cumsum", "sort", "topk", "flip", "roll", "argmax", "cross_entropy_loss")
_POOLING = """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d
    upsample_bicubic2d max_pool2d_with_indices""".split()  # noqa: SIM905 - a table of names reads better as one
_REDUCING = ("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "max", "min", "prod")

COMPUTING: Mapping[str, Callable[[Following, fx.Node, dict[str, Any]], Dims]] = {
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(("conv", "conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution),
    **dict.fromkeys(("batch_norm", "instance_norm"), _batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    "group_norm": _group_norm,
    "embedding": _embedding,
    "matmul": _matmul,
    "attention": _attention,
    **dict.fromkeys(_POOLING, _pool),
    **dict.fromkeys(_REDUCING, _reduce),
    **dict.fromkeys(_MIXING, _mix),
}
"""Kind of operator -> the layouts of its result."""
