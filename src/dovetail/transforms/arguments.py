"""An operation as the walk over a graph meets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from dovetail.transforms.layout import Layout
from dovetail.transforms.tracking import Dim, State, Value

__all__ = ["Operands", "dims_in", "fresh", "is_one"]


@dataclass(frozen=True, slots=True)
class Operands:
    """An operation in the walk: its arguments with tensors replaced by what is known of them.

    Args:
        name: the node's name, for messages.
        function: ATen name without overload and trailing underscore.
        arguments: by the schema's names, defaults filled in.
        shape: the result's shape; empty where the result is no tensor.
        shapes: the results' shapes where there are several.
    """

    name: str
    function: str
    arguments: dict[str, Any]
    shape: tuple[sympy.Expr, ...]
    shapes: tuple[tuple[sympy.Expr, ...], ...] = ()

    def value(self, *names: str) -> Value | None:
        """The first of these arguments that is there, where it is a tensor."""
        for name in names:
            found = self.arguments.get(name)
            if isinstance(found, Value):
                return found
        return None

    @property
    def x(self) -> Value:
        """The main operand."""
        found = self.value("input", "self", "query", "tensor")
        assert found is not None, f"{self.function} has no main operand"
        return found

    @property
    def tensors(self) -> list[Value]:
        """Every tensor operand."""
        found: list[Value] = []
        for argument in self.arguments.values():
            items = argument if isinstance(argument, (list, tuple)) else [argument]
            found += [item for item in items if isinstance(item, Value)]
        return found

    @property
    def where(self) -> str:
        """The operation, for messages."""
        return f"{self.function} ({self.name})"


def dims_in(value: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Dimension arguments as a list of non-negative ints; all dimensions for None and []."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return list(range(ndim))
    return [d % ndim for d in ([value] if isinstance(value, int) else value)]


def fresh(state: State, op: Operands, shape: tuple[sympy.Expr, ...] | None = None, tag: str = "") -> Value:
    """A value of which only the shape is known."""
    return Value.of(
        state.dim((f"{op.name}{tag}", i), size) for i, size in enumerate(op.shape if shape is None else shape)
    )


def is_one(dim: Dim) -> bool:
    """Whether a dimension has one element, which broadcasting repeats."""
    return isinstance(dim, Layout) and dim.segments == ((1,),)
