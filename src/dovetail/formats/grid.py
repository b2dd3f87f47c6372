"""The grid of a binary floating-point format, its fast rounding kernel and its slow reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.formats.carrier import limit, round_elements
from dovetail.formats.fused import Loop

__all__ = ["FloatGrid", "FloatKernel", "round_to_grid"]


@final
@dataclass(frozen=True, slots=True)
class FloatGrid:
    """The values `m * 2**(e - fraction_width)`: m whole, |m| < 2**(fraction_width + 1), e >= emin, |value| <= maximum.

    Where |value| < 2**emin the spacing stays that of emin: those are the subnormals.

    Args:
        fraction_width: bits after the leading one.
        emin: exponent of the smallest normal value.
        maximum: the largest finite value; on the grid.
    """

    fraction_width: int
    emin: int
    maximum: float

    @property
    def step(self) -> float:
        """The smallest positive value."""
        return math.ldexp(1.0, self.emin - self.fraction_width)

    @property
    def emax(self) -> int:
        """Exponent of the largest value."""
        return max(math.frexp(self.maximum)[1] - 1, self.emin)

    def values(self) -> NDArray[np.float64]:
        """Every value, ascending, one zero."""
        subnormal = np.arange(2**self.fraction_width) * self.step
        significands = 1 + np.arange(2**self.fraction_width) * 2.0**-self.fraction_width
        normal = np.ldexp(significands[None, :], np.arange(self.emin, self.emax + 1)[:, None]).ravel()
        magnitudes = np.concatenate([subnormal, normal])
        magnitudes = magnitudes[magnitudes <= self.maximum]
        return np.concatenate([-magnitudes[:0:-1], magnitudes])

    def reference(self, x: float) -> float:
        """The slow obvious rounding of one finite number: nearest, ties to even, saturating; in exact arithmetic."""
        if x == 0:
            return x
        exponent = max(math.frexp(x)[1] - 1, self.emin)
        quantum = Fraction(2) ** (exponent - self.fraction_width)
        magnitude = min(abs(round(Fraction(x) / quantum) * quantum), Fraction(self.maximum))
        return math.copysign(float(magnitude), x)


@final
@dataclass(frozen=True, slots=True)
class FloatKernel:
    """Rounds to a float grid, half to even, by adding and subtracting 1.5 * 2**bits units of each element's last place.

    The unit comes from the element's own exponent bits, cut off below at emin: subnormals need no branch. NaN stays NaN
    and the sign of zero is kept if `signs_zero`. What exceeds `maximum` becomes `maximum`, or infinite if `overflows`.
    """

    grid: FloatGrid
    maximum: float
    overflows: bool = False
    signs_zero: bool = True

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if x.dtype is torch.float32 and not self._fits_float32:
            y = self(x.double()).to(torch.float32)
            return y if out is None else out.copy_(y)
        integer, exponent_mask, bits = _LAYOUT[x.dtype]
        power = torch.bitwise_and(x.view(integer), exponent_mask).view(x.dtype)
        # Clamping into an output that may be None, not in place: vmap has no rule for clamp_.
        reuse = None if out is None else power
        power = torch.clamp(power, math.ldexp(1.0, self.grid.emin), math.ldexp(1.0, self.grid.emax), out=reuse)
        units = 1.5 * 2.0 ** (bits - self.grid.fraction_width)
        y = torch.add(x, power, alpha=units, out=out)
        y.sub_(power, alpha=units)
        if self.overflows:
            y.masked_fill_(y > self.maximum, math.inf).masked_fill_(y < -self.maximum, -math.inf)
        else:
            y = torch.clamp(y, -self.maximum, self.maximum, out=out)
        return y.copysign_(x) if self.signs_zero else y

    def values(self) -> NDArray[np.float64]:
        """What it rounds to."""
        return self.grid.values()

    def loop(self, dtype: torch.dtype) -> Loop:
        is_wide = dtype is torch.float64 or not self._fits_float32
        units = 1.5 * 2.0 ** ((52 if is_wide else 23) - self.grid.fraction_width)
        low, high = math.ldexp(1.0, self.grid.emin), math.ldexp(1.0, self.grid.emax)
        beyond = math.inf if self.overflows else self.maximum
        return Loop("floats", (low, high, units, self.maximum, beyond, self.signs_zero), is_wide)

    @property
    def _fits_float32(self) -> bool:
        """Whether every intermediate value of the method is exact in float32."""
        grid = self.grid
        return grid.fraction_width <= 21 and grid.emin >= -126 and grid.emax + 24 - grid.fraction_width <= 127


_LAYOUT = {
    torch.float32: (torch.int32, 0x7F800000, 23),
    torch.float64: (torch.int64, 0x7FF0000000000000, 52),
}


def round_to_grid(x: Tensor, grid: FloatGrid, *, overflows: bool = False, in_place: bool = False) -> Tensor:
    """Round every element of a carrier of any dtype to a float grid."""
    kernel = FloatKernel(grid, limit(grid.maximum, x.dtype), overflows)
    return round_elements(x, kernel, in_place=in_place)
