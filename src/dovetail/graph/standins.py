"""Size-generic stand-ins: the same call with sizes read off its tensors where the model has them as Python numbers.

A number such as `groups` or `normalized_shape` would pin the sizes of the tensors to itself while tracing. The values
are equal in the model as it is, so the result of the call is too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["stand_in"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def stand_in(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The arguments to trace a call with.

    Args:
        function: normalised name of the function.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    match function:
        case "conv1d" | "conv2d" | "conv3d":
            return _convolution(args, kwargs)
        case "layer_norm" | "rms_norm":
            return _normalisation(args, kwargs)
        case _:
            return args, kwargs


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """A depthwise convolution has as many groups as its input has channels."""
    if len(args) < 7 and "groups" not in kwargs:
        return args, kwargs
    x, weight = args[:2] if len(args) > 1 else (kwargs.get("input"), kwargs.get("weight"))
    groups = args[6] if len(args) > 6 else kwargs["groups"]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or groups == 1:
        return args, kwargs
    channels = x.shape[-weight.ndim + 1]
    if groups != _hint(channels):
        torch._check(channels == groups * weight.shape[1])
        return args, kwargs
    torch._check(weight.shape[0] == channels * (_hint(weight.shape[0]) // groups))
    return (*args[:6], channels), {k: v for k, v in kwargs.items() if k != "groups"}


def _normalisation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """A normalised shape is the last sizes of what is normalised."""
    if len(args) < 2:
        return args, kwargs
    x, shape = args[:2]
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return (x, tuple(x.shape[-len(shape) :]), *args[2:]), kwargs


def _hint(size: int | torch.SymInt) -> int:
    return size.node.hint if isinstance(size, torch.SymInt) else size
