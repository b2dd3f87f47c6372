"""Terms: what costs are sums of. A term belongs to one operation, and follows from widths and formats alone."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from dovetail.costs.work import Shape
from dovetail.plan import Site

__all__ = ["PLAIN_BITS", "Count", "Storage", "Term"]

PLAIN_BITS = 32
"""Bits of an element that no format is given to: float32."""


@dataclass(frozen=True, slots=True)
class Count:
    """A count, times the bits of one element at each of some sites.

    Args:
        operation: what the term belongs to.
        count: in the symbols of width groups.
        sites: sites whose element bits multiply the count; None stands for a tensor that cannot be given a format.
    """

    operation: str
    count: sympy.Expr
    sites: tuple[Site | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Storage:
    """Bits of one stored tensor in the widest format that reads it, shared scales and partial blocks included.

    Args:
        operation: what the term belongs to.
        shape: in the symbols of width groups.
        readers: the sites that read it; None stands for a reader that takes it as it is.
        plain_bits: bits of an element that is read as it is.
    """

    operation: str
    shape: Shape
    readers: tuple[Site | None, ...]
    plain_bits: int = PLAIN_BITS


Term = Count | Storage
