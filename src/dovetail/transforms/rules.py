"""What each operation of an exported graph does to the channels of its operands: one rule per family of operations.

A rule takes the walk's state and the operation, and returns what is known of its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx

from dovetail.transforms.layout import Layout
from dovetail.transforms.reshaping import reshape, split
from dovetail.transforms.tracking import Dim, Hole, ObstacleKind, State, Value

__all__ = ["RULES", "Operands", "Rule", "rule_of"]


@dataclass(frozen=True, slots=True)
class Operands:
    """An operation in the walk: its arguments with tensors replaced by what is known of them.

    Args:
        name: the node's name, for messages.
        function: ATen name without overload and trailing underscore.
        arguments: by the schema's names, defaults filled in.
        shape: the result's shape; empty where the result is no tensor.
        shapes: the results' shapes where there are several.
    """

    name: str
    function: str
    arguments: dict[str, Any]
    shape: tuple[sympy.Expr, ...]
    shapes: tuple[tuple[sympy.Expr, ...], ...] = ()

    def value(self, *names: str) -> Value | None:
        """The first of these arguments that is there, where it is a tensor."""
        for name in names:
            found = self.arguments.get(name)
            if isinstance(found, Value):
                return found
        return None

    @property
    def x(self) -> Value:
        """The main operand."""
        found = self.value("input", "self", "query", "tensor")
        assert found is not None, f"{self.function} has no main operand"
        return found

    @property
    def tensors(self) -> list[Value]:
        """Every tensor operand."""
        found: list[Value] = []
        for argument in self.arguments.values():
            items = argument if isinstance(argument, (list, tuple)) else [argument]
            found += [item for item in items if isinstance(item, Value)]
        return found

    @property
    def where(self) -> str:
        """The operation, for messages."""
        return f"{self.function} ({self.name})"


Rule = Callable[[State, Operands], "Value | list[Value]"]


def dims_in(value: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Dimension arguments as a list of non-negative ints; all dimensions for None and []."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return list(range(ndim))
    return [d % ndim for d in ([value] if isinstance(value, int) else value)]


def fresh(state: State, op: Operands, shape: tuple[sympy.Expr, ...] | None = None, tag: str = "") -> Value:
    """A value of which only the shape is known."""
    return Value.of(
        state.dim((f"{op.name}{tag}", i), size) for i, size in enumerate(op.shape if shape is None else shape)
    )


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


def is_one(dim: Dim) -> bool:
    """Whether a dimension has one element, which broadcasting repeats."""
    return isinstance(dim, Layout) and dim.segments == ((1,),)


def same(state: State, op: Operands) -> Value:
    """The same elements: copies, casts, dropout."""
    return op.x


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


def convolution(state: State, op: Operands) -> Value:
    x, weight, bias = op.x, op.value("weight"), op.value("bias")
    assert weight is not None
    spatial = len(weight.dims) - 2
    at = len(x.dims) - spatial - 1
    transposed = "transpose" in op.function or bool(op.arguments.get("transposed", False))
    groups = op.arguments.get("groups", 1)
    inputs, outputs = (0, 1) if transposed else (1, 0)
    out: Dim
    if groups == 1:
        state.contract(x, at, weight, inputs, op.where)
        out = weight.dims[outputs]
        state.produced.update(o for o in [weight.origins[outputs]] if o is not None)
    else:
        out = _grouped(state, op, x, at, weight, groups, transposed)
    if bias is not None:
        out = state.unify(out, bias.dims[0], op.where)
        state.produce(bias)
    rest = fresh(state, op).dims[at + 1 :]
    return Value.of([*x.dims[:at], out, *rest])


def _grouped(state: State, op: Operands, x: Value, at: int, weight: Value, groups: Any, transposed: bool) -> Dim:
    """Depthwise: each channel has its own filters. Otherwise: constant blocks of channels, each alike."""
    state.produce(weight)
    channels = state.resolve(x.dims[at])
    if transposed:
        state.block(state.symbols([channels, *weight.dims]), f"{op.where} is a grouped transposed convolution")
        return fresh(state, op).dims[at]
    size = channels.size
    if sympy.expand(sympy.sympify(groups) - size) == 0:
        multiplier = sympy.cancel(op.shape[at] / size)
        if multiplier == 1:
            return state.unify(channels, weight.dims[0], op.where)
        out = channels.times(Layout.of([(int(multiplier),)])) if isinstance(channels, Layout) else None
        if out is not None:
            return state.unify(out, weight.dims[0], op.where)
    elif sympy.sympify(groups).is_Integer:
        blocks = split(state, channels, sympy.Integer(groups), sympy.cancel(size / groups))
        filters = state.resolve(weight.dims[0])
        rows = split(state, filters, sympy.Integer(groups), sympy.cancel(filters.size / groups))
        if blocks is not None and rows is not None:
            state.unify(blocks[1], weight.dims[1], op.where)
            if weight.origins[1] is not None:
                state.produced.discard(weight.origins[1])
                state.contracted.add(weight.origins[1])
            return state.resolve(weight.dims[0])
    state.block(state.symbols([channels, *weight.dims]), f"{op.where} cuts its channels into {groups} groups")
    return weight.dims[0]


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
    reason = (
        f"{op.where} takes statistics over groups of channels, which stay only if every channel is copied equally often"
    )
    state.block(state.symbols([met]), reason, ObstacleKind.UNIFORM)
    return Value.of([op.x.dims[0], met, *op.x.dims[2:]])


def pool(state: State, op: Operands) -> Value | list[Value]:
    """Over the last dimensions; the channels stay."""
    kept = (
        sum(1 for a, b in zip(op.x.dims, op.shape, strict=True) if state.resolve(a).size == b) if not op.shapes else 0
    )
    count = next((int(c) for c in op.function if c.isdigit()), None)
    spatial = count if count is not None else len(op.shape) - kept
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


def cat(state: State, op: Operands) -> Value:
    values: list[Value] = op.arguments["tensors"]
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


def _table() -> dict[str, Rule]:
    rows: list[tuple[Rule, str]] = [
        (linear, "linear"),
        (addmm, "addmm baddbmm"),
        (matmul, "matmul bmm mm mv"),
        (convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"),
        (batch_norm, "batch_norm instance_norm"),
        (layer_norm, "layer_norm rms_norm"),
        (group_norm, "group_norm"),
        (
            pool,
            "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
            "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices "
            "upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d",
        ),
        (reduction, "mean sum amax amin max min var std any all prod norm linalg_vector_norm argmax argmin logsumexp"),
        (softmax, "softmax log_softmax _softmax _log_softmax cumsum"),
        (attention, "scaled_dot_product_attention"),
        (embedding, "embedding"),
        (cat, "cat concat concatenate"),
        (stack, "stack"),
        (view, "view reshape _unsafe_view flatten unflatten"),
        (permute, "permute transpose t mT numpy_T"),
        (unsqueeze, "unsqueeze"),
        (squeeze, "squeeze"),
        (expand, "expand expand_as broadcast_to"),
        (repeat, "repeat"),
        (select, "select"),
        (slice_, "slice narrow"),
        (pieces, "chunk split split_with_sizes unbind"),
        (pad, "pad constant_pad_nd"),
        (filled, "zeros ones empty full zeros_like ones_like full_like empty_like new_zeros new_ones scalar_tensor"),
        (prelu, "prelu"),
        (
            same,
            "to _to_copy clone contiguous detach alias lift_fresh_copy dropout feature_dropout alpha_dropout",
        ),
        (pointwise, "relu6 selu rrelu hardswish hardsigmoid hardtanh type_as silu mish gelu rsqrt masked_fill where"),
    ]
    return {name: rule for rule, names in rows for name in names.split()}


RULES: dict[str, Rule] = _table()
"""ATen name -> rule. Operations that torch tags as pointwise need no row."""


def rule_of(node: fx.Node, function: str) -> Rule:
    """The rule for a node of the graph."""
    if function in RULES:
        return RULES[function]
    tags = getattr(node.target, "tags", ())
    return pointwise if torch.Tag.pointwise in tags else unknown
