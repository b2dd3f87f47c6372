"""Blocks of elements under a shared exponent: block floating point, block minifloat and block logarithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.blocked import SCALE_HIGH, SCALE_LOW, Blocked, SharedPower
from dovetail.formats.blocks import Blocks
from dovetail.formats.fixed import FixedKernel
from dovetail.formats.grid import FloatKernel
from dovetail.formats.logarithmic import LogKernel
from dovetail.formats.minifloat import Top, float_grid

__all__ = ["DEFAULT_BLOCKS", "BlockFloat", "BlockLogarithmic", "BlockMinifloat"]

DEFAULT_BLOCKS = Blocks((16,), -1)
"""16 elements of the last dimension."""


@final
@dataclass(frozen=True, slots=True)
class BlockFloat(Blocked):
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
        >>> import torch
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
    def scale_bits(self) -> int:
        return self.exponent_width

    @property
    def kernel(self) -> SharedPower:
        low, high = self._exponents
        magnitude_bits = self.width - 1
        largest = 2.0**magnitude_bits - 1
        # The scale is that of a whole step, 2**(e - magnitude_bits); the largest magnitude lies in [2**(e-1), 2**e).
        elements = FixedKernel(-largest, largest, 1.0)
        return SharedPower(low - magnitude_bits, high - magnitude_bits, 1 - magnitude_bits, elements)

    @property
    def maximum(self) -> float:
        return 2.0 ** self._exponents[1] * (1 - 2.0 ** (1 - self.width))

    @property
    def step(self) -> float:
        return 2.0 ** (self._exponents[0] + 1 - self.width)

    @property
    def _exponents(self) -> tuple[int, int]:
        return -self.exponent_bias, 2**self.exponent_width - 1 - self.exponent_bias

    def __str__(self) -> str:
        blocks = self.blocks.text(DEFAULT_BLOCKS)
        return f"block_fp({self.width},{self.exponent_width},{self.exponent_bias}{blocks})"


@final
@dataclass(frozen=True, slots=True)
class BlockMinifloat(Blocked):
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
    def scale_bits(self) -> int:
        return self.exponent_bias_width

    @property
    def kernel(self) -> SharedPower:
        low, high = _bias_range(self.exponent_bias_width)
        return SharedPower(low, high, -self._element.grid.emax, self._element)

    @property
    def maximum(self) -> float:
        return self._element.maximum * 2.0 ** _bias_range(self.exponent_bias_width)[1]

    @property
    def step(self) -> float:
        return self._element.grid.step * 2.0 ** _bias_range(self.exponent_bias_width)[0]

    @property
    def is_float(self) -> bool:
        return True

    @property
    def _element(self) -> FloatKernel:
        bias = 2 ** (self.exponent_width - 1) - 1
        grid = float_grid(self.exponent_width, self.width - 1 - self.exponent_width, bias, Top.RESERVED)
        return FloatKernel(grid, grid.maximum, signs_zero=False)

    def __str__(self) -> str:
        blocks = self.blocks.text(DEFAULT_BLOCKS)
        return f"block_minifloat({self.width},{self.exponent_width},{self.exponent_bias_width}{blocks})"


@final
@dataclass(frozen=True, slots=True)
class BlockLogarithmic(Blocked):
    """Signed powers of two whose exponent bias is shared by a block.

    The bias, a two's complement number of exponent_bias_width bits counted from the usual 2**(width - 2) - 1, is the
    one that makes the block's largest magnitude, rounded, the largest power. Elements are rounded as
    `log(width, bias)` does: to nearest in the logarithm, without a zero.

    A NaN makes its whole block NaN; an infinity counts as the largest finite number of the carrier; zero becomes the
    block's smallest power; what divided by the block's scale underflows to zero counts as zero: it loses its sign.

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
    def scale_bits(self) -> int:
        return self.exponent_bias_width

    @property
    def kernel(self) -> SharedPower:
        low, high = _bias_range(self.exponent_bias_width)
        return SharedPower(low, high, -self._element.emax, self._element, is_nearest=True)

    @property
    def maximum(self) -> float:
        return 2.0 ** (self._element.emax + _bias_range(self.exponent_bias_width)[1])

    @property
    def step(self) -> float:
        return 2.0 ** (self._element.emin + _bias_range(self.exponent_bias_width)[0])

    @property
    def is_float(self) -> bool:
        return True

    @property
    def _element(self) -> LogKernel:
        bias = 2 ** (self.width - 2) - 1
        return LogKernel(-bias, 2 ** (self.width - 1) - 1 - bias)

    def __str__(self) -> str:
        return f"block_log({self.width},{self.exponent_bias_width}{self.blocks.text(DEFAULT_BLOCKS)})"


def _bias_range(width: int) -> tuple[int, int]:
    """The exponents of scales that a shared bias of so many bits can state; float32 sets the outermost."""
    return max(1 - 2 ** (width - 1), SCALE_LOW), min(2 ** (width - 1), SCALE_HIGH)


def _check_bias_width(fmt: Format, width: int) -> None:
    if not 1 <= width <= 8:
        raise FormatError(f"{fmt}: exponent_bias_width must be between 1 and 8, got {width}.")


def _check_exponents(fmt: Format, low: int, high: int) -> None:
    if low < -512 or high > 512:
        raise FormatError(f"{fmt}: its shared exponents {low} to {high} must lie within -512 to 512.")
