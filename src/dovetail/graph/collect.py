"""Collect width groups: which symbol every parameter dimension follows, who produces it, and whether it can change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property

import sympy
from torch import fx

from dovetail.graph.divide import Divided
from dovetail.graph.flat import Flat
from dovetail.graph.groups import Member, WidthGroup
from dovetail.graph.operation import Operation
from dovetail.graph.rename import replace_symbols, symbol

__all__ = ["Widths", "find_widths", "public", "read_groups"]


@dataclasses.dataclass(frozen=True)
class Widths:
    """The symbols of a divided graph as widths.

    Args:
        names: name of the group that each symbol belongs to, in the order of producers.
        multiples: what each group's width is in its symbol: `width = multiple * symbol`.
    """

    names: Mapping[sympy.Symbol, str]
    multiples: Mapping[str, int]

    @cached_property
    def expressions(self) -> dict[sympy.Symbol, sympy.Expr]:
        """Each symbol in terms of the symbol of its group."""
        return {old: symbol(name) / self.multiples[name] for old, name in self.names.items()}


def find_widths(divided: Divided, operations: tuple[Operation, ...]) -> Widths:
    """Name the symbols after who produces them.

    A size that is no tensor's own (heads of attention) gives its name to its symbol; other symbols go by the first
    operation whose result has them; else by the tensor whose dimension they are.
    """
    flat = divided.flat
    names: dict[sympy.Symbol, str] = {}
    multiples: dict[str, int] = {}
    free = {s for name in flat.tensor_names for size in flat.tensor_shape(name) for s in size.free_symbols} - {
        flat.batch
    }
    sized: dict[sympy.Symbol, tuple[str, int]] = {}
    for name, size in flat.sizes.items():
        coefficient, rest = size.as_coeff_Mul()
        if rest.is_Symbol:
            sized.setdefault(rest, (name, int(coefficient)))
    candidates = [(operation.name, flat.shapes[operation.node]) for operation in operations]
    candidates += [(name, flat.tensor_shape(name)) for name in flat.tensor_names]
    for candidate, shape in candidates:
        for size in shape:
            for found in sorted((size.free_symbols & free) - names.keys(), key=str):
                coefficient, rest = size.as_coeff_Mul()
                multiple = int(coefficient) if rest == found else divided.multiples.get(found, 1)
                name, multiple = sized.get(found, (candidate, multiple))
                names[found] = _distinct(name, set(multiples))
                multiples[names[found]] = multiple
    return Widths(names, multiples)


def _distinct(name: str, taken: set[str]) -> str:
    unique, i = name, 1
    while unique in taken or unique == "batch":
        i += 1
        unique = f"{name}/{i}"
    return unique


def public(flat: Flat, widths: Widths) -> Flat:
    """The graph in the symbols of its width groups and the batch."""
    new = {**widths.expressions, flat.batch: symbol("batch")}
    bindings = {symbol(name): widths.multiples[name] * flat.bindings[old] for old, name in widths.names.items()}
    bindings[symbol("batch")] = flat.bindings.get(flat.batch, 1)
    rest = {s: value for s, value in flat.bindings.items() if s not in new}
    return replace_symbols(flat, lambda size: sympy.expand(size.xreplace(new)), bindings | rest)


def read_groups(flat: Flat, widths: Widths, operations: tuple[Operation, ...]) -> tuple[WidthGroup, ...]:
    """The width groups of a graph in their symbols.

    Args:
        flat: the graph that `public` gives.
        widths: the widths it is in.
        operations: its operations.
    """
    frozen = _frozen(flat, operations)
    groups = []
    for name, multiple in widths.multiples.items():
        width = symbol(name)
        members = tuple(
            Member(tensor, dim, size)
            for tensor in flat.tensor_names
            for dim, size in enumerate(flat.tensor_shape(tensor))
            if width in size.free_symbols
        )
        reason = frozen.get(width)
        if not any(member.parameter in flat.parameters for member in members):
            reason = "only buffers have its size: it is no width of a parameter"
        groups.append(
            WidthGroup(
                name=name,
                base=flat.bindings[width],
                symbol=width,
                members=members,
                frozen=reason,
                multiple_of=multiple,
            )
        )
    return (*groups, *_constants(flat, operations, {group.name for group in groups}))


def _constants(flat: Flat, operations: tuple[Operation, ...], taken: set[str]) -> Iterator[WidthGroup]:
    """Widths that became constants while tracing: frozen, with the line that made them so."""
    seen: set[str] = set()
    for operation in operations:
        tensor = operation.weight
        if tensor is None or tensor in seen or not operation.type.startswith(("linear", "conv", "addmm", "embedding")):
            continue
        seen.add(tensor)
        dim = 1 if operation.type in ("embedding", "addmm") else 0
        size = flat.tensor_shape(tensor)[dim]
        if size.is_Integer and operation.name not in taken:
            line = flat.pinned.get((tensor, dim))
            where = f" at {line}" if line else ""
            yield WidthGroup(
                name=operation.name,
                base=int(size),
                symbol=symbol(operation.name),
                members=(Member(tensor, dim, size),),
                frozen=f"tracing fixed it to {size}{where}",
            )


def _frozen(flat: Flat, operations: tuple[Operation, ...]) -> dict[sympy.Symbol, str]:
    """Why widths cannot change, as far as the graph's shapes tell."""
    (outputs,) = [node.args[0] for node in flat.module.graph.nodes if node.op == "output"]
    sizes = [size for output in outputs for size in flat.shapes[output.name]]
    frozen = {found: "its channels are the model's output" for size in sizes for found in size.free_symbols}
    for operation in operations:
        if operation.type in ("embedding", "embedding_bag") and operation.weight is not None:
            rows = flat.tensor_shape(operation.weight)[0]
            for found in rows.free_symbols:
                frozen.setdefault(found, f"{operation.name} looks its rows up by the model's input")
    nodes = {node.name: node for node in flat.module.graph.nodes}
    for operation in operations:
        node = nodes[operation.node]
        if operation.type in _RECURRENT:
            for weight in node.args[2]:
                for found in flat.shapes[weight.name][0].free_symbols:
                    frozen.setdefault(found, f"{operation.name} takes the size of its state from a number")
        elif operation.type == "index":
            for found in _indexed(flat, node):
                frozen.setdefault(found, f"{operation.name} looks its channels up by indices")
        elif operation.type in _CUTTING:
            for found in _cut(flat, node):
                frozen.setdefault(found, f"{operation.name} cuts its channels at fixed places")
    return frozen


_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_CUTTING = frozenset({"slice", "select", "narrow", "topk", "kthvalue", "index_select"})


def _indexed(flat: Flat, node: fx.Node) -> set[sympy.Symbol]:
    """Widths of a tensor's dimensions that tensors of indices choose from."""
    source, indices = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(indices, (tuple, list))
    pairs = zip(flat.shapes.get(source.name, ()), indices, strict=False)
    return {found for size, chosen in pairs if chosen is not None for found in size.free_symbols} - {flat.batch}


def _cut(flat: Flat, node: fx.Node) -> set[sympy.Symbol]:
    """Widths of a tensor's dimensions of which a piece of constant size is taken."""
    source = node.all_input_nodes[0]
    if source.name not in flat.shapes or node.name not in flat.shapes:
        return set()
    before, after = flat.shapes[source.name], flat.shapes[node.name]
    lost = {found for size in before for found in size.free_symbols}
    return lost - {found for size in after for found in size.free_symbols} - {flat.batch}
