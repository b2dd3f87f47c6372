"""NVFP4: four-bit floats in blocks of 16 under an E4M3 scale, and one float32 scale for the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.blocked import Blocked
from dovetail.formats.blocks import Blocks
from dovetail.formats.grid import FloatKernel
from dovetail.formats.minifloat import NAMED_FLOATS
from dovetail.formats.statistics import Statistics

__all__ = ["NVFP4", "NVFP4_BLOCKS"]

NVFP4_BLOCKS = Blocks((16,), -1)
"""16 elements of the last dimension."""

_ELEMENT = NAMED_FLOATS["E2M1FN"].grid
_SCALE = NAMED_FLOATS["E4M3FN"].grid
_TENSOR_BITS = 32


@final
@dataclass(frozen=True, slots=True)
class NVFP4(Blocked):
    """`tensor_scale * block_scale * element`: E2M1 elements, an E4M3 scale for each block, a float32 scale for all.

    tensor_scale = max |x| / (448 * 6), from calibration; block_scale = E4M3(max |x| of the block / (6 * tensor_scale));
    x / (block_scale * tensor_scale) is rounded to E2M1, to nearest, ties to even, saturating at 6. A block whose scale
    rounds to zero becomes zero.

    A NaN makes its whole block NaN; infinities saturate; the sign of a zero carries no meaning; the scales' subnormals
    are used. A block so small that its scale is a subnormal may change when rounded a second time: this format, alone
    of all, is not idempotent there.

    Source: NVIDIA, Introducing NVFP4 for efficient and accurate low-precision inference; Transformer Engine's recipe.

    Args:
        blocks: 16 elements of the last dimension unless stated.
        scale: the tensor's scale; None before calibration.
    """

    blocks: Blocks = NVFP4_BLOCKS
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not (0 < self.scale < np.inf and float(np.float32(self.scale)) == self.scale):
            raise FormatError(f"nvfp4: scale must be a positive float32, got {self.scale!r}.")

    @property
    def element_bits(self) -> int:
        return 4

    @property
    def scale_bits(self) -> int:
        return 8

    @property
    def kernel(self) -> _NestedScale:
        if self.scale is None:
            raise FormatError("nvfp4: the tensor's scale is not known yet. Call calibrate(statistics) first.")
        return _NestedScale(self.scale)

    def element_values(self) -> NDArray[np.float64]:
        return _ELEMENT.values()

    @property
    def maximum(self) -> float:
        return np.nan if self.scale is None else _ELEMENT.maximum * _SCALE.maximum * self.scale

    @property
    def step(self) -> float:
        return np.nan if self.scale is None else _ELEMENT.step * _SCALE.step * self.scale

    @property
    def is_float(self) -> bool:
        return True

    @property
    def needs_calibration(self) -> bool:
        return self.scale is None

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        return Blocked.storage_bits(self, shape) + _TENSOR_BITS

    def calibrate(self, observed: Statistics | Tensor) -> NVFP4:
        """The format with the tensor's scale: that of the largest magnitude observed."""
        if self.scale is not None:
            return self
        statistics = Statistics.of(observed) if isinstance(observed, Tensor) else observed.whole()
        statistics.check("nvfp4")
        largest = max(abs(float(statistics.minimum[0])), abs(float(statistics.maximum[0])))
        scale = np.float32(largest / (_ELEMENT.maximum * _SCALE.maximum))
        return replace(self, scale=float(scale) or 1.0)

    def __str__(self) -> str:
        scale = "" if self.scale is None else f",scale={self.scale!r}"
        arguments = self.blocks.text(NVFP4_BLOCKS) + scale
        return f"nvfp4({arguments[1:]})" if arguments else "nvfp4"


@final
@dataclass(frozen=True, slots=True)
class _NestedScale:
    """Blocks under an E4M3 scale, itself in units of the tensor's scale."""

    tensor_scale: float

    @property
    def element(self) -> FloatKernel:
        return FloatKernel(_ELEMENT, _ELEMENT.maximum, signs_zero=False)

    @property
    def is_power(self) -> bool:
        return False

    def scale(self, amax: Tensor, ceiling: float) -> Tensor:
        rounded = FloatKernel(_SCALE, _SCALE.maximum)(amax.div_(_ELEMENT.maximum * self.tensor_scale))
        return rounded.mul_(self.tensor_scale)
