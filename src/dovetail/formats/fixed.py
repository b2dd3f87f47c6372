"""Fixed point: integers times a power of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format

__all__ = ["FixedPoint"]


@final
@dataclass(frozen=True, slots=True)
class FixedPoint(Format):
    """`clamp(round_half_even(x * 2**frac_width), low, high) / 2**frac_width`.

    Signed: low = -2**(width-1), high = 2**(width-1) - 1; unsigned: low = 0, high = 2**width - 1.
    """

    width: int
    frac_width: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 64:
            raise FormatError(f"fixed: width must be between 1 and 64, got {self.width}.")

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def low(self) -> int:
        return -(2 ** (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return 2 ** (self.width - 1) - 1 if self.signed else 2**self.width - 1

    @property
    def maximum(self) -> float:
        return self.high * self.step

    @property
    def minimum(self) -> float:
        return self.low * self.step

    @property
    def step(self) -> float:
        return 2.0**-self.frac_width

    def quantise(self, x: Tensor) -> Tensor:
        scaled = torch.mul(x, 2.0**self.frac_width)
        return scaled.round_().clamp_(self.low, self.high).mul_(self.step)

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}fixed({self.width},{self.frac_width})"
