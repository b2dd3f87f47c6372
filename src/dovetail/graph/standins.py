"""Size-generic stand-ins: the same call with sizes read off its tensors where the model has them as Python numbers.

A number such as `groups` or `normalized_shape` would pin the sizes of the tensors to itself while tracing. The values
are equal in the model as it is, so the result of the call is too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dovetail.graph.heads import hint, unify

__all__ = ["stand_in"]

Size = int | torch.SymInt
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def stand_in(
    function: str, args: tuple[Any, ...], kwargs: dict[str, Any], heads: Sequence[tuple[Size, Size]]
) -> Arguments:
    """The arguments to trace a call with.

    Args:
        function: normalised name of the function.
        args: its arguments.
        kwargs: its keyword arguments.
        heads: (number, width) of heads that the module which makes the call may mean; most likely first.
    """
    match function:
        case "conv1d" | "conv2d" | "conv3d":
            return _convolution(args, kwargs)
        case "layer_norm" | "rms_norm":
            return _normalisation(args, kwargs)
        case "view" | "reshape":
            return _view(args, heads), kwargs
        case "multi_head_attention_forward":
            number = heads[0][0] if heads else args[4]
            return (*args[:3], args[0].shape[-1], number, *args[5:]), kwargs
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
    channels = x.shape[1 - weight.ndim]
    if groups != hint(channels):
        unify(channels, groups * weight.shape[1])
        return args, kwargs
    unify(weight.shape[0], channels * (hint(weight.shape[0]) // groups))
    return (*args[:6], channels), {k: v for k, v in kwargs.items() if k != "groups"}


def _normalisation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """A normalised shape is the last sizes of what is normalised."""
    if len(args) < 2:
        return args, kwargs
    x, shape = args[:2]
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return (x, tuple(x.shape[-len(shape) :]), *args[2:]), kwargs


def _view(args: tuple[Any, ...], heads: Sequence[tuple[Size, Size]]) -> tuple[Any, ...]:
    """A view of the last dimension as heads makes it the product of their number and width."""
    x, *sizes = args
    sizes = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    if len(sizes) < 2 or not isinstance(x, Tensor) or not _is_symbolic(x.shape[-1]):
        return args
    total = hint(x.shape[-1])
    for number, width in heads:
        if hint(sizes[-1]) == hint(width) and sizes[-2] in (-1,) and hint(number) * hint(width) == total:
            unify(x.shape[-1], number * width)
            return (x, (*sizes[:-2], number, width))
    for count in range(2, min(4, len(sizes)) + 1):
        tail = sizes[-count:]
        symbolic = any(_is_symbolic(size) for size in tail)
        if symbolic and all(hint(size) > 0 for size in tail) and math.prod(hint(size) for size in tail) == total:
            unify(x.shape[-1], math.prod(tail))
            return args
    return args


def _is_symbolic(size: object) -> bool:
    return isinstance(size, torch.SymInt)
