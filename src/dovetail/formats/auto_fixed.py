"""Fixed point whose frac_width is read off data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dovetail.formats.base import Uncalibrated
from dovetail.formats.clipping import squared_error
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.statistics import Statistics

__all__ = ["AutoFixed"]

_FINER = 4
"""How many bits finer than the covering frac_width are tried: clipping 15/16 of the range is never best."""


@final
@dataclass(frozen=True, slots=True)
class AutoFixed(Uncalibrated):
    """`fixed(width, auto)`: `calibrate` gives the `FixedPoint` with the frac_width of least squared error.

    Tried are the largest frac_width whose range covers every observed value, and the four finer ones, which clip; of
    equal errors the covering one wins. Where nothing but zero was observed, all bits go behind the point.

    Example:
        >>> import torch
        >>> AutoFixed(8).calibrate(torch.tensor([-3.0, 0.5, 2.5]))
        FixedPoint(width=8, frac_width=5, signed=True)
    """

    width: int
    signed: bool = True

    def __post_init__(self) -> None:
        FixedPoint(self.width, 0, self.signed)

    @property
    def element_bits(self) -> int:
        return self.width

    def element_values(self) -> NDArray[np.float64]:
        return FixedPoint(self.width, 0, self.signed).values()

    def calibrate(self, observed: Statistics | Tensor) -> FixedPoint:
        """The concrete format for the observed values.

        Raises:
            FormatError: nothing, or something not finite, was observed.
        """
        statistics = Statistics.of(observed) if isinstance(observed, Tensor) else observed.whole()
        statistics.check(str(self))
        values, counts = statistics.channel(0)
        first = self._covering(float(statistics.minimum[0]), float(statistics.maximum[0]))
        candidates = [FixedPoint(self.width, min(first + more, 126), self.signed) for more in range(_FINER + 1)]
        errors = []
        for fmt in candidates:
            rounded = np.clip(np.rint(values / fmt.step) * fmt.step, fmt.minimum, fmt.maximum)
            errors.append(squared_error(values, counts, rounded))
        return candidates[int(np.argmin(errors))]

    def _covering(self, low: float, high: float) -> int:
        """The largest frac_width whose range contains low and high (low as far as unsigned numbers reach)."""
        largest = max(abs(low) if self.signed else 0.0, high, 0.0)
        if largest == 0:
            return min(self.width, 126)
        guess = min(max(self.width - int(self.signed) - math.frexp(largest)[1] + 1, -126), 126)
        for frac_width in range(guess, -127, -1):
            fmt = FixedPoint(self.width, frac_width, self.signed)
            if high <= fmt.maximum and (low >= fmt.minimum or not self.signed):
                return frac_width
        return -126

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}fixed({self.width},auto)"
