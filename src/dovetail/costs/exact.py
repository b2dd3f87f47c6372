"""Terms for one plan, one by one, in Python's own integers: the obvious reference for the bulk."""

from __future__ import annotations

import math
from collections.abc import Mapping

import sympy

from dovetail.costs.terms import Count, Storage, Term
from dovetail.formats import FLOAT32, Format
from dovetail.plan import Site

__all__ = ["Exact", "element_bits"]


def element_bits(fmt: Format | None, plain_bits: int) -> int:
    """Bits of one element in a format, shared scales apart."""
    return plain_bits if fmt is None else fmt.element_bits


class Exact:
    """The value of terms under one plan.

    Args:
        formats: format per site; sites that are not named are read as they are.
        widths: value of each symbol.
    """

    def __init__(self, formats: Mapping[Site, Format], widths: Mapping[sympy.Symbol, int]):
        self._formats = {site: fmt for site, fmt in formats.items() if fmt != FLOAT32}
        self._widths = {symbol: sympy.Integer(width) for symbol, width in widths.items()}
        self._known: dict[sympy.Expr, int] = {}

    def value(self, term: Term) -> int:
        """Exact: no rounding, no overflow."""
        return self._count(term) if isinstance(term, Count) else self._storage(term)

    def size(self, expression: sympy.Expr) -> int:
        """An expression's value."""
        if expression not in self._known:
            self._known[expression] = int(expression.xreplace(self._widths))
        return self._known[expression]

    def _count(self, term: Count) -> int:
        value = self.size(term.count)
        for site in term.sites:
            value *= element_bits(self._format(site), 32)
        return value

    def _storage(self, term: Storage) -> int:
        shape = [self.size(size) for size in term.shape]
        formats = list(dict.fromkeys(self._format(site) for site in term.readers))
        return max(math.prod(shape) * term.plain_bits if f is None else int(f.storage_bits(shape)) for f in formats)

    def _format(self, site: Site | None) -> Format | None:
        return None if site is None else self._formats.get(site)
