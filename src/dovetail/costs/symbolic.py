"""Closed forms: sizes as NumPy functions of widths, and costs as formulas to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import sympy

from dovetail.costs.terms import PLAIN_BITS, Count, Term
from dovetail.costs.work import elements

__all__ = ["compile_sizes", "plain_value"]

# What PyTorch's shape engine writes for integer arithmetic on sizes.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "FloorDiv": np.floor_divide,
    "CleanDiv": np.floor_divide,
    "CeilDiv": lambda a, b: -np.floor_divide(-a, b),
    "Mod": np.mod,
    "PythonMod": np.mod,
    "ModularIndexing": lambda x, a, b: np.mod(np.floor_divide(x, a), b),
    "Max": lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "Min": lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "IntTrueDiv": np.true_divide,
    "TruncToInt": np.trunc,
    "ToFloat": lambda x: x,
    "Identity": lambda x: x,
}


def compile_sizes(symbols: Sequence[sympy.Symbol], expressions: Iterable[sympy.Expr]) -> Callable[..., list[Any]]:
    """A function of one float64 array per symbol that gives an array, or a number, per expression.

    Exact while every value stays below 2**53, since all of them are whole.
    """
    expressions = list(expressions)
    if all(expression.is_Integer for expression in expressions):  # no width varies: there is nothing to compile
        values = [int(expression) for expression in expressions]
        return lambda *widths: values
    compiled: Callable[..., list[Any]] = sympy.lambdify(
        list(symbols), expressions, modules=[_FUNCTIONS, "numpy"], cse=True, dummify=True
    )
    return compiled


def plain_value(term: Term) -> sympy.Expr:
    """A term's closed form where nothing is given a format."""
    if isinstance(term, Count):
        return term.count * PLAIN_BITS ** len(term.sites)
    return elements(term.shape) * term.plain_bits
