"""How much each channel of a width group matters: what shrinking keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import ResizeError, unknown_name
from dovetail.loading import is_callable_name, load_callable, with_installed
from dovetail.transforms.propagate import Channels

__all__ = ["IMPORTANCE", "Importance", "Part", "find_importance", "kept_channels"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A tensor dimension that carries the channels of a group.

    Args:
        name: the parameter or buffer.
        tensor: its values.
        dim: which of its dimensions.
        channels: for each element of that dimension its channel, -1 for none.
        is_producer: whether the tensor makes the channels (weights of a linear layer along its outputs), rather than
            reads them.
    """

    name: str
    tensor: Tensor
    dim: int
    channels: NDArray[np.int64]
    is_producer: bool


Importance = Callable[[tuple[Part, ...], int, np.random.Generator], NDArray[np.float64]]
"""`importance(parts, width, generator) -> float64[width]`: larger matters more. Pure but for the generator."""


def _norms(parts: tuple[Part, ...], width: int, power: int) -> NDArray[np.float64]:
    """Per channel, the sum of |w|**power over the producers' weights; over all parameters where a group has no such
    weights."""
    chosen = (
        [p for p in parts if p.is_producer and p.tensor.ndim > 1] or [p for p in parts if p.is_producer] or list(parts)
    )
    total = np.zeros(width)
    for part in chosen:
        moved = part.tensor.detach().to(torch.float64).abs().pow(power).movedim(part.dim, 0)
        _add(total, part.channels, moved.reshape(moved.shape[0], -1).sum(1).cpu().numpy())
    return total


def _add(total: NDArray[np.float64], channels: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    member = channels >= 0
    np.add.at(total, channels[member], values[member])


def l1(parts: tuple[Part, ...], width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Sum of |w| over the weights that produce the channel (Li et al. 2017, arXiv:1608.08710)."""
    return _norms(parts, width, 1)


def l2(parts: tuple[Part, ...], width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Root of the sum of w**2 over the weights that produce the channel."""
    return np.sqrt(_norms(parts, width, 2))


def bn_scale(parts: tuple[Part, ...], width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Sum of |gamma| over the normalisation scales of the channel (Liu et al. 2017, arXiv:1708.06519); l1 where there
    is none."""
    scales = [p for p in parts if p.tensor.ndim == 1 and p.name.rpartition(".")[2] == "weight"]
    if not scales:
        return l1(parts, width, generator)
    total = np.zeros(width)
    for part in scales:
        _add(total, part.channels, part.tensor.detach().to(torch.float64).abs().cpu().numpy())
    return total


def random(parts: tuple[Part, ...], width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Uniform random numbers: the baseline that the others should beat."""
    return generator.random(width)


IMPORTANCE: dict[str, Importance] = {"l1": l1, "l2": l2, "bn_scale": bn_scale, "random": random}
"""Name -> ranking of a group's channels."""


@cache
def _joined() -> Mapping[str, Importance]:
    return with_installed(IMPORTANCE, "dovetail.importance")


def find_importance(importance: str | Importance) -> Importance:
    """The ranking of a name, outside packages' included, or the callable itself.

    Raises:
        ResizeError: No ranking has this name.
        ConfigError: `"module:callable"` or `"file.py:callable"` does not lead to one.
    """
    if callable(importance):
        return importance
    if is_callable_name(importance):
        return load_callable(importance, where="importance")
    if importance not in _joined():
        raise ResizeError(f"importance: {unknown_name('ranking', importance, _joined())}")
    return _joined()[importance]


def kept_channels(
    channels: Channels,
    tensors: Mapping[str, Tensor],
    symbol: sympy.Symbol,
    widths: Mapping[sympy.Symbol, int],
    count: int,
    importance: Importance,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """The channels of a group that matter most, in ascending order; of two that matter equally, the first.

    Args:
        channels: how the tensors are made of channels.
        tensors: parameters and buffers of the model as it is.
        symbol: the group's symbol.
        widths: width of each symbol in the model as it is.
        count: how many channels to keep.
        importance: the ranking.
        generator: for rankings that draw.

    Raises:
        ResizeError: The ranking gives another shape than one finite number per channel.
    """
    parts = tuple(
        Part(name, tensors[name], dim, layout.channels(symbol, widths), (name, dim) not in channels.contracted)
        for name, layouts in channels.layouts.items()
        if name in tensors and tensors[name].is_floating_point()
        for dim, layout in enumerate(layouts)
        if symbol in layout.symbols
    )
    scores = np.asarray(importance(parts, widths[symbol], generator), np.float64)
    if scores.shape != (widths[symbol],) or np.isnan(scores).any():
        raise ResizeError(
            f"importance of group {symbol}: must be one number per channel, {widths[symbol]} in all, "
            f"got shape {scores.shape}{' with NaN' if np.isnan(scores).any() else ''}."
        )
    return np.sort(np.argsort(-scores, kind="stable")[:count]).astype(np.int64)
