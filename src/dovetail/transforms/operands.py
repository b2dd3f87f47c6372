"""Which arguments of a torch function are activation operands, and whether it writes into its first one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["is_activation", "is_operand", "is_written"]

# Floating-point arguments that are no operands: running statistics and additive masks. Positions where they may come
# unnamed.
_NAMES = frozenset({"running_mean", "running_var", "attn_mask", "mask"})
_POSITIONS: dict[Callable[..., Any], frozenset[int]] = {
    F.batch_norm: frozenset({1, 2}),
    F.instance_norm: frozenset({1, 2}),
    torch.batch_norm: frozenset({3, 4}),
    torch.instance_norm: frozenset({3, 4}),
    F.scaled_dot_product_attention: frozenset({3}),
}


def is_operand(function: Callable[..., Any], place: int | str) -> bool:
    """Whether a floating-point tensor at this position, or of this name, is what the function computes with.

    Example:
        >>> is_operand(F.batch_norm, 0), is_operand(F.batch_norm, 1), is_operand(F.batch_norm, "running_var")
        (True, False, False)
    """
    return place not in _NAMES if isinstance(place, str) else place not in _POSITIONS.get(function, ())


def is_activation(function: Callable[..., Any], place: int | str, value: object) -> bool:
    """Whether an argument is what a format of `data_in` rounds: a floating-point operand that is no parameter.

    Example:
        >>> x, weight = torch.zeros(1, 2), torch.nn.Parameter(torch.zeros(2, 2))
        >>> is_activation(F.linear, 0, x), is_activation(F.linear, 1, weight)
        (True, False)
    """
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and not isinstance(value, nn.Parameter)
        and is_operand(function, place)
    )


def is_written(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call writes its result into its first argument: `relu_`, `x += y`, `inplace=True`.

    Example:
        >>> x = torch.zeros(1)
        >>> is_written(torch.relu_, (x,), {}), is_written(F.relu, (x,), {"inplace": True}), is_written(F.relu, (x,), {})
        (True, True, False)
    """
    if _writes_by_name(function):
        return True
    if "inplace" in kwargs:
        return bool(kwargs["inplace"])
    at = _inplace_position(function)
    return at is not None and len(args) > at and bool(args[at])


@cache
def _writes_by_name(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__name__", "")
    if name.startswith("__"):
        return name in _WRITING_OPERATORS
    return name.endswith("_") and not name.endswith("__")


_WRITING_OPERATORS = frozenset(
    f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
)


@cache
def _inplace_position(function: Callable[..., Any]) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin: none of them takes `inplace`
        return None
    return names.index("inplace") if "inplace" in names else None
