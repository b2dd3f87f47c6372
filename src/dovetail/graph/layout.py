"""Which channel each element along a dimension belongs to.

A dimension's elements, in order, are blocks one after another; each block is a mixed radix of factors, outermost first. A plain channel
dimension is one block of one factor; `flatten` of (c, 2, 2) gives one block (c, 4); `cat` gives two blocks; heads of attention
give (heads, head width). The same factor means the same channels in the same order wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy

__all__ = ["Block", "Layout", "merge", "split"]

Block = tuple[sympy.Expr, ...]

ONE = sympy.Integer(1)


@dataclass(frozen=True, slots=True)
class Layout:
    """The order of a dimension's elements.

    Args:
        blocks: one after another; each a tuple of factors, outermost first. A factor is an integer, the symbol of a width group,
            or such a symbol divided by an integer.

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
        return sympy.expand(sum(sympy.Mul(*block) for block in self.blocks))

    @property
    def factors(self) -> frozenset[sympy.Expr]:
        """The factors that are no integers."""
        return frozenset(f for block in self.blocks for f in block if not f.is_Integer)

    @property
    def is_constant(self) -> bool:
        """Whether no factor follows a width."""
        return not self.factors

    def substitute(self, new: dict[sympy.Expr, Block]) -> Layout:
        """The layout with factors replaced by blocks of factors."""
        return Layout(
            tuple(tuple(g for f in block for g in new.get(f, (f,)) if g != 1) for block in self.blocks)
        ).canonical()

    def canonical(self) -> Layout:
        """Neighbouring integer factors multiplied, neighbouring constant blocks added."""
        blocks: list[Block] = []
        for block in self.blocks:
            factors: list[sympy.Expr] = []
            for factor in block:
                if factors and factors[-1].is_Integer and factor.is_Integer:
                    factors[-1] = factors[-1] * factor
                elif factor != 1:
                    factors.append(factor)
            constant = all(f.is_Integer for f in factors)
            if constant and blocks and all(f.is_Integer for f in blocks[-1]):
                blocks[-1] = (sympy.Mul(*blocks[-1]) + sympy.Mul(*factors),)
            else:
                blocks.append(tuple(factors))
        return Layout(tuple(blocks))


def merge(layouts: Sequence[Layout]) -> Layout | None:
    """The layout of several dimensions flattened into one, or None where it has no such form.

    Blocks can only be the outermost part of what is flattened: (a then b) x 4 is (a, 4) then (b, 4), but 4 x (a then b) would need
    the two in turns.
    """
    merged = layouts[0]
    for inner in layouts[1:]:
        if len(inner.blocks) == 1:
            merged = Layout(tuple((*block, *inner.blocks[0]) for block in merged.blocks))
        elif merged.size == 1:
            merged = inner
        elif merged.is_constant and len(merged.blocks) == 1 and merged.size <= 16:
            merged = Layout(inner.blocks * int(merged.size))
        else:
            return None
    return merged.canonical()


def split(layout: Layout, sizes: Sequence[sympy.Expr]) -> list[Layout] | None:
    """The layouts of the dimensions into which a view splits one, or None where a boundary falls inside a factor.

    Args:
        layout: of the dimension that is split.
        sizes: of the dimensions it is split into, outermost first.
    """
    if len(sizes) == 1:
        return [layout]
    if len(layout.blocks) != 1:
        return _split_equal_blocks(layout, sizes)
    remaining = list(layout.blocks[0])
    parts: list[Layout] = []
    for size in reversed(sizes):
        taken: list[sympy.Expr] = []
        need = size
        while need != 1:
            if not remaining:
                return None
            factor = remaining.pop()
            quotient = sympy.simplify(need / factor)
            if factor.is_Integer and need.is_Integer and need < factor:
                if factor % need:
                    return None
                remaining.append(factor / need)
                taken.insert(0, need)
                need = ONE
            elif _divides(factor, need):
                taken.insert(0, factor)
                need = quotient
            elif need.is_Integer and _is_multiple(factor, need):
                remaining.append(sympy.expand(factor / need))
                taken.insert(0, need)
                need = ONE
            else:
                return None
        parts.insert(0, Layout.of(*taken))
    if remaining:
        return None
    return parts


def _split_equal_blocks(layout: Layout, sizes: Sequence[sympy.Expr]) -> list[Layout] | None:
    """(a then a) viewed as (2, a)."""
    first, *rest = layout.blocks
    if any(block != first for block in rest) or sizes[0] != len(layout.blocks):
        return None
    inner = split(Layout((first,)), sizes[1:])
    return None if inner is None else [Layout.of(sizes[0]), *inner]


def _divides(factor: sympy.Expr, size: sympy.Expr) -> bool:
    quotient = sympy.simplify(size / factor)
    return bool(quotient.is_integer) and (quotient.is_Integer or not quotient.atoms(sympy.Pow))


def _is_multiple(factor: sympy.Expr, number: sympy.Expr) -> bool:
    return bool(sympy.expand(factor / number).is_integer)
