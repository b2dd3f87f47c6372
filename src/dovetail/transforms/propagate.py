"""Walk a graph and find how every parameter dimension is made of channels, and what stands against copying channels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import sympy
from torch import fx

from dovetail.graph import Graph
from dovetail.transforms.arguments import Operands
from dovetail.transforms.layout import Layout
from dovetail.transforms.rules import rule_of
from dovetail.transforms.tracking import Dim, Hole, Obstacle, Origin, State, Value

__all__ = ["Channels", "find_channels"]

_MOST_WALKS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """How the tensors of a graph are made of channels.

    Where a model cuts a group into m equal blocks (halves, groups of a convolution), the width is a multiple of m and
    the same channels go in every block. What grows and shrinks is then the block: layouts speak of blocks.

    Args:
        blocks: per width group, the symbol of one block's channels (the group's own where there is one block).
        layouts: per parameter and buffer, the layout of each dimension.
        contracted: parameter dimensions that are summed over (a linear layer's inputs).
        obstacles: what stands against growing groups without changing the function.
    """

    blocks: Mapping[str, sympy.Symbol]
    layouts: Mapping[str, tuple[Layout, ...]]
    contracted: frozenset[Origin]
    obstacles: tuple[Obstacle, ...]


_KNOWN: WeakKeyDictionary[Graph, Channels] = WeakKeyDictionary()


def find_channels(graph: Graph) -> Channels:
    """How the tensors of a graph are made of channels; worked out once per graph.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dovetail.graph import trace
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 5))
        >>> [str(layout) for layout in find_channels(trace(model, (torch.zeros(2, 3, 4, 4),))).layouts["2.weight"]]
        ['_2', '_0 x 4']
    """
    if graph not in _KNOWN:
        _KNOWN[graph] = _find(graph)
    return _KNOWN[graph]


class _Shapes:
    """The shapes of a graph in the symbols of blocks."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.blocks = {g.name: _block(g.symbol, g.multiple_of) for g in graph.groups}
        self.multiples = {self.blocks[g.name]: g.multiple_of for g in graph.groups}
        self._new = {g.symbol: g.multiple_of * self.blocks[g.name] for g in graph.groups if g.multiple_of > 1}
        self._done: dict[sympy.Expr, sympy.Expr] = {}

    def __contains__(self, node: str) -> bool:
        return node in self.graph.shapes

    def __getitem__(self, node: str) -> tuple[sympy.Expr, ...]:
        return tuple(map(self.size, self.graph.shapes[node]))

    def of(self, node: str) -> tuple[sympy.Expr, ...]:
        """The shape of a node; empty where it is no tensor."""
        return tuple(map(self.size, self.graph.shapes.get(node, ())))

    def size(self, size: sympy.Expr) -> sympy.Expr:
        """One size in the symbols of blocks."""
        if not self._new or not size.free_symbols:
            return size
        if size not in self._done:
            self._done[size] = sympy.expand(size.xreplace(self._new))
        return self._done[size]

    def plain(self, size: sympy.Expr) -> Layout | None:
        """The layout of a plain channel dimension that is cut into blocks, blocks outermost; or of a stream that is
        elsewhere cut into heads."""
        if size.is_Mul and all(factor.is_Symbol for factor in size.args):
            return Layout.guess(size)
        multiple, block = size.as_coeff_Mul()
        if block.is_Symbol and multiple == self.multiples.get(block, 0):
            return Layout.of([(int(multiple), block)])
        return None


def _block(width: sympy.Symbol, multiple: int) -> sympy.Symbol:
    return width if multiple == 1 else sympy.Symbol(f"{width.name}/{multiple}", integer=True, positive=True)


def _find(graph: Graph) -> Channels:
    shapes = _Shapes(graph)
    state = _settle(shapes, {})
    # Channels in blocks whose use says nothing else lie block after block. Those that are summed over come last: what
    # they meet may say else by then.
    for summed in (False, True):
        state = _fill_blocks(shapes, state, summed)
    layouts = {name: _layouts(shapes, state, name) for name in graph.tensor_names}
    for name, dim in sorted(state.contracted & state.produced):
        carried = layouts[name][dim].symbols & state.groups
        state.block(
            carried, f"parameter {name!r} is summed over and read along dimension {dim}: copies cannot share it"
        )
    return Channels(shapes.blocks, layouts, frozenset(state.contracted), tuple(state.obstacles))


def _fill_blocks(shapes: _Shapes, state: State, summed: bool) -> State:
    """Let holes of the size of blocks be blocks, among dimensions that are summed over or among the others."""
    plain = dict(state.filled)
    for name in shapes.graph.tensor_names:
        for dim, size in enumerate(map(shapes.size, shapes.graph.tensor_shape(name))):
            known, layout = state.resolve(state.dim((name, dim), size)), shapes.plain(size)
            if isinstance(known, Hole) and layout is not None and ((name, dim) in state.contracted) == summed:
                plain.setdefault(known.owner, layout)
    return _settle(shapes, plain) if len(plain) > len(state.filled) else state


def _settle(shapes: _Shapes, filled: dict[Origin, Dim]) -> State:
    """Walk until nothing new is learnt."""
    for _ in range(_MOST_WALKS):
        state = _walk(shapes, dict(filled))
        if len(state.filled) == len(filled):
            break
        filled = state.filled
    return state


def _walk(shapes: _Shapes, filled: dict[Origin, Dim]) -> State:
    graph = shapes.graph
    state = State(frozenset(shapes.blocks.values()), filled)
    values: dict[fx.Node, Any] = {}
    names = iter(graph.tensor_names)
    sizes = {f"size_{i}": shapes.size(size) for i, size in enumerate(graph.sizes.values())}
    for node in graph.module.graph.nodes:
        if node.op == "placeholder":
            name = next(names, None)
            shape = shapes.of(node.name)
            owners = [(name if name is not None else node.name, i) for i in range(len(shape))]
            dims = tuple(state.dim(owner, size) for owner, size in zip(owners, shape, strict=True))
            values[node] = Value(dims, tuple(owners)) if name is not None else Value.of(dims)
        elif node.op == "get_attr" and node.target in sizes:
            values[node] = sizes[node.target]
        elif node.op == "get_attr":
            shape = shapes.of(node.name)
            values[node] = Value.of(state.dim((node.name, i), size) for i, size in enumerate(shape))
        elif node.op == "call_function":
            values[node] = _call(shapes, state, node, values)
    return state


def _call(shapes: _Shapes, state: State, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    if node.target is operator.getitem:
        origin, index = node.args
        assert isinstance(origin, fx.Node)
        source = values[origin]
        return source[index] if isinstance(source, list) and isinstance(index, int) else source
    schema = getattr(node.target, "_schema", None)
    if schema is None or not any("Tensor" in str(r.type) for r in schema.returns):
        return _number(shapes, node, values)
    given = {**dict(zip((a.name for a in schema.arguments), node.args, strict=False)), **node.kwargs}
    arguments = {a.name: a.default_value for a in schema.arguments if a.has_default_value()} | {
        name: fx.map_arg(value, lambda n: values[n]) for name, value in given.items()
    }
    function = schema.name.partition("::")[2].rstrip("_")
    shape = shapes.of(node.name)
    op = Operands(node.name, function, arguments, shape, _result_shapes(shapes, node, given))
    return rule_of(node, function)(state, op)


def _result_shapes(shapes: _Shapes, node: fx.Node, given: Mapping[str, Any]) -> tuple[tuple[sympy.Expr, ...], ...]:
    """Shapes of the results of an operation that has several; a result that nobody reads counts as one like the
    first."""
    items = {u.args[1]: u for u in node.users if u.target is operator.getitem and u.args[0] is node}
    schema: Any = node.target._schema  # type: ignore[union-attr]
    is_list = len(schema.returns) == 1 and "List" in str(schema.returns[0].type)
    if len(schema.returns) < 2 and not is_list:
        return ()
    first = shapes[node.name] if node.name in shapes else shapes[next(iter(items.values())).name]
    count = max((int(i) + 1 for i in items if isinstance(i, int)), default=1)
    sizes = given.get("split_sizes", ())
    count = max(count, len(sizes), int(given["chunks"]) if "chunks" in given else 0)
    return tuple(shapes[items[i].name] if i in items else first for i in range(count))


def _number(shapes: _Shapes, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """A Python number that the graph computes, as an expression; a stand-in with the same symbols where it is no
    arithmetic."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None and schema.name == "aten::sym_size":
        source, dim = node.args
        assert isinstance(source, fx.Node)
        assert isinstance(dim, int)
        return shapes[source.name][dim]
    arguments = [values[a] if isinstance(a, fx.Node) else a for a in node.args]
    if node.target in _ARITHMETIC and all(isinstance(a, (int, float, sympy.Expr)) for a in arguments):
        target: Callable[..., Any] = node.target
        return sympy.sympify(target(*(sympy.sympify(a) for a in arguments)))
    symbols = [s for a in arguments if isinstance(a, sympy.Expr) for s in sorted(a.free_symbols, key=str)]
    return sympy.Function(node.name)(*symbols) if symbols else None


_ARITHMETIC = {
    operator.add,
    operator.sub,
    operator.mul,
    operator.floordiv,
    operator.truediv,
    operator.pow,
    operator.neg,
}
_ARITHMETIC |= {operator.mod}


def _layouts(shapes: _Shapes, state: State, name: str) -> tuple[Layout, ...]:
    found = []
    for dim, size in enumerate(map(shapes.size, shapes.graph.tensor_shape(name))):
        known = state.resolve(state.dim((name, dim), size))
        if not isinstance(known, Layout):
            reason = (
                f"how dimension {dim} of {name!r}, of size {size}, is made of channels does not follow from its use"
            )
            state.block(size.free_symbols, reason)
            guess = Layout.guess(size)
            if guess is None:
                guess = Layout.of([(int(shapes.graph.tensor_shape(name)[dim].subs(shapes.graph.bindings)),)])
            known = guess
        found.append(known)
    return tuple(found)
