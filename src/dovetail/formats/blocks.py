"""Dividing a tensor into blocks that share a scale: the layout, its text and its storage."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.arguments import Arguments
from dovetail.formats.carrier import is_worth_splitting, work_dtype

__all__ = ["WHOLE", "Blocks", "largest_magnitude", "power_of_two_below", "round_blocks"]

WHOLE = -1
"""A block size that means the whole dimension."""

BlockKernel = Callable[[Tensor, tuple[int, ...], float, Tensor | None], Tensor]
"""(x, dims, ceiling, out): rounds a tensor whose blocks lie along dims, into `out` when given one.

The ceiling is the largest number the result's dtype holds: scales must not exceed what it can carry.
"""

_PIECE = 1 << 18


@final
@dataclass(frozen=True, slots=True)
class Blocks:
    """Which elements share a scale.

    The sizes belong to consecutive dimensions of which `axis` is the last: (1, 16) at axis -1 takes 16 neighbours of
    a row. The last block of a dimension may be partial. A tensor with fewer dimensions uses the rightmost sizes, at
    its last dimension where it has no such axis; a 0-d tensor is one block.

    Args:
        shape: block size of each of those dimensions; WHOLE (-1) for all of it.
        axis: the dimension of the last size.

    Raises:
        FormatError: a size is neither positive nor WHOLE, or there is none.
    """

    shape: tuple[int, ...]
    axis: int = -1

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 and size != WHOLE for size in self.shape):
            raise FormatError(f"block: sizes must be positive, or all for a whole dimension, got {self}.")

    @property
    def size(self) -> int:
        """Elements of a full block; a WHOLE dimension counts as 1, as its size is not known here."""
        return math.prod(size for size in self.shape if size != WHOLE)

    @property
    def is_sized(self) -> bool:
        """Whether the number of elements in a full block is known without the tensor."""
        return WHOLE not in self.shape

    def dims(self, ndim: int) -> tuple[tuple[int, int], ...]:
        """(dimension, block size) for a tensor of `ndim` > 0 dimensions."""
        last = self.axis if -ndim <= self.axis < ndim else -1
        last %= ndim
        sizes = self.shape[-(last + 1) :]
        first = last + 1 - len(sizes)
        return tuple((first + offset, size) for offset, size in enumerate(sizes))

    def count(self, shape: Sequence[Any]) -> Any:
        """How many blocks a tensor has; partial ones count. Sizes may be ints or int64 arrays."""
        if not shape:
            return 1
        blocked = dict(self.dims(len(shape)))
        count: Any = 1
        for dim, size in enumerate(shape):
            block = blocked.get(dim, 1)
            count = count * ((size > 0) * 1 if block == WHOLE else -(-size // block))
        return count

    def text(self, default: Blocks) -> str:
        """The arguments that state what differs from the default, each with a leading comma."""
        sizes = "" if self.shape == default.shape else f",block={self}"
        return sizes + ("" if self.axis == default.axis else f",axis={self.axis}")

    def __str__(self) -> str:
        return "x".join("all" if size == WHOLE else str(size) for size in self.shape)

    @staticmethod
    def read(args: Arguments, default: Blocks) -> Blocks:
        """The blocks that a format's arguments state."""
        given = args.keyed("block")
        shape = default.shape
        if given is not None:
            if not re.fullmatch(r"(\d+|all)(x(\d+|all))*", given):
                raise FormatError(f"format {args.text!r}: block must look like 32, 1x16 or all, got {given!r}.")
            shape = tuple(WHOLE if size == "all" else int(size) for size in given.split("x"))
        return Blocks(shape, args.keyed_integer("axis", default.axis))


def round_blocks(x: Tensor, blocks: Blocks, kernel: BlockKernel) -> Tensor:
    """Apply a block kernel: x is padded with zeros to full blocks, divided, rounded and put together again.

    The kernel gets the tensor with each blocked dimension split in two, (blocks, block), and the numbers of the
    second ones: the dimensions to reduce over.
    """
    x = x.detach()
    work = work_dtype(x)
    ceiling = torch.finfo(x.dtype).max
    if x.numel() == 0:
        return x.clone()
    if x.ndim == 0:
        return kernel(x.to(work).reshape(1), (0,), ceiling, None).reshape(()).clamp(-ceiling, ceiling).to(x.dtype)
    dims = blocks.dims(x.ndim)
    if _is_row_of_blocks(x, dims):
        return _round_rows(x, dims[-1][1], kernel, work)
    padding = [0] * (2 * x.ndim)
    split: list[int] = []
    reduced: list[int] = []
    blocked = dict(dims)
    for dim, size in enumerate(x.shape):
        block = blocked.get(dim, 1)
        block = size if block == WHOLE else block
        pad = -size % block
        padding[2 * (x.ndim - 1 - dim) + 1] = pad
        if dim in blocked:
            reduced.append(len(split) + 1)
            split += [(size + pad) // block, block]
        else:
            split.append(size)
    padded = F.pad(x.to(work), padding) if any(padding) else x.to(work)
    rounded = kernel(padded.reshape(split), tuple(reduced), ceiling, None).reshape(padded.shape)
    if any(padding):
        rounded = rounded[tuple(slice(size) for size in x.shape)].contiguous()
    return rounded if x.dtype is work else rounded.clamp(-ceiling, ceiling).to(x.dtype)


def _is_row_of_blocks(x: Tensor, dims: tuple[tuple[int, int], ...]) -> bool:
    """Whether x, flattened, is a row of full blocks: contiguous, and blocks of a divisor of the last dimension."""
    (dim, size), outer = dims[-1], dims[:-1]
    return (
        dim == x.ndim - 1
        and size != WHOLE
        and all(block == 1 for _, block in outer)
        and x.shape[-1] % size == 0
        and is_worth_splitting(x)
    )


def _round_rows(x: Tensor, size: int, kernel: BlockKernel, work: torch.dtype) -> Tensor:
    """Large tensors: a piece of whole blocks at a time, which stays in cache through the kernel's passes."""
    out = torch.empty_like(x)
    ceiling = torch.finfo(x.dtype).max
    piece = max(_PIECE // size, 1)
    for part, target in zip(torch.split(x.view(-1, size), piece), torch.split(out.view(-1, size), piece), strict=True):
        if x.dtype is work:
            kernel(part, (1,), ceiling, target)
        else:
            target.copy_(kernel(part.to(work), (1,), ceiling, None).clamp(-ceiling, ceiling))
    return out


def largest_magnitude(x: Tensor, dims: tuple[int, ...], ceiling: float) -> Tensor:
    """max |x| over the dimensions, kept with size 1, at most the ceiling; NaN where one is NaN.

    Without their sign, floats sort as the integers of their bits do, NaN last: that maximum is the faster one.
    """
    integer, _, magnitude = _EXPONENT_BITS[x.dtype]
    return torch.bitwise_and(x.view(integer), magnitude).amax(dims, keepdim=True).view(x.dtype).clamp(max=ceiling)


def power_of_two_below(amax: Tensor, low: int, high: int) -> Tensor:
    """`2**floor(log2(amax))`, exactly, for amax >= 0, limited to 2**low .. 2**high; NaN stays NaN."""
    integer, mask, _ = _EXPONENT_BITS[amax.dtype]
    high = min(high, math.frexp(torch.finfo(amax.dtype).max)[1] - 1)
    power = torch.bitwise_and(amax.view(integer), mask).view(amax.dtype)
    return power.clamp(math.ldexp(1.0, low), math.ldexp(1.0, high)) + amax.clamp(max=1.0) * 0.0


_EXPONENT_BITS = {
    torch.float32: (torch.int32, 0x7F800000, 0x7FFFFFFF),
    torch.float64: (torch.int64, 0x7FF0000000000000, 0x7FFFFFFFFFFFFFFF),
}
