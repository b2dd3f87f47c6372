"""Put a graph into other symbols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import sympy

from dovetail.graph.flat import Flat

__all__ = ["replace_symbols", "symbol"]


def symbol(name: str) -> sympy.Symbol:
    """The symbol of a size; where the name begins like a number, an underscore keeps it from being read as one."""
    return sympy.Symbol(name if name[:1].isalpha() else f"_{name}", integer=True, positive=True)


def replace_symbols(
    flat: Flat, replace: Callable[[sympy.Expr], sympy.Expr], bindings: Mapping[sympy.Symbol, int]
) -> Flat:
    """The same graph in other symbols.

    Args:
        flat: the graph.
        replace: a size in the new symbols.
        bindings: value of each symbol that the result uses.
    """
    done: dict[sympy.Expr, sympy.Expr] = {}

    def cached(size: sympy.Expr) -> sympy.Expr:
        if size not in done:
            done[size] = replace(size)
        return done[size]

    shapes = {name: tuple(cached(size) for size in shape) for name, shape in flat.shapes.items()}
    scalars = {name: cached(size) for name, size in flat.scalars.items()}
    sizes = {name: cached(size) for name, size in flat.sizes.items()}
    used = {s for shape in shapes.values() for size in shape for s in size.free_symbols}
    used |= {s for size in sizes.values() for s in size.free_symbols}
    bound = {s: bindings[s] for s in sorted(used, key=str)}
    return dataclasses.replace(
        flat, shapes=shapes, scalars=scalars, sizes=sizes, batch=cached(flat.batch), bindings=bound
    )
