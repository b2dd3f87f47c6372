"""State of a walk over a graph that finds how every parameter dimension is made of channels.

A dimension is a `Layout`, or a `Hole` while the walk has not seen how it is used: the inputs of a linear layer after
a `flatten` have size `4*s`, and only the operand they meet says whether that is `s x 4` or `4 x s`. Holes are filled
when two dimensions meet and are looked up in the next walk, until nothing new is learnt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import sympy

from dovetail.transforms.layout import Layout

__all__ = ["Dim", "Hole", "Obstacle", "ObstacleKind", "Origin", "State", "Value"]

Origin = tuple[str, int]
"""A dimension of a parameter: (name, dim)."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A dimension whose layout is not known yet.

    Args:
        owner: the parameter or graph node, and which of its dimensions.
        size: its size in the graph's symbols.
    """

    owner: Origin
    size: sympy.Expr


Dim = Layout | Hole


@dataclass(frozen=True, slots=True)
class Value:
    """What the walk knows of a tensor.

    Args:
        dims: one entry per dimension.
        origins: per dimension, the parameter dimension that it is, element for element; None for activations.
    """

    dims: tuple[Dim, ...]
    origins: tuple[Origin | None, ...]

    @classmethod
    def of(cls, dims: Iterable[Dim]) -> Value:
        """A value that is no parameter."""
        found = tuple(dims)
        return cls(found, (None,) * len(found))


class ObstacleKind(StrEnum):
    """What an operation asks of groups that are to grow without changing the function."""

    UNIFORM = "uniform"
    """Every channel must be copied equally often: the width must be a multiple of the base width."""
    NEVER = "never"
    """Copies change what the operation computes."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why copying the channels of some groups can change the function.

    Args:
        symbols: the groups' symbols.
        kind: what would have to hold.
        reason: the operation and why.
    """

    symbols: frozenset[sympy.Symbol]
    kind: ObstacleKind
    reason: str


@dataclass(slots=True)
class State:
    """What the walk has found so far.

    Args:
        groups: the symbols that are widths; any other symbol (the batch) is a constant here.
        filled: what a hole turned out to be.
        contracted: parameter dimensions that are summed over; copies of a channel share their weights there.
        produced: parameter dimensions that go on into the result.
        obstacles: what can change the function.
    """

    groups: frozenset[sympy.Symbol]
    filled: dict[Origin, Dim] = field(default_factory=dict)
    contracted: set[Origin] = field(default_factory=set)
    produced: set[Origin] = field(default_factory=set)
    obstacles: dict[Obstacle, None] = field(default_factory=dict)

    def resolve(self, dim: Dim) -> Dim:
        """What a dimension is known to be."""
        while isinstance(dim, Hole) and dim.owner in self.filled:
            dim = self.filled[dim.owner]
        return dim

    def dim(self, owner: Origin, size: sympy.Expr) -> Dim:
        """A dimension of a parameter, or of the result of an operation that tells nothing."""
        return self.resolve(Layout.from_size(size) or Hole(owner, size))

    def unify(self, a: Dim, b: Dim, where: str) -> Dim:
        """Two dimensions are one and the same, element for element."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return a
        if isinstance(a, Hole):
            self.filled[a.owner] = b
            return b
        if isinstance(b, Hole):
            self.filled[b.owner] = a
            return a
        self.block(a.symbols | b.symbols, f"{where} pairs channels laid out as {a} with channels laid out as {b}")
        return a

    def symbols(self, dims: Iterable[Dim]) -> frozenset[sympy.Symbol]:
        """The groups whose channels some dimensions carry."""
        found: frozenset[sympy.Symbol] = frozenset()
        for dim in map(self.resolve, dims):
            found |= dim.symbols if isinstance(dim, Layout) else frozenset(dim.size.free_symbols)
        return found & self.groups

    def block(self, symbols: frozenset[sympy.Symbol], reason: str, kind: ObstacleKind = ObstacleKind.NEVER) -> None:
        """Note that copying channels of these groups can change the function."""
        if concerned := frozenset(symbols) & self.groups:
            self.obstacles[Obstacle(concerned, kind, reason)] = None

    def produce(self, value: Value) -> None:
        """The dimensions of a parameter go on into a result."""
        self.produced.update(origin for origin in value.origins if origin is not None)

    def contract(self, a: Value, i: int, b: Value, j: int, where: str) -> None:
        """Dimension i of a is multiplied with dimension j of b and summed over."""
        self.unify(a.dims[i], b.dims[j], where)
        owner = b.origins[j] or a.origins[i]
        if owner is not None:
            self.contracted.add(owner)
        else:
            self.block(
                self.symbols([a.dims[i], b.dims[j]]), f"{where} sums products of two activations over the channels"
            )
