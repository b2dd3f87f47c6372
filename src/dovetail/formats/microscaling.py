"""OCP microscaling (MX): blocks of small elements that share a power-of-two scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.blocked import SCALE_HIGH, SCALE_LOW, Blocked, SharedPower
from dovetail.formats.blocks import Blocks
from dovetail.formats.fixed import FixedKernel
from dovetail.formats.grid import FloatKernel
from dovetail.formats.minifloat import NAMED_FLOATS

__all__ = ["MX_BLOCKS", "MX_ELEMENTS", "Microscaling"]

MX_BLOCKS = Blocks((32,), -1)
"""The specification's block: 32 elements."""

MX_ELEMENTS = {
    "mxint8": "INT8",
    "mxfp8_e4m3": "E4M3FN",
    "mxfp8_e5m2": "E5M2",
    "mxfp6_e3m2": "E3M2FN",
    "mxfp6_e2m3": "E2M3FN",
    "mxfp4": "E2M1FN",
}
"""Concrete MX formats and their element format."""

_INT8_STEP, _INT8_MAXIMUM = 2.0**-6, 127 * 2.0**-6


@final
@dataclass(frozen=True, slots=True)
class Microscaling(Blocked):
    """`scale * element`, with one E8M0 scale (a power of two, 2**-127 to 2**127) for each block.

    scale = 2**(floor(log2(max |x| of the block)) - emax), emax the exponent of the largest element value; each
    x / scale is then rounded to the element format, to nearest, ties to even, saturating. INT8 elements are multiples
    of 2**-6 up to +-127/64: the code -2 is left unused, as the specification allows, so that the range is symmetric.

    A NaN makes its whole block NaN (the scale becomes NaN); an infinity counts as the largest finite number of the
    carrier; the sign of a zero carries no meaning; elements far below the block's maximum become subnormal or 0.

    Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5 and 6.3.

    Args:
        name: one of MX_ELEMENTS.
        blocks: 32 elements of the last dimension unless stated.

    Example:
        >>> import torch
        >>> Microscaling("mxfp4").quantise(torch.tensor([0.26, 1.0, 5.0, 7.0]))
        tensor([0.5000, 1.0000, 4.0000, 6.0000])
    """

    name: str
    blocks: Blocks = MX_BLOCKS

    def __post_init__(self) -> None:
        if self.name not in MX_ELEMENTS:
            raise FormatError(f"Microscaling: name must be one of {', '.join(MX_ELEMENTS)}, got {self.name!r}.")

    @property
    def element_bits(self) -> int:
        return 8 if self.name == "mxint8" else NAMED_FLOATS[MX_ELEMENTS[self.name]].element_bits

    @property
    def scale_bits(self) -> int:
        return 8

    @property
    def kernel(self) -> SharedPower:
        if self.name == "mxint8":
            return SharedPower(SCALE_LOW, SCALE_HIGH, 0, FixedKernel(-_INT8_MAXIMUM, _INT8_MAXIMUM, _INT8_STEP))
        grid = NAMED_FLOATS[MX_ELEMENTS[self.name]].grid
        return SharedPower(SCALE_LOW, SCALE_HIGH, -grid.emax, FloatKernel(grid, grid.maximum, signs_zero=False))

    @property
    def element_maximum(self) -> float:
        """The largest value of an element before its scale."""
        return _INT8_MAXIMUM if self.name == "mxint8" else NAMED_FLOATS[MX_ELEMENTS[self.name]].maximum

    @property
    def maximum(self) -> float:
        return self.element_maximum * 2.0**SCALE_HIGH

    @property
    def step(self) -> float:
        element = _INT8_STEP if self.name == "mxint8" else NAMED_FLOATS[MX_ELEMENTS[self.name]].step
        return element * 2.0**SCALE_LOW

    @property
    def is_float(self) -> bool:
        return self.name != "mxint8"

    def in_range(self, x: Tensor) -> Tensor | None:
        return None

    def __str__(self) -> str:
        arguments = self.blocks.text(MX_BLOCKS)
        return f"{self.name}({arguments[1:]})" if arguments else self.name
