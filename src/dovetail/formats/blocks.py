"""Dividing a tensor into blocks that share a scale: the layout, its text, its storage, and the blocks as rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.arguments import Arguments

__all__ = ["WHOLE", "Blocks"]

WHOLE = -1
"""A block size that means the whole dimension."""


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

    def rows(self, x: Tensor) -> tuple[Tensor, bool, Callable[[Tensor], Tensor]]:
        """The blocks of a tensor with elements, one below the other; partial ones are filled up with zeros.

        Returns:
            A contiguous matrix of (blocks, elements); whether it is a copy (else it is x itself in another shape); and
            what brings a matrix like it back to the shape of x.
        """
        dims = self.dims(x.ndim) if x.ndim else ()
        sizes = {dim: x.shape[dim] if size == WHOLE else size for dim, size in dims}
        padding = [-x.shape[dim] % sizes.get(dim, 1) for dim in range(x.ndim)]
        padded = F.pad(x, [each for pad in reversed(padding) for each in (0, pad)]) if any(padding) else x
        split = [
            part for dim, size in enumerate(padded.shape) for part in (size // sizes.get(dim, 1), sizes.get(dim, 1))
        ]
        order = [*range(0, 2 * x.ndim, 2), *range(1, 2 * x.ndim, 2)]
        moved = padded.reshape(split).permute(order)
        is_copy = any(padding) or not moved.is_contiguous()
        shape, apart, whole = x.shape, moved.shape, padded.shape  # the tensors themselves need not outlive the rows

        def restore(rows: Tensor) -> Tensor:
            back = rows.reshape(apart).permute([order.index(dim) for dim in range(len(order))]).reshape(whole)
            return back[tuple(slice(size) for size in shape)].contiguous() if any(padding) else back

        return moved.reshape(-1, math.prod(sizes.values())).contiguous(), is_copy, restore

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
