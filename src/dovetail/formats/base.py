"""What a number format is: a frozen value with derived facts and one pure rounding function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError

if TYPE_CHECKING:
    from dovetail.formats.statistics import Statistics

__all__ = ["Format", "Uncalibrated"]


class Format(ABC):
    """A number format. Children are frozen dataclasses and final.

    `str(fmt)` is the canonical text and `parse(str(fmt)) == fmt`.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def element_bits(self) -> int:
        """Bits of one element, shared scales apart."""

    @property
    @abstractmethod
    def maximum(self) -> float:
        """The largest value the format represents; NaN where the data decides it."""

    @property
    @abstractmethod
    def minimum(self) -> float:
        """The smallest (most negative) value the format represents; NaN where the data decides it."""

    @property
    @abstractmethod
    def step(self) -> float:
        """The smallest positive value: the grid step, or the smallest subnormal; NaN where the data decides it."""

    @property
    def is_float(self) -> bool:
        """Whether neighbouring values grow apart with their size."""
        return False

    @property
    def block_size(self) -> int:
        """Elements that share one scale; 1 where none do."""
        return 1

    @property
    def bits(self) -> float:
        """Bits per element, the shared scale of a full block included."""
        return float(self.element_bits)

    @property
    def needs_calibration(self) -> bool:
        """Whether parameters are still to be read off data (`calibrate`) before the format can quantise."""
        return False

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        """Bits to store a tensor: exact, partial blocks and shared scales included.

        Args:
            shape: sizes, each an int or an int64 array of candidates' sizes (all of one length).

        Returns:
            An int, or an array of them where a size is an array.
        """
        count: Any = 1
        for size in shape:
            count = count * (size if isinstance(size, np.ndarray) else int(size))
        return count * self.element_bits

    def calibrate(self, observed: Statistics | Tensor) -> Format:
        """The concrete format for observed values; a concrete format returns itself."""
        return self

    @abstractmethod
    def quantise(self, x: Tensor) -> Tensor:
        """Round every element to the format: a new tensor of x's shape, dtype and device, outside autograd."""

    def quantise_(self, x: Tensor) -> Tensor:
        """The same result, written into x where that saves memory; x must not be used afterwards."""
        return self.quantise(x)

    def values(self) -> NDArray[np.float64]:
        """Every finite value of the format, ascending, one zero.

        Raises:
            FormatError: there are more than 65,536, or data decides them.
        """
        raise FormatError(f"{self}: its values cannot be listed: there are too many, or data decides them.")

    def element_values(self) -> NDArray[np.float64]:
        """Every finite value of one element before the scale that data or its block gives it, ascending, one zero.

        For formats without such a scale: `values()`.

        Raises:
            FormatError: there are more than 65,536.
        """
        return self.values()

    def in_range(self, x: Tensor) -> Tensor | None:
        """Where the straight-through gradient passes: a mask of x's shape, or None for everywhere.

        Formats that clip pass it where `minimum <= x <= maximum`; formats whose range follows the data pass it
        everywhere.
        """
        if math.isnan(self.maximum) or (math.isinf(self.maximum) and math.isinf(self.minimum)):
            return None
        return (x >= self.minimum) & (x <= self.maximum)


class Uncalibrated(Format):
    """A format whose range is still to be read off data: `calibrate` gives one that can quantise."""

    __slots__ = ()

    @property
    def maximum(self) -> float:
        return math.nan

    @property
    def minimum(self) -> float:
        return math.nan

    @property
    def step(self) -> float:
        return math.nan

    @property
    def needs_calibration(self) -> bool:
        return True

    @abstractmethod
    def calibrate(self, observed: Statistics | Tensor) -> Format:
        """The concrete format for the observed values.

        Raises:
            FormatError: nothing, or something not finite, was observed.
        """

    def quantise(self, x: Tensor) -> Tensor:
        raise FormatError(f"{self}: its range is not known yet. Call calibrate(statistics) first.")
