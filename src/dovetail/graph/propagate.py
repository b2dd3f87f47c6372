"""Follow channels through a graph: the layout of every parameter dimension, and what it does to the channels."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from torch import fx

from dovetail.graph.axes import Axes
from dovetail.graph.flat import Flat
from dovetail.graph.kinds import kind_of
from dovetail.graph.layout import Layout, Use
from dovetail.graph.operation import Operation

__all__ = ["Channels", "follow_channels"]

Key = tuple[str, int]
Dims = list[Layout]


@dataclass(frozen=True, slots=True)
class Channels:
    """What following the channels through a graph finds, in the graph's own symbols.

    Args:
        layouts: layout of each dimension of a parameter or buffer that is known.
        uses: what each dimension has to do with the channels along it.
        inexact: per symbol, why copying its channels cannot keep the model's function.
        normalised: per symbol, operations that take a mean over its channels.
        contracted: per symbol, operations that multiply activations and sum over its channels.
    """

    layouts: Mapping[Key, Layout]
    uses: Mapping[Key, Use]
    inexact: Mapping[sympy.Symbol, str]
    normalised: Mapping[sympy.Symbol, tuple[str, ...]]
    contracted: Mapping[sympy.Symbol, tuple[str, ...]]


def follow_channels(flat: Flat, operations: tuple[Operation, ...]) -> Channels:
    """Propagate layouts from parameters through every operation.

    Args:
        flat: the graph, with divisions carried out.
        operations: its operations.
    """
    follower = _Follower(flat, operations)
    for node in flat.module.graph.nodes:
        if node.op == "call_function" and node.name in flat.shapes:
            follower.visit(node)
    return follower.channels()


# Operators that mix along one dimension without weights.
_MIXING = frozenset(
    {"softmax", "log_softmax", "cumsum", "sort", "topk", "flip", "roll", "argmax", "cross_entropy_loss"}
)
_POOLING = frozenset(
    """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d
    upsample_bicubic2d max_pool2d_with_indices""".split()  # noqa: SIM905 - a table of names reads better as one
)
_VIEWS = frozenset({"view", "reshape", "flatten", "unflatten"})
_REDUCING = frozenset({"mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "max", "min", "prod"})


class _Follower:
    """Layouts of every node so far."""

    def __init__(self, flat: Flat, operations: tuple[Operation, ...]):
        self.flat = flat
        self.axes = Axes(flat.bindings)
        self.names = {operation.node: operation.name for operation in operations}
        self.tensors = {node: name for name, node in flat.placeholders.items()}
        self.values: dict[fx.Node, Dims | list[Dims]] = {}
        self.uses: dict[Key, Use] = {}
        self.inexact: dict[sympy.Symbol, str] = {}
        self.normalised: dict[sympy.Symbol, list[str]] = defaultdict(list)
        self.contracted: dict[sympy.Symbol, list[str]] = defaultdict(list)
        for node in flat.module.graph.nodes:
            if node.op in ("placeholder", "get_attr") and node.name in flat.shapes:
                self.values[node] = [self.axes.fresh(size) for size in flat.shapes[node.name]]

    def channels(self) -> Channels:
        for node in self.tensors:
            for layout in self._dims(node):
                self.axes.settle(layout)
        layouts = {}
        for node, name in self.tensors.items():
            for dim, layout in enumerate(self._dims(node)):
                found = self.axes.resolve(layout)
                if self.axes.unknown(found):
                    self._blame(found, f"the order of the channels along {name}, dimension {dim}, is not known")
                elif found.factors:
                    layouts[name, dim] = found
        uses = {key: self.uses.get(key, Use.ELEMENTWISE) for key in layouts}
        normalised = {s: tuple(dict.fromkeys(n)) for s, n in self.normalised.items()}
        contracted = {s: tuple(dict.fromkeys(n)) for s, n in self.contracted.items()}
        return Channels(layouts, uses, self.inexact, normalised, contracted)

    def visit(self, node: fx.Node) -> None:
        kind = kind_of(node.target).type
        named = _named(node)
        rule = getattr(self, f"_visit_{kind}", None)
        if rule is not None:
            result = rule(node, named)
        elif kind.startswith("conv"):
            result = self._convolution(node, named, transposed="transpose" in kind)
        elif kind in _VIEWS:
            result = self._view(node, named["self"])
        elif kind in _POOLING:
            result = [*self._dims(named.get("self") or named["input"])[:2], *self._fresh(node)[2:]]
        elif kind in _REDUCING:
            result = self._reduce(node, named)
        elif kind in _MIXING:
            result = self._mix(node, named)
        else:
            result = self._elementwise(node)
        self.values[node] = result

    # What a node gives, and blame.

    def _dims(self, node: Any) -> Dims:
        return self._first(self.values.get(node, []))

    def _first(self, value: Dims | list[Dims]) -> Dims:
        return value if not value or isinstance(value[0], Layout) else value[0]  # type: ignore[return-value]

    def _fresh(self, node: fx.Node) -> Dims:
        return [self.axes.fresh(size) for size in self.flat.shapes[node.name]]

    def _blame(self, layout: Layout, reason: str) -> None:
        for symbol in self.axes.symbols(layout) - {self.flat.batch}:
            self.inexact.setdefault(symbol, reason)

    def _same(self, node: fx.Node, a: Layout, b: Layout) -> Layout:
        if not self.axes.unify(a, b):
            reason = f"{self._name(node)} combines channels that are not in the same order"
            self._blame(a, reason)
            self._blame(b, reason)
        return self.axes.resolve(a)

    def _name(self, node: fx.Node) -> str:
        return self.names.get(node.name, node.name)

    def _use(self, node: Any, dim: int, use: Use) -> None:
        if node in self.tensors:
            self.uses.setdefault((self.tensors[node], dim), use)

    # Rules by kind of operator.

    def _visit_linear(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, weight = self._dims(named["input"]), self._dims(named["weight"])
        self._same(node, x[-1], weight[1])
        self._use(named["weight"], 0, Use.PRODUCES)
        self._use(named["weight"], 1, Use.CONSUMES)
        if named.get("bias") is not None:
            self._same(node, weight[0], self._dims(named["bias"])[0])
            self._use(named["bias"], 0, Use.PRODUCES)
        return [*x[:-1], weight[0]]

    def _visit_addmm(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        bias, x, weight = self._dims(named["self"]), self._dims(named["mat1"]), self._dims(named["mat2"])
        self._same(node, x[-1], weight[0])
        self._same(node, weight[1], bias[-1])
        self._use(named["mat2"], 0, Use.CONSUMES)
        self._use(named["mat2"], 1, Use.PRODUCES)
        self._use(named["self"], len(bias) - 1, Use.PRODUCES)
        return [x[0], weight[1]]

    def _convolution(self, node: fx.Node, named: dict[str, Any], *, transposed: bool) -> Dims:
        x, weight, groups = self._dims(named["input"]), self._dims(named["weight"]), named.get("groups", 1)
        inputs, outputs = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
        channels = x[1 - len(weight)]
        use_in, use_out = Use.CONSUMES, Use.PRODUCES
        if isinstance(groups, fx.Node):  # depthwise: as many groups as channels
            repeats = self.axes.fresh(self.axes.size(outputs) / self.axes.size(channels))
            merged = self.axes.merge([channels, repeats])
            self._same(node, outputs, merged) if merged is not None else self._blame(channels, self._lost(node))
            use_out = Use.ELEMENTWISE if repeats == Layout.of() else Use.PRODUCES
        elif groups != 1:
            merged = self.axes.merge([Layout.of(sympy.Integer(groups)), self.axes.resolve(inputs)])
            self._same(node, channels, merged) if merged is not None else self._blame(channels, self._lost(node))
            self.axes.split(outputs, [sympy.Integer(groups), sympy.expand(self.axes.size(outputs) / groups)])
        else:
            self._same(node, channels, inputs)
        self._use(named["weight"], 0, use_in if transposed else use_out)
        self._use(named["weight"], 1, use_out if transposed else use_in)
        if named.get("bias") is not None:
            self._same(node, outputs, self._dims(named["bias"])[0])
            self._use(named["bias"], 0, use_out)
        return [*x[: 1 - len(weight)], self.axes.resolve(outputs), *self._fresh(node)[2 - len(weight) :]]

    def _lost(self, node: fx.Node) -> str:
        return f"the order of the channels is not known after {self._name(node)}"

    def _visit_batch_norm(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x = self._dims(named["input"])
        for name in ("weight", "bias", "running_mean", "running_var"):
            if named.get(name) is not None:
                self._same(node, x[1], self._dims(named[name])[0])
                self._use(named[name], 0, Use.ELEMENTWISE)
        return x

    _visit_instance_norm = _visit_batch_norm

    def _visit_layer_norm(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x = self._dims(named["input"])
        count = len(named["normalized_shape"])
        for name in ("weight", "bias"):
            if named.get(name) is not None:
                for dim, layout in enumerate(self._dims(named[name])):
                    self._same(node, x[dim - count], layout)
                    self._use(named[name], dim, Use.ELEMENTWISE)
        self._mean(node, x[-count:])
        return x

    _visit_rms_norm = _visit_layer_norm

    def _visit_group_norm(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, groups = self._dims(named["input"]), sympy.Integer(named["num_groups"])
        size = self.axes.size(self.axes.resolve(x[1]))
        self.axes.split(x[1], [groups, sympy.expand(size / groups)])
        for name in ("weight", "bias"):
            if named.get(name) is not None:
                self._same(node, x[1], self._dims(named[name])[0])
                self._use(named[name], 0, Use.ELEMENTWISE)
        self._mean(node, [x[1]])
        return x

    def _mean(self, node: fx.Node, reduced: Sequence[Layout]) -> None:
        for layout in reduced:
            for symbol in self.axes.symbols(layout) - {self.flat.batch}:
                self.normalised[symbol].append(self._name(node))

    def _visit_embedding(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        self._use(named["weight"], 1, Use.PRODUCES)
        return [*self._dims(named["indices"]), self._dims(named["weight"])[1]]

    def _visit_matmul(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        a_node, b_node = named["self"], named.get("other", named.get("mat2"))
        a, b = self._dims(a_node), self._dims(b_node)
        if len(a) < 2 or len(b) < 2:
            return self._elementwise(node)
        self._same(node, a[-1], b[-2])
        if b_node in self.tensors:
            self._use(b_node, len(b) - 2, Use.CONSUMES)
            self._use(b_node, len(b) - 1, Use.PRODUCES)
        elif a_node in self.tensors:
            self._use(a_node, len(a) - 1, Use.CONSUMES)
            self._use(a_node, len(a) - 2, Use.PRODUCES)
        else:
            self._contract(node, a[-1])
        batch = [self._same(node, x, y) for x, y in zip(a[-3::-1], b[-3::-1], strict=False)][::-1]
        longer = a if len(a) >= len(b) else b
        return [*longer[: max(len(longer) - 2 - len(batch), 0)], *batch, a[-2], b[-1]]

    def _contract(self, node: fx.Node, layout: Layout) -> None:
        for symbol in self.axes.symbols(layout) - {self.flat.batch}:
            self.contracted[symbol].append(self._name(node))

    def _visit_attention(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        q, k, v = (self._dims(named[name]) for name in ("query", "key", "value"))
        self._contract(node, self._same(node, q[-1], k[-1]))
        for other in (k, v):
            for x, y in zip(q[:-2], other[:-2], strict=False):
                if self.axes.size(self.axes.resolve(x)) == self.axes.size(self.axes.resolve(y)):
                    self._same(node, x, y)
        return [*q[:-1], v[-1]]

    def _view(self, node: fx.Node, source: fx.Node) -> Dims:
        old = self._dims(source)
        new = self.axes.view(old, self.flat.shapes[node.name])
        if None in new:
            for layout in old:
                if len(self.axes.symbols(layout)) and not self._kept(layout, new):
                    self._blame(layout, self._lost(node))
        return [n if n is not None else f for n, f in zip(new, self._fresh(node), strict=True)]

    def _kept(self, layout: Layout, new: Sequence[Layout | None]) -> bool:
        return any(n is not None and self.axes.resolve(n) == self.axes.resolve(layout) for n in new)

    def _visit_permute(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x = self._dims(named["self"])
        return [x[dim] for dim in named["dims"]]

    def _visit_transpose(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x = list(self._dims(named["self"]))
        i, j = named["dim0"], named["dim1"]
        x[i], x[j] = x[j], x[i]
        return x

    _visit_swapaxes = _visit_transpose

    def _visit_t(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        return self._dims(named["self"])[::-1]

    _visit_numpy_T = _visit_t  # noqa: N815 - the operator's own name

    def _visit_unsqueeze(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x = list(self._dims(named["self"]))
        dim = named["dim"] if named["dim"] >= 0 else named["dim"] + len(x) + 1
        x.insert(dim, Layout.of())
        return x

    def _visit_squeeze(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        return self._view(node, named["self"])

    def _visit_expand(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, fresh = self._dims(named["self"]), self._fresh(node)
        aligned = [None] * (len(fresh) - len(x)) + x
        return [
            f if layout is None or layout == Layout.of() else layout for layout, f in zip(aligned, fresh, strict=True)
        ]

    def _visit_select(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x = list(self._dims(named["self"]))
        taken = x.pop(named.get("dim", 0))
        if self.axes.symbols(taken) - {self.flat.batch}:
            self._blame(taken, f"{self._name(node)} picks one channel by its number")
        return x

    def _visit_slice(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, dim = list(self._dims(named["self"])), named.get("dim", 0)
        shape = self.flat.shapes[node.name]
        if sympy.expand(self.axes.size(self.axes.resolve(x[dim])) - shape[dim]) == 0:
            return x
        start = self._number(named.get("start")) or sympy.Integer(0)
        part = self.axes.cut(x[dim], start, sympy.expand(start + shape[dim])) if named.get("step", 1) == 1 else None
        if part is None:
            self._blame(x[dim], f"{self._name(node)} takes some of the channels by their numbers")
        x[dim] = part or self.axes.fresh(shape[dim])
        return x

    def _number(self, value: Any) -> sympy.Expr | None:
        """A size argument: an integer, or a node whose value is a size."""
        if isinstance(value, fx.Node):
            return self.flat.scalars.get(value.name)
        return sympy.Integer(value) if isinstance(value, int) else None

    def _visit_chunk(self, node: fx.Node, named: dict[str, Any]) -> list[Dims]:
        x, dim = self._dims(named["self"]), named.get("dim", 0)
        parts = _taken(node)
        offset, results = sympy.Integer(0), list[Dims]()
        for index in range(max(parts, default=-1) + 1):
            user = parts.get(index)
            size = self.flat.shapes[(user or node).name][dim]
            part = self.axes.cut(x[dim], offset, sympy.expand(offset + size)) or self._cut_evenly(x[dim], size)
            if part is None:
                self._blame(x[dim], f"{self._name(node)} divides channels by their numbers")
            dims = list(x)
            dims[dim] = part or self.axes.fresh(size)
            results.append(dims)
            offset = sympy.expand(offset + size)
        return results

    def _cut_evenly(self, layout: Layout, size: sympy.Expr) -> Layout | None:
        whole = self.axes.size(self.axes.resolve(layout))
        count = sympy.cancel(whole / size)
        if not count.is_Integer:
            return None
        parts = self.axes.split(layout, [count, size])
        return parts[1] if parts is not None else None

    _visit_split = _visit_chunk
    _visit_split_with_sizes = _visit_chunk

    def _visit_unbind(self, node: fx.Node, named: dict[str, Any]) -> list[Dims]:
        x = list(self._dims(named["self"]))
        x.pop(named.get("dim", 0))
        return [x] * (1 + max(_taken(node), default=0))

    def _visit_getitem(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        source, index = node.args
        value = self.values[source]  # type: ignore[index]
        if value and not isinstance(value[0], Layout):
            return value[index]  # type: ignore[index]
        return self._dims(source)

    def _visit_cat(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        rank, dim = len(self.flat.shapes[node.name]), named.get("dim", 0)
        parts = [dims for source in named["tensors"] if len(dims := self._dims(source)) == rank]  # not an empty start
        result = list(parts[0])
        for part in parts[1:]:
            for i, (a, b) in enumerate(zip(result, part, strict=True)):
                if i != dim % len(result):
                    result[i] = self._same(node, a, b)
        blocks = [block for part in parts for block in self.axes.resolve(part[dim]).blocks]
        result[dim] = Layout(tuple(blocks)).canonical()
        return result

    def _visit_stack(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        parts, dim = [self._dims(source) for source in named["tensors"]], named.get("dim", 0)
        result = list(parts[0])
        for part in parts[1:]:
            result = [self._same(node, a, b) for a, b in zip(result, part, strict=True)]
        result.insert(dim if dim >= 0 else dim + len(result) + 1, Layout.of(sympy.Integer(len(parts))))
        return result

    def _visit_pad(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, padding = list(self._dims(named["self"])), named["pad"]
        for i in range(len(padding) // 2):
            dim, amounts = len(x) - 1 - i, [self._number(n) for n in padding[2 * i : 2 * i + 2]]
            if None in amounts:
                x[dim] = self._fresh(node)[dim]
                continue
            blocks = [(amounts[0],), *self.axes.resolve(x[dim]).blocks, (amounts[1],)]
            x[dim] = Layout(tuple(b for b in blocks if b != (0,))).canonical()
        return x

    _visit_constant_pad_nd = _visit_pad

    def _reduce(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, dims = self._dims(named["self"]), named.get("dim")
        dims = [dims] if isinstance(dims, int) else list(dims) if dims else list(range(len(x)))
        reduced = {dim % len(x) for dim in dims} if x else set()
        kind = kind_of(node.target).type
        for dim in reduced:
            if kind in ("mean", "amax", "amin"):
                self._mean(node, [x[dim]])
            else:
                self._blame(x[dim], f"{self._name(node)} takes the {kind} over the channels")
        fresh = self._fresh(node)
        if len(fresh) == len(x):
            return [Layout.of() if i in reduced else layout for i, layout in enumerate(x)]
        return [layout for i, layout in enumerate(x) if i not in reduced]

    def _mix(self, node: fx.Node, named: dict[str, Any]) -> Dims:
        x, dim = self._dims(named["self"]), named.get("dim", -1)
        kind = kind_of(node.target).type
        if isinstance(dim, int) and x:
            self._blame(x[dim], f"{self._name(node)} takes the {kind} over the channels")
        return self._elementwise(node)

    def _elementwise(self, node: fx.Node) -> Dims:
        """Operands broadcast to the result; an operator that is not known and does not is where channels are lost."""
        shape = self.flat.shapes[node.name]
        result: list[Layout | None] = [None] * len(shape)
        for source in node.all_input_nodes:
            dims = self._dims(source)
            source_shape = self.flat.shapes.get(source.name, ())
            lost = len(source_shape) > len(shape)
            for i in range(1, min(len(dims), len(shape)) + 1):
                if source_shape[-i] == shape[-i] and shape[-i] != 1:
                    known = result[-i]
                    result[-i] = dims[-i] if known is None else self._same(node, known, dims[-i])
                    if source in self.tensors and source_shape[-i].free_symbols:
                        self._use(source, len(dims) - i, Use.ELEMENTWISE)
                elif source_shape[-i] != 1:
                    lost = True
            if lost:
                for layout in dims:
                    if self.axes.symbols(layout) - {s for size in shape for s in size.free_symbols}:
                        self._blame(layout, self._lost(node))
        return [layout or f for layout, f in zip(result, self._fresh(node), strict=True)]


def _taken(node: fx.Node) -> dict[int, fx.Node]:
    """The nodes that take members of what a node gives, by their number."""
    return {int(u.args[1]): u for u in node.users if u.target is operator.getitem and isinstance(u.args[1], int)}


def _named(node: fx.Node) -> dict[str, Any]:
    """A node's arguments by the operator's own names for them."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}
