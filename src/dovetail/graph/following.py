"""What is known of the channels of every node so far: what rules read and write as they go through a graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sympy
from torch import fx

from dovetail.graph.axes import Axes
from dovetail.graph.flat import Flat
from dovetail.graph.layout import Layout, Use
from dovetail.graph.operation import Operation

__all__ = ["Dims", "Following", "Key"]

Key = tuple[str, int]
"""A dimension of a parameter or buffer."""
Dims = list[Layout]
"""The layout of each dimension of a tensor."""


class Following:
    """Layouts of every node so far, and what was found on the way.

    Args:
        flat: the graph, with divisions carried out.
        operations: its operations.
    """

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

    def dims(self, node: Any) -> Dims:
        """The layouts of a node's tensor, or of its first one; none where the node is no tensor."""
        return self._first(self.values.get(node, []))

    def _first(self, value: Dims | list[Dims]) -> Dims:
        return value if not value or isinstance(value[0], Layout) else value[0]  # type: ignore[return-value]

    def fresh(self, node: fx.Node) -> Dims:
        """Layouts of a node's shape of which nothing is known."""
        return [self.axes.fresh(size) for size in self.flat.shapes[node.name]]

    def blame(self, layout: Layout, reason: str) -> None:
        """Say why copying these channels cannot keep the model's function."""
        for symbol in self.axes.symbols(layout) - {self.flat.batch}:
            self.inexact.setdefault(symbol, reason)

    def same(self, node: fx.Node, a: Layout, b: Layout) -> Layout:
        """Make two layouts one, or blame both."""
        if not self.axes.unify(a, b):
            reason = f"{self.name(node)} combines channels that are not in the same order"
            self.blame(a, reason)
            self.blame(b, reason)
        return self.axes.resolve(a)

    def name(self, node: fx.Node) -> str:
        """What users call a node."""
        return self.names.get(node.name, node.name)

    def use(self, node: Any, dim: int, use: Use) -> None:
        """Note what a dimension of a parameter or buffer does to the channels along it; the first reader counts."""
        if node in self.tensors:
            self.uses.setdefault((self.tensors[node], dim), use)

    def lost(self, node: fx.Node) -> str:
        """The reason where a node leaves channels in an order that is not known."""
        return f"the order of the channels is not known after {self.name(node)}"

    def mean(self, node: fx.Node, reduced: Sequence[Layout]) -> None:
        """Note that a node takes a mean over these channels."""
        for layout in reduced:
            for symbol in self.axes.symbols(layout) - {self.flat.batch}:
                self.normalised[symbol].append(self.name(node))

    def contract(self, node: fx.Node, layout: Layout) -> None:
        """Note that a node multiplies activations and sums over these channels."""
        for symbol in self.axes.symbols(layout) - {self.flat.batch}:
            self.contracted[symbol].append(self.name(node))

    def number(self, value: Any) -> sympy.Expr | None:
        """A size argument: an integer, or a node whose value is a size."""
        if isinstance(value, fx.Node):
            return self.flat.scalars.get(value.name)
        return sympy.Integer(value) if isinstance(value, int) else None

    def elementwise(self, node: fx.Node) -> Dims:
        """Operands broadcast to the result; an operator that is not known and does not is where channels are lost."""
        shape = self.flat.shapes[node.name]
        result: list[Layout | None] = [None] * len(shape)
        for source in node.all_input_nodes:
            dims = self.dims(source)
            source_shape = self.flat.shapes.get(source.name, ())
            lost = len(source_shape) > len(shape)
            for i in range(1, min(len(dims), len(shape)) + 1):
                if source_shape[-i] == shape[-i] and shape[-i] != 1:
                    known = result[-i]
                    result[-i] = dims[-i] if known is None else self.same(node, known, dims[-i])
                    if source in self.tensors and source_shape[-i].free_symbols:
                        self.use(source, len(dims) - i, Use.ELEMENTWISE)
                elif source_shape[-i] != 1:
                    lost = True
            if lost:
                for layout in dims:
                    if self.axes.symbols(layout) - {s for size in shape for s in size.free_symbols}:
                        self.blame(layout, self.lost(node))
        return [layout or f for layout, f in zip(result, self.fresh(node), strict=True)]
