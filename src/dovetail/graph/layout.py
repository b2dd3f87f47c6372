"""Which channel each element along a dimension belongs to.

A dimension's elements, in order, are blocks one after another; each block is a mixed radix of factors, outermost first.
A plain channel dimension is one block of one factor; `flatten` of (c, 2, 2) gives one block (c, 4); `cat` gives two
blocks; heads of attention give (heads, head width). The same factor means the same channels in the same order wherever
it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import sympy

__all__ = ["Block", "Layout", "Use"]

Block = tuple[sympy.Expr, ...]


class Use(StrEnum):
    """What a dimension of a parameter has to do with the channels along it."""

    PRODUCES = "produces"  # each element makes a channel: rows of a weight, a bias
    CONSUMES = "consumes"  # channels are multiplied and summed over: columns of a weight
    ELEMENTWISE = "elementwise"  # each element acts on its own channel: normalisation, layer scale, depthwise kernels


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of a dimension's elements.

    Args:
        blocks: one after another; each a tuple of factors, outermost first. A factor is an integer, the symbol of a
            width group, or such a symbol divided by an integer.

    Example:
        >>> c = sympy.Symbol("c", integer=True, positive=True)
        >>> Layout(((c, sympy.Integer(4)),)).size
        4*c
    """

    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, *factors: sympy.Expr) -> Layout:
        """One block."""
        return cls((tuple(f for f in factors if f != 1),))

    @property
    def size(self) -> sympy.Expr:
        """The dimension's size."""
        return sympy.expand(sympy.Add(*(sympy.Mul(*block) for block in self.blocks)))

    @property
    def factors(self) -> frozenset[sympy.Expr]:
        """The factors that are no integers."""
        return frozenset(f for block in self.blocks for f in block if not f.is_Integer)

    def replace(self, new: Mapping[sympy.Expr, sympy.Expr]) -> Layout:
        """The layout with other factors."""
        return Layout(tuple(tuple(new.get(factor, factor) for factor in block) for block in self.blocks))

    def canonical(self) -> Layout:
        """Integer factors multiplied, constant blocks added, equal neighbours counted: (c), (c) is (2, c)."""
        blocks: list[Block] = []
        for block in self.blocks:
            joined = _joined(block)
            if blocks and _is_constant(joined) and _is_constant(blocks[-1]):
                blocks[-1] = (sympy.Mul(*blocks[-1]) + sympy.Mul(*joined),)
            else:
                blocks.append(joined)
        counted: list[tuple[int, Block]] = []
        for block in blocks:
            if counted and counted[-1][1] == block and not _is_constant(block):
                counted[-1] = (counted[-1][0] + 1, block)
            else:
                counted.append((1, block))
        return Layout(tuple(_joined((sympy.Integer(n), *block)) for n, block in counted))


def _joined(block: Block) -> Block:
    factors: list[sympy.Expr] = []
    for factor in block:
        if factors and factors[-1].is_Integer and factor.is_Integer:
            factors[-1] = factors[-1] * factor
        elif factor != 1:
            factors.append(factor)
    return tuple(factors)


def _is_constant(block: Block) -> bool:
    return all(factor.is_Integer for factor in block)
