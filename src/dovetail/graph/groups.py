"""Width groups: parameter dimensions that can only change together."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

__all__ = ["Member", "WidthGroup"]


@dataclass(frozen=True, slots=True)
class Member:
    """A dimension of a parameter or buffer whose size follows a group's width.

    Args:
        parameter: name of the parameter or buffer.
        dim: which of its dimensions.
        size: the dimension's size in the graph's symbols.
    """

    parameter: str
    dim: int
    size: sympy.Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthGroup:
    """Parameter dimensions that can only change together.

    Args:
        name: the operation that produces the group's channels; the first one where several do.
        base: the width in the model as it is.
        symbol: what stands for the width in the graph's shapes.
        members: every dimension whose size depends on the width.
        frozen: why the width cannot change, or None where it can.
        multiple_of: what the width must be a multiple of.
    """

    name: str
    base: int
    symbol: sympy.Symbol
    members: tuple[Member, ...]
    frozen: str | None = None
    multiple_of: int = 1
