"""What one call of an operator costs, and what a counting rule gets to see of the call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import sympy
import torch
from torch import fx

from dovetail.errors import PricingError

__all__ = ["Invocation", "Rule", "Shape", "Work", "elements"]

Shape = tuple[sympy.Expr, ...]


def elements(shape: Iterable[sympy.Expr | int]) -> sympy.Expr:
    """Elements of a tensor: the product of its sizes, 1 for a scalar."""
    return sympy.sympify(prod(shape, start=sympy.Integer(1)))


@dataclass(frozen=True, slots=True)
class Work:
    """What one call computes, in closed form.

    Args:
        macs: multiply-accumulates of matrix products and convolutions; each is 2 FLOPs.
        flops: floating-point operations beside those.
    """

    macs: sympy.Expr = field(default=sympy.Integer(0))
    flops: sympy.Expr = field(default=sympy.Integer(0))


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of an operator in a graph: its arguments by name, tensors as symbolic shapes.

    Args:
        target: the operator's name, such as `aten.linear`.
        arguments: by the names of the operator's schema; defaults filled in, nodes as nodes.
        output: shape of what it gives (of the first tensor, where it gives several).
        is_float: whether what it gives is floating point.
        shapes: shape of each node of the graph.
    """

    target: str
    arguments: Mapping[str, Any]
    output: Shape
    is_float: bool
    shapes: Mapping[str, Shape]

    def has(self, name: str) -> bool:
        """Whether an optional argument is given."""
        return self.arguments.get(name) is not None

    def value(self, name: str) -> Any:
        """An argument that is no tensor: a number, a text, a list of numbers."""
        return self.arguments[name]

    def shape(self, name: str) -> Shape:
        """Shape of a tensor argument.

        Raises:
            PricingError: There is no such argument, or it is not a tensor.
        """
        value = self.arguments.get(name)
        if not isinstance(value, fx.Node) or value.name not in self.shapes:
            raise PricingError(f"{self.target}: argument {name!r} must be a tensor, got {value!r}.")
        return self.shapes[value.name]

    def tensors(self, name: str) -> tuple[Shape, ...]:
        """Shapes of an argument that is a list of tensors."""
        return tuple(self.shapes[value.name] for value in self.arguments[name] if isinstance(value, fx.Node))

    def operand(self) -> Shape:
        """Shape of the first argument that is a tensor.

        Raises:
            PricingError: No argument is a tensor.
        """
        for value in self.arguments.values():
            if isinstance(value, fx.Node) and value.name in self.shapes:
                return self.shapes[value.name]
        raise PricingError(f"{self.target}: must have a tensor argument, got none.")


Rule = Callable[[Invocation], Work]


@functools.cache
def target_name(target: Any) -> str:
    """The name under which rules know a graph node's target; an in-place operator goes by its plain name.

    Example:
        >>> target_name(torch.ops.aten.relu_.default), target_name(torch.ops.aten.add.Tensor)
        ('aten.relu', 'aten.add')
    """
    schema = getattr(target, "_schema", None)
    if schema is None:
        return f"{getattr(target, '__module__', None) or 'python'}.{getattr(target, '__name__', str(target))}".lstrip(
            "_"
        )
    namespace, _, name = schema.name.partition("::")
    in_place = name.endswith("_") and not name.endswith("__")
    return f"{namespace}.{name[:-1] if in_place else name}"


def invocation(node: fx.Node, shapes: Mapping[str, Shape], dtypes: Mapping[str, torch.dtype]) -> Invocation:
    """The call that a graph node makes."""
    schema = getattr(node.target, "_schema", None)
    arguments: dict[str, Any]
    if schema is None:
        arguments = {str(i): value for i, value in enumerate(node.args)}
    else:
        arguments = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        arguments |= dict(zip((a.name for a in schema.arguments), node.args, strict=False))
    return Invocation(
        target=target_name(node.target),
        arguments={**arguments, **node.kwargs},
        output=shapes.get(node.name, ()),
        is_float=node.name in dtypes and (dtypes[node.name].is_floating_point or dtypes[node.name].is_complex),
        shapes=shapes,
    )
