"""Blocks of elements under a shared exponent: block floating point, block minifloat and block logarithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.blocks import Blocks, largest_magnitude, power_of_two_below, round_blocks
from dovetail.formats.fixed import FixedKernel
from dovetail.formats.grid import FloatKernel
from dovetail.formats.logarithmic import LogKernel
from dovetail.formats.minifloat import Top, float_grid

__all__ = ["DEFAULT_BLOCKS", "BlockFloat", "BlockLogarithmic", "BlockMinifloat"]

DEFAULT_BLOCKS = Blocks((16,), -1)
"""16 elements of the last dimension."""

_SCALE_LOW, _SCALE_HIGH = -127, 127
"""Exponents of scales that float32 can both multiply and divide by; shared exponents are limited to them."""


@final
@dataclass(frozen=True, slots=True)
class BlockFloat(Format):
    """Block floating point: sign-magnitude integers under one exponent for each block.

    value = 2**e * m / 2**(width - 1), |m| < 2**(width - 1), with e = floor(log2(max |x| of the block)) + 1 limited to
    the exponent field's range, -exponent_bias to 2**exponent_width - 1 - exponent_bias. Rounding is to nearest, ties to
    even, saturating.

    A NaN makes its whole block NaN; an infinity counts as the largest finite number of the carrier; the sign of a zero
    carries no meaning; there are no subnormals: the grid of a block is uniform.

    Source: Darvish Rouhani et al. 2020, Pushing the limits of narrow precision inferencing at cloud scale with
    Microsoft floating point, NeurIPS 33.

    Args:
        width: bits of an element, sign included, 2 to 16.
        exponent_width: bits of the shared exponent, 1 to 8.
        exponent_bias: usually 2**(exponent_width - 1) - 1.
        blocks: 16 elements of the last dimension unless stated.

    Example:
        >>> BlockFloat(4, 8, 127).quantise(torch.tensor([0.3, 1.0, 3.0]))
        tensor([0.5000, 1.0000, 3.0000])
    """

    width: int
    exponent_width: int
    exponent_bias: int
    blocks: Blocks = DEFAULT_BLOCKS

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 16:
            raise FormatError(f"block_fp: width must be between 2 and 16, got {self.width}.")
        if not 1 <= self.exponent_width <= 8:
            raise FormatError(f"block_fp: exponent_width must be between 1 and 8, got {self.exponent_width}.")
        _check_exponents(self, *self._exponents)

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def bits(self) -> float:
        return _bits(self, self.exponent_width, self.blocks)

    @property
    def block_size(self) -> int:
        return self.blocks.size

    @property
    def maximum(self) -> float:
        return 2.0 ** self._exponents[1] * (1 - 2.0 ** (1 - self.width))

    @property
    def minimum(self) -> float:
        return -self.maximum

    @property
    def step(self) -> float:
        return 2.0 ** (self._exponents[0] + 1 - self.width)

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        return Format.storage_bits(self, shape) + self.blocks.count(shape) * self.exponent_width

    def quantise(self, x: Tensor) -> Tensor:
        return round_blocks(x, self.blocks, self._round)

    def _round(self, x: Tensor, dims: tuple[int, ...], ceiling: float, out: Tensor | None) -> Tensor:
        low, high = self._exponents
        magnitude_bits = self.width - 1
        # The scale is that of a whole step, 2**(e - magnitude_bits); amax lies in [2**(e-1), 2**e).
        shift = 1 - magnitude_bits
        scale = _scale(x, dims, ceiling, low - magnitude_bits, high - magnitude_bits, shift)
        largest = 2.0**magnitude_bits - 1
        integers = FixedKernel(-largest, largest, 1.0)(x * scale.reciprocal(), out)
        return torch.mul(integers, scale, out=out)

    @property
    def _exponents(self) -> tuple[int, int]:
        return -self.exponent_bias, 2**self.exponent_width - 1 - self.exponent_bias

    def __str__(self) -> str:
        blocks = self.blocks.text(DEFAULT_BLOCKS)
        return f"block_fp({self.width},{self.exponent_width},{self.exponent_bias}{blocks})"


@final
@dataclass(frozen=True, slots=True)
class BlockMinifloat(Format):
    """Minifloats (implicit bit, subnormals) whose exponent bias is shared by a block.

    The bias, a two's complement number of exponent_bias_width bits counted from the usual 2**(exponent_width - 1) - 1,
    is the one that brings the exponent of the block's largest magnitude to the largest of the element format. Elements
    are rounded as `minifloat_ieee(width, exponent_width, bias)` does: to nearest, ties to even, saturating.

    A NaN makes its whole block NaN; an infinity counts as the largest finite number of the carrier; the sign of a
    zero carries no meaning; subnormals are rounded to.

    Source: Fox et al. 2021, A block minifloat representation for training deep neural networks, ICLR.

    Args:
        width: bits of an element: 1 + exponent_width + fraction, at most 16.
        exponent_width: 2 to 7.
        exponent_bias_width: bits of the shared bias, 1 to 8.
        blocks: 16 elements of the last dimension unless stated.
    """

    width: int
    exponent_width: int
    exponent_bias_width: int
    blocks: Blocks = DEFAULT_BLOCKS

    def __post_init__(self) -> None:
        if not 2 <= self.exponent_width <= 7:
            raise FormatError(f"block_minifloat: exponent_width must be between 2 and 7, got {self.exponent_width}.")
        if not 1 + self.exponent_width <= self.width <= 16:
            raise FormatError(
                f"block_minifloat: width must be between {1 + self.exponent_width} (sign and exponent) and 16, "
                f"got {self.width}."
            )
        _check_bias_width(self, self.exponent_bias_width)

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def bits(self) -> float:
        return _bits(self, self.exponent_bias_width, self.blocks)

    @property
    def block_size(self) -> int:
        return self.blocks.size

    @property
    def maximum(self) -> float:
        return self._kernel.maximum * 2.0 ** _bias_range(self.exponent_bias_width)[1]

    @property
    def minimum(self) -> float:
        return -self.maximum

    @property
    def step(self) -> float:
        return self._kernel.grid.step * 2.0 ** _bias_range(self.exponent_bias_width)[0]

    @property
    def is_float(self) -> bool:
        return True

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        return Format.storage_bits(self, shape) + self.blocks.count(shape) * self.exponent_bias_width

    def quantise(self, x: Tensor) -> Tensor:
        return round_blocks(x, self.blocks, self._round)

    def _round(self, x: Tensor, dims: tuple[int, ...], ceiling: float, out: Tensor | None) -> Tensor:
        low, high = _bias_range(self.exponent_bias_width)
        scale = _scale(x, dims, ceiling, low, high, -self._kernel.grid.emax)
        return torch.mul(self._kernel(x * scale.reciprocal(), out), scale, out=out)

    @property
    def _kernel(self) -> FloatKernel:
        bias = 2 ** (self.exponent_width - 1) - 1
        grid = float_grid(self.exponent_width, self.width - 1 - self.exponent_width, bias, Top.RESERVED)
        return FloatKernel(grid, grid.maximum, signs_zero=False)

    def __str__(self) -> str:
        blocks = self.blocks.text(DEFAULT_BLOCKS)
        return f"block_minifloat({self.width},{self.exponent_width},{self.exponent_bias_width}{blocks})"


@final
@dataclass(frozen=True, slots=True)
class BlockLogarithmic(Format):
    """Signed powers of two whose exponent bias is shared by a block.

    The bias, a two's complement number of exponent_bias_width bits counted from the usual 2**(width - 2) - 1, is the
    one that makes the block's largest magnitude, rounded, the largest power. Elements are rounded as
    `log(width, bias)` does: to nearest in the logarithm, without a zero.

    A NaN makes its whole block NaN; an infinity counts as the largest finite number of the carrier; zero becomes the
    block's smallest power.

    Args:
        width: bits of an element, sign included, 2 to 7.
        exponent_bias_width: bits of the shared bias, 1 to 8.
        blocks: 16 elements of the last dimension unless stated.
    """

    width: int
    exponent_bias_width: int
    blocks: Blocks = DEFAULT_BLOCKS

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 7:
            raise FormatError(f"block_log: width must be between 2 and 7, got {self.width}.")
        _check_bias_width(self, self.exponent_bias_width)

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def bits(self) -> float:
        return _bits(self, self.exponent_bias_width, self.blocks)

    @property
    def block_size(self) -> int:
        return self.blocks.size

    @property
    def maximum(self) -> float:
        return 2.0 ** (self._kernel.emax + _bias_range(self.exponent_bias_width)[1])

    @property
    def minimum(self) -> float:
        return -self.maximum

    @property
    def step(self) -> float:
        return 2.0 ** (self._kernel.emin + _bias_range(self.exponent_bias_width)[0])

    @property
    def is_float(self) -> bool:
        return True

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        return Format.storage_bits(self, shape) + self.blocks.count(shape) * self.exponent_bias_width

    def quantise(self, x: Tensor) -> Tensor:
        return round_blocks(x, self.blocks, self._round)

    def _round(self, x: Tensor, dims: tuple[int, ...], ceiling: float, out: Tensor | None) -> Tensor:
        low, high = _bias_range(self.exponent_bias_width)
        scale = _scale(x, dims, ceiling, low, high, -self._kernel.emax, nearest=True)
        return torch.mul(self._kernel(x * scale.reciprocal(), out), scale, out=out)

    @property
    def _kernel(self) -> LogKernel:
        bias = 2 ** (self.width - 2) - 1
        return LogKernel(-bias, 2 ** (self.width - 1) - 1 - bias)

    def __str__(self) -> str:
        return f"block_log({self.width},{self.exponent_bias_width}{self.blocks.text(DEFAULT_BLOCKS)})"


def _scale(
    x: Tensor, dims: tuple[int, ...], ceiling: float, low: int, high: int, shift: int, *, nearest: bool = False
) -> Tensor:
    """The power of two below (or nearest to) max |x| of each block, times 2**shift, limited to 2**low .. 2**high."""
    amax = largest_magnitude(x, dims, ceiling)
    low = max(low, _SCALE_LOW) - shift
    high = min(min(high, _SCALE_HIGH) - shift, math.frexp(ceiling)[1] - 1)
    power = LogKernel(low, high)(amax) if nearest else power_of_two_below(amax, low, high)
    return power.mul_(2.0**shift)


def _bias_range(width: int) -> tuple[int, int]:
    """The exponents of scales that a shared bias of so many bits can state; float32 sets the outermost."""
    return max(1 - 2 ** (width - 1), _SCALE_LOW), min(2 ** (width - 1), _SCALE_HIGH)


def _bits(fmt: Format, shared: int, blocks: Blocks) -> float:
    return fmt.element_bits + (shared / blocks.size if blocks.is_sized else 0.0)


def _check_bias_width(fmt: Format, width: int) -> None:
    if not 1 <= width <= 8:
        raise FormatError(f"{fmt}: exponent_bias_width must be between 1 and 8, got {width}.")


def _check_exponents(fmt: Format, low: int, high: int) -> None:
    if low < -512 or high > 512:
        raise FormatError(f"{fmt}: its shared exponents {low} to {high} must lie within -512 to 512.")
