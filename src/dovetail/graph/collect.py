"""Collect width groups: which symbol every parameter dimension follows, and who produces it."""

from __future__ import annotations

import sympy

from dovetail.graph.flat import Flat
from dovetail.graph.groups import Member, WidthGroup
from dovetail.graph.operation import Operation
from dovetail.graph.rename import replace_symbols, symbol

__all__ = ["collect_groups"]


def collect_groups(flat: Flat, operations: tuple[Operation, ...]) -> tuple[tuple[WidthGroup, ...], Flat]:
    """The width groups of a graph, in the order of their producers, and the graph in their symbols.

    Args:
        flat: the graph.
        operations: its operations.
    """
    names = _producers(flat, operations)
    new = {old: symbol(name) for old, name in names.items()} | {flat.batch: symbol("batch")}
    bindings = {new[old]: value for old, value in flat.bindings.items() if old in new}
    flat = replace_symbols(flat, new, bindings)
    return tuple(_group(name, flat, bindings[symbol(name)]) for name in names.values()), flat


def _producers(flat: Flat, operations: tuple[Operation, ...]) -> dict[sympy.Symbol, str]:
    """The name of each free symbol of the parameters: the first operation whose result has it and whose operands have
    not."""
    free = {s for name in flat.tensor_names for size in flat.tensor_shape(name) for s in size.free_symbols} - {
        flat.batch
    }
    names: dict[sympy.Symbol, str] = {}
    for operation in operations:
        for size in flat.shapes[operation.node]:
            for found in sorted(size.free_symbols & free, key=str):
                names.setdefault(found, operation.name)
    for tensor in flat.tensor_names:
        for size in flat.tensor_shape(tensor):
            for found in sorted(size.free_symbols & free, key=str):
                names.setdefault(found, tensor)
    return _distinct(names)


def _distinct(names: dict[sympy.Symbol, str]) -> dict[sympy.Symbol, str]:
    taken: set[str] = {"batch"}
    distinct = {}
    for old, name in names.items():
        unique, i = name, 1
        while unique in taken:
            i += 1
            unique = f"{name}/{i}"
        taken.add(unique)
        distinct[old] = unique
    return distinct


def _group(name: str, flat: Flat, base: int) -> WidthGroup:
    width = symbol(name)
    members = tuple(
        Member(tensor, dim, size)
        for tensor in flat.tensor_names
        for dim, size in enumerate(flat.tensor_shape(tensor))
        if width in size.free_symbols
    )
    return WidthGroup(name=name, base=base, symbol=width, members=members, frozen=_frozen(flat, width))


def _frozen(flat: Flat, width: sympy.Symbol) -> str | None:
    (output,) = [node.args[0] for node in flat.module.graph.nodes if node.op == "output"]
    if any(width in size.free_symbols for size in flat.shapes[output.name]):
        return "its channels are the model's output"
    return None
