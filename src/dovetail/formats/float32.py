"""float32: what a network is trained in; quantising to it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from dovetail.formats.base import Format

__all__ = ["FLOAT32", "Float32"]


@final
@dataclass(frozen=True, slots=True)
class Float32(Format):
    """IEEE 754 binary32, the identity of formats."""

    @property
    def element_bits(self) -> int:
        return 32

    @property
    def maximum(self) -> float:
        return (2 - 2.0**-23) * 2.0**127

    @property
    def minimum(self) -> float:
        return -self.maximum

    @property
    def step(self) -> float:
        return 2.0**-149

    @property
    def is_float(self) -> bool:
        return True

    def quantise(self, x: Tensor) -> Tensor:
        return x.clone()

    def quantise_(self, x: Tensor) -> Tensor:
        return x

    def __str__(self) -> str:
        return "float32"


FLOAT32 = Float32()
