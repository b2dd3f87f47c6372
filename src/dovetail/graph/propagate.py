"""Follow channels through a graph: the layout of every parameter dimension, and what it does to the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy
from torch import fx

from dovetail.graph.computing import COMPUTING
from dovetail.graph.flat import Flat
from dovetail.graph.following import Dims, Following, Key
from dovetail.graph.kinds import kind_of
from dovetail.graph.layout import Layout, Use
from dovetail.graph.moving import MOVING
from dovetail.graph.operation import Operation

__all__ = ["Channels", "follow_channels"]


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
    state = Following(flat, operations)
    for node in flat.module.graph.nodes:
        if node.op == "call_function" and node.name in flat.shapes:
            state.values[node] = _visit(state, node)
    return _channels(state)


def _visit(state: Following, node: fx.Node) -> Dims | list[Dims]:
    """The layouts of what a node gives; of an operator without a rule, as where operands broadcast."""
    kind = kind_of(node.target).type
    rule = COMPUTING.get(kind) or MOVING.get(kind)
    return state.elementwise(node) if rule is None else rule(state, node, _named(node))


def _channels(state: Following) -> Channels:
    for node in state.tensors:
        for layout in state.dims(node):
            state.axes.settle(layout)
    layouts = {}
    for node, name in state.tensors.items():
        for dim, layout in enumerate(state.dims(node)):
            found = state.axes.resolve(layout)
            if state.axes.unknown(found):
                state.blame(found, f"the order of the channels along {name}, dimension {dim}, is not known")
            elif found.factors:
                layouts[name, dim] = found
    uses = {key: state.uses.get(key, Use.ELEMENTWISE) for key in layouts}
    normalised = {s: tuple(dict.fromkeys(n)) for s, n in state.normalised.items()}
    contracted = {s: tuple(dict.fromkeys(n)) for s, n in state.contracted.items()}
    return Channels(layouts, uses, state.inexact, normalised, contracted)


def _named(node: fx.Node) -> dict[str, Any]:
    """A node's arguments by the operator's own names for them."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}
