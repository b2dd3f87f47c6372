"""Give symbols names that a reader knows: the batch and the producers of the channels."""

from __future__ import annotations

import dataclasses

import sympy

from dovetail.graph.flat import Flat

__all__ = ["replace_symbols", "symbol"]


def symbol(name: str) -> sympy.Symbol:
    """The symbol of a size; where the name begins like a number, an underscore keeps it from being read as one."""
    return sympy.Symbol(name if name[:1].isalpha() else f"_{name}", integer=True, positive=True)


def replace_symbols(flat: Flat, new: dict[sympy.Symbol, sympy.Expr], bindings: dict[sympy.Symbol, int]) -> Flat:
    """The same graph in other symbols.

    Args:
        flat: the graph.
        new: what stands in the place of each symbol.
        bindings: value of each symbol that the result uses.
    """
    done: dict[sympy.Expr, sympy.Expr] = {}

    def replace(size: sympy.Expr) -> sympy.Expr:
        if size not in done:
            done[size] = sympy.expand(size.xreplace(new)) if size.free_symbols else size
        return done[size]

    shapes = {name: tuple(replace(size) for size in shape) for name, shape in flat.shapes.items()}
    batch = new.get(flat.batch, flat.batch)
    return dataclasses.replace(flat, shapes=shapes, batch=batch, bindings=bindings)
