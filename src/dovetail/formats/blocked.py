"""Formats whose elements share a scale in blocks: what they have in common, and how they are rounded."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.formats import fused
from dovetail.formats.base import Format
from dovetail.formats.blocks import Blocks
from dovetail.formats.carrier import Kernel, is_plain, piece_size, takes_loops, work_dtype
from dovetail.formats.logarithmic import LogKernel

__all__ = ["SCALE_HIGH", "SCALE_LOW", "BlockKernel", "Blocked", "ElementKernel", "SharedPower"]

SCALE_LOW, SCALE_HIGH = -127, 127
"""Exponents of scales that float32 can both multiply and divide by; shared exponents are limited to them."""

_LOOP_PIECE = 1 << 21
"""Elements at a time for each thread where a loop rounds them, which passes twice."""


class ElementKernel(Kernel, Protocol):
    """Rounds elements after their scale is taken off."""

    def values(self) -> NDArray[np.float64]:
        """What it rounds to, ascending."""


class BlockKernel(Protocol):
    """`scale * element(x / scale)`, with a scale that follows from the largest magnitude of a block."""

    @property
    def element(self) -> ElementKernel:
        """Rounds x / scale."""

    @property
    def is_power(self) -> bool:
        """Whether scales are powers of two: then dividing by one is multiplying by its inverse, to the bit."""

    def scale(self, amax: Tensor, ceiling: float) -> Tensor:
        """The scales of blocks with these largest magnitudes; NaN for NaN.

        The ceiling is the largest number the result's dtype holds: scales must not exceed what it can carry.
        """


class Blocked(Format):
    """A format with one scale for each block. Children have a field `blocks`."""

    __slots__ = ()

    blocks: Blocks

    @property
    @abstractmethod
    def scale_bits(self) -> int:
        """Bits of a block's scale."""

    @property
    @abstractmethod
    def kernel(self) -> BlockKernel:
        """What rounds blocks.

        Raises:
            FormatError: the format waits for calibration.
        """

    @property
    def bits(self) -> float:
        return self.element_bits + (self.scale_bits / self.block_size if self.blocks.is_sized else 0.0)

    @property
    def block_size(self) -> int:
        return self.blocks.size

    @property
    def minimum(self) -> float:
        return -self.maximum

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        return Format.storage_bits(self, shape) + self.blocks.count(shape) * self.scale_bits

    def element_values(self) -> NDArray[np.float64]:
        return self.kernel.element.values()

    def quantise(self, x: Tensor) -> Tensor:
        return _round_blocks(x.detach(), self.blocks, self.kernel, in_place=False)

    def quantise_(self, x: Tensor) -> Tensor:
        return _round_blocks(x.detach(), self.blocks, self.kernel, in_place=True)


@final
@dataclass(frozen=True, slots=True)
class SharedPower:
    """Blocks under a power of two: that below (or nearest to) the largest magnitude, times 2**shift.

    Args:
        low: exponent of the smallest scale.
        high: exponent of the largest.
        shift: usually minus the exponent of the largest element value.
        element: rounds what the scale leaves.
        is_nearest: whether it is the nearest power.
    """

    low: int
    high: int
    shift: int
    element: ElementKernel
    is_nearest: bool = False

    @property
    def is_power(self) -> bool:
        return True

    def scale(self, amax: Tensor, ceiling: float) -> Tensor:
        low = max(self.low, SCALE_LOW) - self.shift
        high = min(min(self.high, SCALE_HIGH) - self.shift, math.frexp(ceiling)[1] - 1)
        power = LogKernel(low, high)(amax) if self.is_nearest else _power_of_two_below(amax, low, high)
        return power.mul_(2.0**self.shift)


def _round_blocks(x: Tensor, blocks: Blocks, kernel: BlockKernel, *, in_place: bool) -> Tensor:
    work = work_dtype(x)
    ceiling = torch.finfo(x.dtype).max
    if x.numel() == 0:
        return x if in_place else x.clone()
    rows, is_copy, restore = blocks.rows(x)
    if not is_plain(rows):
        rounded = _round_rows(rows.to(work), kernel, ceiling)
        return restore(rounded if x.dtype is work else rounded.clamp(-ceiling, ceiling).to(x.dtype))
    out = rows if in_place or is_copy else torch.empty_like(rows)
    loop = kernel.element.loop(work) if takes_loops(rows) else None
    at_once = piece_size(x) if loop is None or x.dtype is not work else _LOOP_PIECE * torch.get_num_threads()
    piece = max(at_once // rows.shape[1], 1)
    for part, target in zip(torch.split(rows, piece), torch.split(out, piece), strict=True):
        if x.dtype is work:
            _round_rows(part, kernel, ceiling, target, loop)
        else:
            wide = part.to(work)
            target.copy_(_round_rows(wide, kernel, ceiling, wide, loop).clamp_(-ceiling, ceiling))
    return restore(out)


def _round_rows(
    x: Tensor, kernel: BlockKernel, ceiling: float, out: Tensor | None = None, loop: fused.Loop | None = None
) -> Tensor:
    """Round a matrix whose rows are the blocks, into `out` when given one, which may be x."""
    scale = kernel.scale(_largest_magnitude(x, by_loop=loop is not None).clamp(max=ceiling), ceiling)
    if kernel.is_power:
        # Where subnormals are flushed, 1 / 2**SCALE_LOW would be infinite, and a block of zeros NaN.
        factor = scale.reciprocal().clamp(max=2.0**-SCALE_LOW)
    else:
        factor = scale.clamp(min=torch.finfo(x.dtype).smallest_normal)  # makes 0, not NaN
    if loop is None:
        return torch.mul(kernel.element(x * factor if kernel.is_power else x / factor, out), scale, out=out)
    out = torch.empty_like(x) if out is None else out
    fused.run(loop, x, out, size=x.shape[1], factor=factor, scale=scale, divides=not kernel.is_power)
    return out


def _largest_magnitude(x: Tensor, *, by_loop: bool) -> Tensor:
    """max |x| of each row, as a column; NaN where one is NaN.

    Without their sign, floats sort as the integers of their bits do, NaN last: that maximum is the faster one.
    """
    integer, _, magnitude = _EXPONENT_BITS[x.dtype]
    if not by_loop:
        return torch.bitwise_and(x.view(integer), magnitude).amax(1, keepdim=True).view(x.dtype)
    bits = torch.empty((len(x), 1), dtype=integer)
    fused.largest_magnitude_bits(x, bits)
    return bits.view(x.dtype)


def _power_of_two_below(amax: Tensor, low: int, high: int) -> Tensor:
    """`2**floor(log2(amax))`, exactly, for amax >= 0, limited to 2**low .. 2**high; NaN stays NaN."""
    integer, mask, _ = _EXPONENT_BITS[amax.dtype]
    high = min(high, math.frexp(torch.finfo(amax.dtype).max)[1] - 1)
    power = torch.bitwise_and(amax.view(integer), mask).view(amax.dtype)
    return power.clamp(math.ldexp(1.0, low), math.ldexp(1.0, high)) + amax.clamp(max=1.0) * 0.0


_EXPONENT_BITS = {
    torch.float32: (torch.int32, 0x7F800000, 0x7FFFFFFF),
    torch.float64: (torch.int64, 0x7FF0000000000000, 0x7FFFFFFFFFFFFFFF),
}
