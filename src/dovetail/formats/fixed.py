"""Fixed point: integers times a power of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.carrier import limit, round_elements
from dovetail.formats.fused import Loop

__all__ = ["FixedKernel", "FixedPoint", "fixed_reference"]


@final
@dataclass(frozen=True, slots=True)
class FixedPoint(Format):
    """`clamp(round_half_even(x * 2**frac_width), low, high) / 2**frac_width`.

    Signed: low = -2**(width-1), high = 2**(width-1) - 1; unsigned: low = 0, high = 2**width - 1.
    frac_width may be negative (a step above 1) or exceed the width (all bits below the point).

    NaN stays NaN. Infinities and overflow saturate to `maximum` and `minimum`. There is one zero: the sign of a zero
    result carries no meaning. There are no subnormals: the grid is uniform. In a carrier too coarse to hold the limits
    (fixed(16,0) in bfloat16) clamping stops at the carrier's last value inside the range.

    Args:
        width: total bits, 1 to 64.
        frac_width: bits after the binary point, -126 to 126.
        signed: two's complement, or unsigned.

    Raises:
        FormatError: a width outside its bounds.

    Example:
        >>> FixedPoint(8, 4).quantise(torch.tensor([0.1, 0.15625, 100.0, -100.0]))
        tensor([ 0.1250,  0.1250,  7.9375, -8.0000])
    """

    width: int
    frac_width: int
    signed: bool = True

    def __post_init__(self) -> None:
        name = "fixed" if self.signed else "ufixed"
        if not 1 <= self.width <= 64:
            raise FormatError(f"{name}: width must be between 1 and 64, got {self.width}.")
        if not -126 <= self.frac_width <= 126:
            raise FormatError(f"{name}: frac_width must be between -126 and 126, got {self.frac_width}.")

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def low(self) -> int:
        """The smallest integer of the grid."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest integer of the grid."""
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1

    @property
    def maximum(self) -> float:
        return self.high * self.step

    @property
    def minimum(self) -> float:
        return self.low * self.step

    @property
    def step(self) -> float:
        return 2.0**-self.frac_width

    def values(self) -> NDArray[np.float64]:
        if self.width > 16:
            return Format.values(self)
        return np.arange(self.low, self.high + 1, dtype=np.float64) * self.step

    def quantise(self, x: Tensor) -> Tensor:
        return round_elements(x, self._kernel(x.dtype))

    def quantise_(self, x: Tensor) -> Tensor:
        return round_elements(x, self._kernel(x.dtype), in_place=True, overwrites=True)

    def _kernel(self, carrier: torch.dtype) -> FixedKernel:
        return FixedKernel(self._limit(self.minimum, carrier), self._limit(self.maximum, carrier), self.step)

    def _limit(self, value: float, carrier: torch.dtype) -> float:
        """The outermost point of the grid, on this side, that the carrier holds."""
        return math.trunc(limit(value, carrier) / self.step) * self.step

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}fixed({self.width},{self.frac_width})"


@final
@dataclass(frozen=True, slots=True)
class FixedKernel:
    """Rounds to multiples of `step`, half to even, between `low` and `high`, which are multiples themselves."""

    low: float
    high: float
    step: float

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        y = torch.clamp(x, self.low, self.high, out=out)
        bits = 52 if x.dtype is torch.float64 else 23
        # Adding 1.5 * 2**bits steps moves every grid value to where one unit in the last place is one step, so the
        # addition itself rounds half to even; exact while the range spans less than 2**(bits-1) steps.
        if max(-self.low, self.high) < 2.0 ** (bits - 2) * self.step and self.step < 2.0**100:
            magic = 1.5 * 2.0**bits * self.step
            return y.add_(magic).sub_(magic)
        return y.mul_(1 / self.step).round_().mul_(self.step).add_(0.0)  # -0 + 0 is +0

    def values(self) -> NDArray[np.float64]:
        """What it rounds to."""
        return np.arange(self.low / self.step, self.high / self.step + 1) * self.step

    def loop(self, dtype: torch.dtype) -> Loop:
        return Loop("integers", (1 / self.step, self.low / self.step, self.high / self.step, self.step, 0.0))


def fixed_reference(x: float, fmt: FixedPoint) -> float:
    """The slow obvious twin of `FixedPoint.quantise`, for one finite number, in exact arithmetic."""
    steps = round(Fraction(x) * Fraction(2) ** fmt.frac_width)  # Python rounds half to even
    return float(Fraction(min(max(steps, fmt.low), fmt.high)) / Fraction(2) ** fmt.frac_width)
