"""Floating point with few bits: the parametrised minifloats, the named OCP formats, float16 and bfloat16."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.carrier import round_elements
from dovetail.formats.grid import FloatGrid, round_to_grid

__all__ = ["NAMED_FLOATS", "HalfFloat", "Minifloat", "NamedFloat", "Top", "float_grid"]


class Top(StrEnum):
    """What the codes with the largest exponent field mean."""

    RESERVED = "reserved"
    """All of them are infinities and NaN, as in IEEE 754."""
    NAN = "nan"
    """Only the one with all fraction bits set is NaN."""
    FINITE = "finite"
    """All are numbers."""


def float_grid(exponent_width: int, fraction_width: int, exponent_bias: int, top: Top) -> FloatGrid:
    """The finite values of a format with an implicit leading bit and subnormals."""
    emin = 1 - exponent_bias
    last_field = 2**exponent_width - 1 - (top is Top.RESERVED)
    last_fraction = 2**fraction_width - 1 - (top is Top.NAN)
    if last_field == 0:
        maximum = math.ldexp(last_fraction, emin - fraction_width)
    else:
        maximum = math.ldexp(2**fraction_width + last_fraction, last_field - exponent_bias - fraction_width)
    return FloatGrid(fraction_width, emin, maximum)


class SmallFloat(Format):
    """A floating-point format whose facts are those of its grid."""

    __slots__ = ()

    @property
    @abstractmethod
    def grid(self) -> FloatGrid:
        """The format's finite values."""

    @property
    def maximum(self) -> float:
        return self.grid.maximum

    @property
    def minimum(self) -> float:
        return -self.grid.maximum

    @property
    def step(self) -> float:
        return self.grid.step

    @property
    def is_float(self) -> bool:
        return True

    def values(self) -> NDArray[np.float64]:
        return self.grid.values() if self.element_bits <= 16 else Format.values(self)

    def quantise(self, x: Tensor) -> Tensor:
        return round_to_grid(x, self.grid)

    def quantise_(self, x: Tensor) -> Tensor:
        return round_to_grid(x, self.grid, in_place=True)


@final
@dataclass(frozen=True, slots=True)
class Minifloat(SmallFloat):
    """Sign, exponent field and fraction, with any widths and bias.

    With an implicit bit (`minifloat_ieee`), field e > 0 means `2**(e - bias) * 1.fraction`, field 0 the subnormals
    `2**(1 - bias) * 0.fraction`; the largest field is reserved as in IEEE 754. Without one (`minifloat_denorm`) every
    field e means `2**(e - bias) * 0.fraction`, the largest included.

    NaN stays NaN; infinities and overflow saturate to +-maximum; the sign of zero is kept; subnormals are rounded to,
    not flushed. Rounding is to nearest, ties to even, over the values the format has (a mantissa that rounds up to 1.0
    takes the next exponent).

    Args:
        width: total bits: 1 + exponent_width + fraction bits, at most 32.
        exponent_width: 1 to 8.
        exponent_bias: usually 2**(exponent_width - 1) - 1.
        implicit_bit: whether the leading one is left out of the code.

    Raises:
        FormatError: no fraction bit would be left where one is needed, or a width is out of bounds.

    Example:
        >>> Minifloat(8, 4, 7).maximum, Minifloat(8, 4, 7).step
        (240.0, 0.001953125)
    """

    width: int
    exponent_width: int
    exponent_bias: int
    implicit_bit: bool = True

    def __post_init__(self) -> None:
        fraction = self.width - 1 - self.exponent_width
        needed = 0 if self.implicit_bit and self.exponent_width > 1 else 1
        if not 1 <= self.exponent_width <= 8:
            raise FormatError(f"{self}: exponent_width must be between 1 and 8, got {self.exponent_width}.")
        if self.width > 32 or fraction < needed:
            raise FormatError(
                f"{self}: width must be between {1 + self.exponent_width + needed} (sign, exponent and "
                f"{needed} fraction bits) and 32, got {self.width}."
            )
        if not 1 - self.exponent_bias - fraction >= -1022 or self.exponent_bias < -512:
            raise FormatError(f"{self}: exponent_bias must be between -512 and 960, got {self.exponent_bias}.")

    @property
    def grid(self) -> FloatGrid:
        fraction = self.width - 1 - self.exponent_width
        if self.implicit_bit:
            return float_grid(self.exponent_width, fraction, self.exponent_bias, Top.RESERVED)
        # 0.fraction with its leading one set is 1.fraction with one bit less, one exponent lower.
        maximum = math.ldexp(2**fraction - 1, 2**self.exponent_width - 1 - self.exponent_bias - fraction)
        return FloatGrid(fraction - 1, -self.exponent_bias - 1, maximum)

    @property
    def element_bits(self) -> int:
        return self.width

    def __str__(self) -> str:
        kind = "ieee" if self.implicit_bit else "denorm"
        return f"minifloat_{kind}({self.width},{self.exponent_width},{self.exponent_bias})"


@final
@dataclass(frozen=True, slots=True)
class NamedFloat(SmallFloat):
    """A small float of the Open Compute Project, saturating as its specification's SAT mode.

    NaN stays NaN, also in formats without a code for it (the tensor keeps showing the fault); infinities and overflow
    become +-maximum; the sign of zero is kept; subnormals are rounded to. Rounding is to nearest, ties to even.

    Source: OCP 8-bit Floating Point Specification (OFP8) 1.0; OCP Microscaling Formats (MX) Specification 1.0.

    Example:
        >>> NAMED_FLOATS["E4M3FN"].quantise(torch.tensor([1.06, 500.0]))
        tensor([  1., 448.])
    """

    name: str
    exponent_width: int
    fraction_width: int
    exponent_bias: int
    top: Top

    @property
    def grid(self) -> FloatGrid:
        return float_grid(self.exponent_width, self.fraction_width, self.exponent_bias, self.top)

    @property
    def element_bits(self) -> int:
        return 1 + self.exponent_width + self.fraction_width

    def __str__(self) -> str:
        return self.name


NAMED_FLOATS = {
    fmt.name: fmt
    for fmt in (
        NamedFloat("E4M3FN", 4, 3, 7, Top.NAN),
        NamedFloat("E5M2", 5, 2, 15, Top.RESERVED),
        NamedFloat("E3M2FN", 3, 2, 3, Top.FINITE),
        NamedFloat("E2M3FN", 2, 3, 1, Top.FINITE),
        NamedFloat("E2M1FN", 2, 1, 1, Top.FINITE),
    )
}


@final
@dataclass(frozen=True, slots=True)
class HalfFloat(SmallFloat):
    """float16 (IEEE 754 binary16) or bfloat16, as PyTorch converts to them.

    NaN and infinities stay; overflow (from maximum plus half a unit in its last place) becomes infinite; the sign of
    zero is kept; subnormals are rounded to. Rounding is to nearest, ties to even.

    Args:
        name: "float16" or "bfloat16".
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in _HALVES:
            raise FormatError(f"HalfFloat: name must be float16 or bfloat16, got {self.name!r}.")

    @property
    def grid(self) -> FloatGrid:
        return _HALVES[self.name][1]

    @property
    def element_bits(self) -> int:
        return 16

    def quantise(self, x: Tensor) -> Tensor:
        return self._round(x, in_place=False)

    def quantise_(self, x: Tensor) -> Tensor:
        return self._round(x, in_place=True)

    def _round(self, x: Tensor, *, in_place: bool) -> Tensor:
        if x.dtype is torch.float64:  # PyTorch's conversion would round twice, through float32
            return round_to_grid(x, self.grid, overflows=True, in_place=in_place)
        return round_elements(x, _HalfKernel(_HALVES[self.name][0]), in_place=in_place, overwrites=True)

    def __str__(self) -> str:
        return self.name


@final
@dataclass(frozen=True, slots=True)
class _HalfKernel:
    """PyTorch's conversion there and back, which takes hardly longer than a copy."""

    dtype: torch.dtype

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        rounded = x.to(self.dtype)
        return rounded.to(x.dtype) if out is None else out.copy_(rounded)

    def loop(self, dtype: torch.dtype) -> None:
        return None


_HALVES = {
    "float16": (torch.float16, float_grid(5, 10, 15, Top.RESERVED)),
    "bfloat16": (torch.bfloat16, float_grid(8, 7, 127, Top.RESERVED)),
}
