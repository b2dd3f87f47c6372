"""How one tensor dimension is made of channels: concatenated segments, each a product of factors.

`flatten` of s0 channels of 4 pixels is one segment `s0 x 4` (outer factor first), `cat` of two tensors is two
segments, a fused q/k/v projection is `3 x heads x head_dim`. A layout says for every element of the dimension which
channel of which width group it belongs to, at any width, and so how the elements move when widths change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import sympy
from numpy.typing import NDArray

__all__ = ["Factor", "Layout", "Segment"]

# sympy has no types: to the checker, Factor is Any.
Factor: TypeAlias = "sympy.Symbol | int"
Segment: TypeAlias = tuple[Factor, ...]

_MOST_COPIES = 4096
"""A constant outer factor over several segments is written out as copies up to this many."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments of one dimension, in order; build one with `Layout.of`, which brings it into canonical form.

    Example:
        >>> s = sympy.Symbol("s")
        >>> Layout.of([(s, 4), (8,)]).size
        4*s + 8
    """

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: list[Segment] | tuple[Segment, ...]) -> Layout:
        """The canonical layout: factors 1 dropped, neighbouring constants multiplied, equal neighbouring segments
        counted."""
        merged: list[tuple[int, Segment]] = []
        for segment in segments:
            count, rest = _counted(_canonical(segment))
            if count == 0:
                continue
            if merged and merged[-1][1] == rest:
                merged[-1] = (merged[-1][0] + count, rest)
            else:
                merged.append((count, rest))
        return cls(tuple(_canonical((count, *rest)) for count, rest in merged))

    @classmethod
    def from_size(cls, size: sympy.Expr | int) -> Layout | None:
        """The layout of a dimension whose size has only one reading: a constant or one symbol. None for any other
        size."""
        size = sympy.sympify(size)
        if size.is_Integer:
            return cls.of([(int(size),)])
        return cls.of([(size,)]) if isinstance(size, sympy.Symbol) else None

    @classmethod
    def guess(cls, size: sympy.Expr) -> Layout | None:
        """A layout that has this size, symbols outermost; None where the size is not a sum of products."""
        segments: list[Segment] = []
        for term in sympy.Add.make_args(sympy.expand(size)):
            factors = sympy.Mul.make_args(term)
            powers = [factor.as_base_exp() for factor in factors if not factor.is_Integer]
            if any(not isinstance(base, sympy.Symbol) or not (e.is_Integer and e > 0) for base, e in powers):
                return None
            constant = int(sympy.prod([factor for factor in factors if factor.is_Integer]))
            if constant < 1:
                return None
            symbols = sorted((base for base, e in powers for _ in range(int(e))), key=str)
            segments.append((*symbols, constant))
        return cls.of(segments)

    @property
    def size(self) -> sympy.Expr:
        """The size of the dimension as an expression in the group symbols."""
        return sympy.Add(*(sympy.Mul(*segment) for segment in self.segments))

    @property
    def symbols(self) -> frozenset[sympy.Symbol]:
        """The symbols of the groups whose channels the dimension carries."""
        return frozenset(f for segment in self.segments for f in segment if not isinstance(f, int))

    def times(self, inner: Layout) -> Layout | None:
        """The layout of this dimension (outer) merged with the one after it (inner), or None where it is no sum of
        products."""
        if len(inner.segments) == 1:
            return Layout.of([segment + inner.segments[0] for segment in self.segments])
        if self.symbols:
            return None
        copies = _constant(self.segments[0]) if self.segments else 0
        return Layout.of(list(inner.segments) * copies) if copies <= _MOST_COPIES else None

    def split(self, outer: sympy.Expr, inner: sympy.Expr) -> tuple[Layout, Layout] | None:
        """The two layouts of this dimension viewed as `outer x inner`, or None where the view cuts through a factor."""
        outer, inner = sympy.sympify(outer), sympy.sympify(inner)
        if len(self.segments) > 1:
            return self._split_copies(outer, inner)
        right: list[Factor] = []
        left = list(self.segments[0])
        rest = inner
        while rest != 1:
            if not left:
                return None
            factor = left.pop()
            quotient = sympy.cancel(rest / factor)
            if quotient.is_polynomial() and sympy.denom(quotient) == 1:
                right.insert(0, factor)
                rest = quotient
            elif isinstance(factor, int) and rest.is_Integer and factor % int(rest) == 0:
                right.insert(0, int(rest))
                left.append(factor // int(rest))
                rest = sympy.Integer(1)
            else:
                return None
        found = Layout.of([tuple(left) or (1,)]), Layout.of([tuple(right) or (1,)])
        return found if sympy.expand(found[0].size - outer) == 0 else None

    def _split_copies(self, outer: sympy.Expr, inner: sympy.Expr) -> tuple[Layout, Layout] | None:
        """`a, b, a, b` viewed as 2 rows is (2) x (a, b)."""
        if not outer.is_Integer or int(outer) < 1:
            return None
        parts = self.cut([inner] * int(outer))
        if parts is None or any(part != parts[0] for part in parts):
            return None
        return Layout.of([(int(outer),)]), parts[0]

    def cut(self, sizes: list[sympy.Expr]) -> list[Layout] | None:
        """The layouts of consecutive pieces of given sizes, or None where a cut goes through a segment that cannot be
        cut."""
        parts: list[Layout] = []
        remaining = list(self.segments)
        for size in sizes:
            piece: list[Segment] = []
            need = sympy.expand(size)
            while need != 0:
                if not remaining:
                    return None
                taken = _take(remaining.pop(0), need)
                if taken is None:
                    return None
                head, tail = taken
                piece.append(head)
                if tail is not None:
                    remaining.insert(0, tail)
                need = sympy.expand(need - sympy.Mul(*head))
            parts.append(Layout.of(piece))
        return parts

    def source(
        self, maps: Mapping[sympy.Symbol, NDArray[np.int64]], old: Mapping[sympy.Symbol, int]
    ) -> NDArray[np.int64]:
        """For each element at the new widths, the element at the old widths that it is copied from.

        Args:
            maps: per symbol, for each new channel the old channel it is copied from.
            old: per symbol, its old width.
        """
        found, offset = [np.empty(0, np.int64)], 0
        for segment in self.segments:
            index, size = np.zeros(1, np.int64), 1
            for factor in segment:
                width = factor if isinstance(factor, int) else old[factor]
                step = np.arange(factor) if isinstance(factor, int) else maps[factor]
                index = (index[:, None] * width + step[None, :]).reshape(-1)
                size *= width
            found.append(index + offset)
            offset += size
        return np.concatenate(found)

    def spread(self, values: Mapping[sympy.Symbol, NDArray[np.float64]]) -> NDArray[np.float64]:
        """For each element, the product of its channels' values (1 for a constant factor)."""
        found = [np.empty(0, np.float64)]
        for segment in self.segments:
            parts = [np.ones(f) if isinstance(f, int) else values[f] for f in segment]
            found.append(reduce(lambda a, b: (a[:, None] * b[None, :]).reshape(-1), parts, np.ones(1)))
        return np.concatenate(found)

    def channels(self, symbol: sympy.Symbol, widths: Mapping[sympy.Symbol, int]) -> NDArray[np.int64]:
        """For each element its channel of one group, -1 where it belongs to none."""
        found = [np.empty(0, np.int64)]
        for segment in self.segments:
            index, seen = np.zeros(1, np.int64) - 1, False
            for factor in segment:
                width = factor if isinstance(factor, int) else widths[factor]
                if factor == symbol and not seen:
                    index, seen = np.tile(np.arange(width), len(index)), True
                else:
                    index = np.repeat(index, width)
            found.append(index)
        return np.concatenate(found)

    def __str__(self) -> str:
        return " + ".join(" x ".join(str(f) for f in segment) for segment in self.segments)


def _canonical(segment: Segment) -> Segment:
    factors: list[Factor] = []
    for factor in segment:
        if isinstance(factor, int) and factor == 0:
            return (0,)
        if isinstance(factor, int) and factors and isinstance(factors[-1], int):
            factors[-1] = factors[-1] * factor
        elif factor != 1 or not isinstance(factor, int):
            factors.append(factor)
    without_ones = [f for f in factors if not (isinstance(f, int) and f == 1)]
    return tuple(without_ones) or (1,)


def _counted(segment: Segment) -> tuple[int, Segment]:
    """A canonical segment as so many copies of another."""
    return (segment[0], segment[1:]) if isinstance(segment[0], int) else (1, segment)


def _constant(segment: Segment) -> int:
    assert isinstance(segment[0], int)
    return segment[0]


def _take(segment: Segment, need: sympy.Expr) -> tuple[Segment, Segment | None] | None:
    """The head of a segment that has at most the needed size, and what is left of it."""
    size = sympy.Mul(*segment)
    rest = sympy.expand(need - size)
    if rest == 0:
        return segment, None
    if isinstance(segment[0], int) and segment[0] > 1:
        unit = sympy.Mul(*segment[1:])
        count = sympy.cancel(need / unit)
        if count.is_Integer and 0 < int(count) < segment[0]:
            return (int(count), *segment[1:]), (segment[0] - int(count), *segment[1:])
    poly = sympy.expand(rest)
    if all(coefficient > 0 for coefficient in poly.as_coefficients_dict().values()):
        return segment, None
    return None
