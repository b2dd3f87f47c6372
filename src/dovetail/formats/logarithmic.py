"""Signed powers of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.carrier import keep_nan, round_elements
from dovetail.formats.fused import Loop

__all__ = ["LogKernel", "Logarithmic", "log_reference"]


@final
@dataclass(frozen=True, slots=True)
class Logarithmic(Format):
    """`sign * 2**(e - exponent_bias)` with e of width - 1 bits.

    Rounding is to nearest in the logarithm, as the format is defined: a value goes to the upper power of two from
    sqrt(2) times the lower one (an irrational bound: there are no ties). There is no zero: zero of either sign and what
    is smaller than the smallest power become that power, with the value's sign (+ for zero). NaN stays NaN; infinities
    and overflow saturate to +-maximum; there are no subnormals.

    Source: Miyashita et al. 2016, Convolutional neural networks using logarithmic data representation,
    arXiv:1603.01025.

    Args:
        width: total bits, 2 to 8: a sign and an exponent field.
        exponent_bias: usually 2**(width - 2) - 1.

    Example:
        >>> Logarithmic(4, 3).quantise(torch.tensor([0.0, 1.4, 1.5, -100.0]))
        tensor([  0.1250,   1.0000,   2.0000, -16.0000])
    """

    width: int
    exponent_bias: int

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 8:
            raise FormatError(f"log: width must be between 2 and 8, got {self.width}.")
        if self.emin < -126 or self.emax > 127:
            raise FormatError(
                f"{self}: its exponents {self.emin} to {self.emax} must lie within -126 to 127, those of float32."
            )

    @property
    def emin(self) -> int:
        """Exponent of the smallest magnitude."""
        return -self.exponent_bias

    @property
    def emax(self) -> int:
        """Exponent of the largest magnitude."""
        return (1 << (self.width - 1)) - 1 - self.exponent_bias

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def maximum(self) -> float:
        return 2.0**self.emax

    @property
    def minimum(self) -> float:
        return -(2.0**self.emax)

    @property
    def step(self) -> float:
        return 2.0**self.emin

    @property
    def is_float(self) -> bool:
        return True

    def values(self) -> NDArray[np.float64]:
        return LogKernel(self.emin, self.emax).values()

    def quantise(self, x: Tensor) -> Tensor:
        info = torch.finfo(x.dtype)
        low = max(self.emin, math.frexp(info.smallest_normal * info.eps)[1] - 1)
        high = min(self.emax, math.frexp(info.max)[1] - 1)
        return round_elements(x, LogKernel(low, high))

    def __str__(self) -> str:
        return f"log({self.width},{self.exponent_bias})"


@final
@dataclass(frozen=True, slots=True)
class LogKernel:
    """Rounds magnitudes to powers of two from 2**emin to 2**emax, in the logarithm."""

    emin: int
    emax: int

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        integer, magnitude_mask, exponent_mask, carry = _LAYOUT[x.dtype]
        power = torch.bitwise_and(x.view(integer), magnitude_mask)
        power.add_(carry).bitwise_and_(exponent_mask)
        y = torch.clamp(power.view(x.dtype), math.ldexp(1.0, self.emin), math.ldexp(1.0, self.emax), out=out)
        signed = x + 0.0  # -0 + 0 is +0
        y.copysign_(signed)
        return y.add_(keep_nan(signed))

    def values(self) -> NDArray[np.float64]:
        """What it rounds to."""
        magnitudes = np.ldexp(1.0, np.arange(self.emin, self.emax + 1))
        return np.concatenate([-magnitudes[::-1], magnitudes])

    def loop(self, dtype: torch.dtype) -> Loop:
        return Loop("powers", (math.ldexp(1.0, self.emin), math.ldexp(1.0, self.emax)))


_LAYOUT = {  # the carry brings the first significand above sqrt(2) to the next exponent
    torch.float32: (torch.int32, 0x7FFFFFFF, 0x7F800000, 0x800000 - 0x3504F4),
    torch.float64: (torch.int64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000, 0x10000000000000 - 0x6A09E667F3BCD),
}


def log_reference(x: float, fmt: Logarithmic) -> float:
    """The slow obvious twin of `Logarithmic.quantise`, for one finite number."""
    if x == 0:
        return fmt.step
    exponent = min(max(round(math.log2(abs(x))), fmt.emin), fmt.emax)
    return math.copysign(2.0**exponent, x)
