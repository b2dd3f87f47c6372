"""The ledger: all that a graph's costs follow from, read off the graph once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy
from torch import fx

from dovetail.costs.counting import free
from dovetail.costs.rules import is_view, rule_for
from dovetail.costs.terms import PLAIN_BITS, Storage
from dovetail.costs.work import Shape, Work, invocation, target_name
from dovetail.errors import PricingError
from dovetail.graph import Graph, Operation
from dovetail.plan import Site, SiteKind

__all__ = ["Activation", "Entry", "Ledger", "read_ledger"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one operation does.

    Args:
        name: the operation's name.
        type: its type.
        target: the operator it calls, as counting rules know it.
        work: what it computes; None where no rule is known.
        data: its data_in site, or None.
        weight: its weight site, or None where it has no weight.
        parameter: the name of its weight, or None.
        output: shape of what it gives.
        reads: tensors it reads.
        writes: tensors it writes.
    """

    name: str
    type: str
    target: str
    work: Work | None
    data: Site | None
    weight: Site | None
    parameter: str | None
    output: Shape
    reads: tuple[Storage, ...]
    writes: tuple[Storage, ...]


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor that is made while the model runs, or comes in.

    Args:
        tensor: what it takes to store it.
        born: the entry that makes it; the first, for an input.
        dies: the last entry that reads it; after the last one, for the output.
    """

    tensor: Storage
    born: int
    dies: int


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All that costs follow from.

    Args:
        entries: one for each node that computes or copies, in order.
        parameters: every parameter, under the operation that reads it first.
        activations: every tensor in the order it is made; views are part of what they view, in-place operations make a
            new one.
    """

    entries: tuple[Entry, ...]
    parameters: Mapping[str, Storage]
    activations: tuple[Activation, ...]

    @cached_property
    def unpriced(self) -> tuple[str, ...]:
        """Operations without a counting rule: `name (operator)`."""
        return tuple(f"{entry.name} ({entry.target})" for entry in self.entries if entry.work is None)


def read_ledger(graph: Graph, batch: int) -> Ledger:
    """Read a graph for a batch size.

    Raises:
        PricingError: The graph was exported for another batch size and cannot change it.
    """
    return _Reader(graph, batch).read()


class _Reader:
    """Walks a graph once; a builder, dropped when the ledger stands."""

    def __init__(self, graph: Graph, batch: int):
        self.graph = graph
        self.nodes: list[fx.Node] = list(graph.module.graph.nodes)
        placeholders = [node for node in self.nodes if node.op == "placeholder"]
        self.parameter_of = dict(zip(placeholders, graph.tensor_names, strict=False))
        self.inputs = placeholders[len(graph.tensor_names) :]
        resolved = _Resolved(graph, batch)
        self.shapes = resolved.shapes(graph.shapes)
        self.tensor_shapes = resolved.shapes({**graph.parameters, **graph.buffers})
        self.operation_of = {operation.node: operation for operation in graph.operations}
        self.readers_of: dict[fx.Node, tuple[Site | None, ...]] = {}
        self._require_batch(batch)

    def _require_batch(self, batch: int) -> None:
        shapes = [shape for node in self.inputs if (shape := self.graph.shapes.get(node.name, ()))]
        if any(self.graph.batch in size.free_symbols for shape in shapes for size in shape):
            return
        for shape in shapes[:1]:
            if shape[0] != batch:
                raise PricingError(
                    f"batch: the model can only be exported for a batch of {shape[0]}, got {batch}. "
                    f"Price it at {shape[0]}, or trace it with a batch of {batch}."
                )

    def read(self) -> Ledger:
        computing = [node for node in self.nodes if self._computes(node)]
        step = {node: i for i, node in enumerate(computing)}
        entries = tuple(self._entry(node) for node in computing)
        return Ledger(
            entries=entries,
            parameters=self._parameters(step),
            activations=tuple(self._activation(node, step) for node in self.nodes if self._is_stored(node)),
        )

    # What nodes are.

    def _name(self, node: fx.Node) -> str:
        operation = self.operation_of.get(node.name)
        return operation.name if operation else node.name

    def _is_result(self, node: fx.Node) -> bool:
        """Whether a node picks one of several results."""
        return node.op == "call_function" and node.target is operator.getitem

    def _is_pure_view(self, node: fx.Node) -> bool:
        return is_view(node.target) and rule_for(node.target) is free

    def _computes(self, node: fx.Node) -> bool:
        """Whether a node makes or changes a tensor."""
        return (
            node.op == "call_function"
            and node.name in self.shapes
            and not self._is_result(node)
            and not self._is_pure_view(node)
        )

    def _is_stored(self, node: fx.Node) -> bool:
        """Whether a node's result is a tensor of its own that is made as the model runs."""
        if node.name not in self.shapes or node in self.parameter_of or node.op in ("get_attr", "output"):
            return False
        if node.op == "placeholder":
            return bool(node.users)
        return self._root(node) is node and not any(self._is_result(user) for user in node.users)

    def _is_transparent(self, node: fx.Node) -> bool:
        """Whether a node passes values on as they are, so that its readers read through it."""
        return self._computes(node) and rule_for(node.target) is free

    def _root(self, node: fx.Node) -> fx.Node:
        """The node whose memory a node's result lies in."""
        while node.op == "call_function":
            if self._is_result(node):
                parent = node.args[0]
                assert isinstance(parent, fx.Node)
                if not is_view(parent.target):
                    return node
                node = parent
            elif is_view(node.target) and node.all_input_nodes:
                node = node.all_input_nodes[0]
            else:
                return node
        return node

    def _uses(self, root: fx.Node) -> list[fx.Node]:
        """Nodes that read a tensor, itself or through views of it."""
        found: list[fx.Node] = []
        open_nodes, seen = [root], {root}
        while open_nodes:
            node = open_nodes.pop()
            for user in node.users:
                if user in seen:
                    continue
                if self._computes(user) or user.op == "output":
                    found.append(user)
                if user.name in self.shapes and self._root(user) is root:
                    seen.add(user)
                    open_nodes.append(user)
        return found

    # What they hold.

    def _bits(self, node: fx.Node) -> int:
        dtype = self.graph.dtypes[node.name]
        return PLAIN_BITS if dtype.is_floating_point else 8 * dtype.itemsize

    def _readers(self, root: fx.Node) -> tuple[Site | None, ...]:
        """The sites at which an activation is read; through copies, those of the copy."""
        if root not in self.readers_of:
            found: list[Site | None] = []
            for user in self._uses(root):
                operation = self.operation_of.get(user.name)
                if self._is_transparent(user):
                    for result in self._results(user):
                        found += self._readers(result)
                elif operation and SiteKind.DATA_IN in operation.sites:
                    found.append(Site(operation.name, SiteKind.DATA_IN))
                else:
                    found.append(None)
            self.readers_of[root] = _distinct(found) or (None,)  # what no operator reads, the code itself has read
        return self.readers_of[root]

    def _results(self, node: fx.Node) -> list[fx.Node]:
        return [user for user in node.users if self._is_result(user)] or [self._root(node)]

    def _stored(self, node: fx.Node, owner: str, shape: Shape | None = None) -> Storage:
        """The tensor of a node that is no parameter."""
        return Storage(
            owner, self.shapes[node.name] if shape is None else shape, self._sites_of(node), self._bits(node)
        )

    def _sites_of(self, node: fx.Node) -> tuple[Site | None, ...]:
        root = self._root(node)
        if root in self.parameter_of or root.op == "get_attr" or not self.graph.dtypes[node.name].is_floating_point:
            return (None,)
        return self._readers(root)

    def _activation(self, node: fx.Node, step: Mapping[fx.Node, int]) -> Activation:
        maker = node.args[0] if self._is_result(node) else node
        assert isinstance(maker, fx.Node)
        born = step.get(maker, 0)
        dies = max((step.get(user, len(step)) for user in self._uses(node)), default=born)
        return Activation(self._stored(node, self._name(maker)), born, dies)

    def _entry(self, node: fx.Node) -> Entry:
        name, operation = self._name(node), self.operation_of.get(node.name)
        call = invocation(node, self.shapes, self.graph.dtypes)
        rule = rule_for(node.target)
        writes = [self._stored(result, name, self.shapes[result.name]) for result in self._results(node)]
        return Entry(
            name=name,
            type=operation.type if operation else call.target.rpartition(".")[2],
            target=call.target,
            work=rule(call) if rule else None,
            data=Site(name, SiteKind.DATA_IN) if operation else None,
            weight=Site(name, SiteKind.WEIGHT) if operation and operation.weight else None,
            parameter=operation.weight if operation else None,
            output=call.output,
            reads=tuple(self._read(source, node, operation, name) for source in self._sources(node)),
            writes=tuple(writes),
        )

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """The tensors that a node reads, before they are expanded."""
        sources = []
        for source in node.all_input_nodes:
            while source.op == "call_function" and target_name(source.target) in _EXPANSIONS:
                source = source.all_input_nodes[0]
            if source.name in self.shapes:
                sources.append(source)
        return sources

    def _read(self, source: fx.Node, node: fx.Node, operation: Operation | None, name: str) -> Storage:
        shape = self.shapes[source.name]
        looked_up = target_name(node.target) in _LOOKUPS and source is node.all_input_nodes[0]
        shape = self.shapes[node.name] if looked_up else shape
        root = self._root(source)
        if root in self.parameter_of:
            site = _parameter_site(self.parameter_of[root], operation)
            return Storage(name, shape, (site,), self._bits(source))
        return self._stored(source, name, shape)

    def _parameters(self, step: Mapping[fx.Node, int]) -> dict[str, Storage]:
        held = {}
        for node, parameter in self.parameter_of.items():
            if parameter not in self.graph.parameters:
                continue
            uses = sorted((user for user in self._uses(node) if user in step), key=step.__getitem__)
            owner = self._name(uses[0]) if uses else parameter
            sites = [_parameter_site(parameter, self.operation_of.get(user.name)) for user in uses]
            held[parameter] = Storage(owner, self.tensor_shapes[parameter], _distinct(sites) or (None,))
        return held


# Widened without copying, so only what was there before is read.
_EXPANSIONS = frozenset({"aten.expand", "aten.expand_as", "aten.broadcast_to"})
# Read only the rows that they give.
_LOOKUPS = frozenset({"aten.embedding", "aten.index", "aten.index_select", "aten.gather", "aten.take"})


def _parameter_site(parameter: str, operation: Operation | None) -> Site | None:
    if operation is not None and parameter == operation.weight:
        return Site(operation.name, SiteKind.WEIGHT)
    if operation is not None and parameter == operation.bias:
        return Site(operation.name, SiteKind.BIAS)
    return None


def _distinct(sites: Iterable[Site | None]) -> tuple[Site | None, ...]:
    return tuple(dict.fromkeys(sites))


class _Resolved:
    """Shapes in the symbols of the groups that can change, all else a number."""

    def __init__(self, graph: Graph, batch: int):
        free_symbols = {group.symbol for group in graph.groups if group.frozen is None}
        values = {symbol: value for symbol, value in graph.bindings.items() if symbol not in free_symbols}
        self._values = {**values, graph.batch: batch}
        self._known: dict[sympy.Expr, sympy.Expr] = {}

    def shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        return {name: tuple(self._size(size) for size in shape) for name, shape in shapes.items()}

    def _size(self, size: sympy.Expr) -> sympy.Expr:
        if size not in self._known:
            self._known[size] = sympy.sympify(size).xreplace({s: sympy.Integer(v) for s, v in self._values.items()})
        return self._known[size]


def weight_storages(ledger: Ledger) -> Iterable[Storage]:
    """The weights of operations that multiply and accumulate, each once."""
    readers: dict[str, list[Site | None]] = {}
    for entry in ledger.entries:
        if entry.parameter is not None and entry.work is not None and entry.work.macs != 0:
            readers.setdefault(entry.parameter, []).append(entry.weight)
    for parameter, sites in readers.items():
        stored = ledger.parameters[parameter]
        yield Storage(stored.operation, stored.shape, _distinct(sites))
