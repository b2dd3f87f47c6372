"""Integers with a scale: symmetric or affine, for a tensor or for each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats import fused
from dovetail.formats.base import Format, Uncalibrated
from dovetail.formats.carrier import is_bare, round_elements, takes_loops, work_dtype
from dovetail.formats.clipping import Clip, Counts, Floats, clip_range, squared_error
from dovetail.formats.fused import Loop
from dovetail.formats.statistics import Statistics

__all__ = ["Integer", "ScaledInteger"]

_SCALE_BITS = 32

_SHORTEST_RUN = 8
"""Neighbours of one channel from which a loop over them is faster than tensor operations."""


@final
@dataclass(frozen=True, slots=True)
class Integer(Uncalibrated):
    """An integer format whose scale is still to be read off data: `calibrate` gives the `ScaledInteger`.

    Symmetric: integers -(2**(width-1) - 1) to 2**(width-1) - 1, scale = max |range| / (2**(width-1) - 1), no zero
    point. Affine: integers 0 to 2**width - 1, scale = (high - low) / (2**width - 1), zero point round(-low / scale);
    the range always contains 0, which is exact. Where nothing but zero was observed, the scale is 1.

    Args:
        width: 2 to 16 bits.
        affine: with a zero point.
        axis: the dimension whose positions have a scale each, or None for one of the tensor.
        clip: which part of the observed range is covered (`clipping.Clip`).
        power_of_two: whether scales are rounded up to powers of two (shifts in hardware).

    Raises:
        FormatError: a width out of bounds.

    Example:
        >>> Integer(8).calibrate(torch.tensor([-1.0, 2.54]))
        ScaledInteger(width=8, scales=(0.019999999552965164,), zero_points=None, axis=None)
    """

    width: int
    affine: bool = False
    axis: int | None = None
    clip: Clip = Clip.MINMAX
    power_of_two: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 16:
            raise FormatError(f"int: width must be between 2 and 16, got {self.width}.")

    @property
    def element_bits(self) -> int:
        return self.width

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        return Format.storage_bits(self, shape) + _shared_bits(shape, self.width, self.affine, self.axis)

    def element_values(self) -> Floats:
        return _integers(self.width, self.affine)

    def calibrate(self, observed: Statistics | Tensor) -> ScaledInteger:
        """The format with the scales that the rule gives for the observed values.

        Raises:
            FormatError: nothing, or something not finite, was observed; or per-channel scales are asked of statistics
                that were gathered for the whole tensor or along another axis.
        """
        statistics = Statistics.of(observed, self.axis) if isinstance(observed, Tensor) else observed
        statistics.check(str(self))
        if self.axis is None:
            statistics = statistics.whole()
        elif statistics.axis != self.axis:
            raise FormatError(
                f"{self}: needs statistics with axis={self.axis}, got axis={statistics.axis}. "
                f"Gather them with Statistics.of(x, axis={self.axis})."
            )
        pairs = [self._parameters(statistics, channel) for channel in range(statistics.num_channels)]
        scales = tuple(scale for scale, _ in pairs)
        return ScaledInteger(self.width, scales, tuple(zero for _, zero in pairs) if self.affine else None, self.axis)

    def _parameters(self, statistics: Statistics, channel: int) -> tuple[float, int]:
        levels = 2**self.width if self.affine else 2**self.width - 1
        low, high = clip_range(statistics, channel, self.clip, levels=levels, error=self._error)
        return self._scale(low, high)

    def _scale(self, low: float, high: float) -> tuple[float, int]:
        """(scale, zero point) of a range that contains 0."""
        exact = (high - low) / (2**self.width - 1) if self.affine else max(-low, high) / (2 ** (self.width - 1) - 1)
        if exact == 0:
            return 1.0, 0
        if self.power_of_two:
            significand, exponent = math.frexp(exact)
            exact = math.ldexp(1.0, exponent - (significand == 0.5))
        scale = float(np.float32(min(max(exact, 2.0**-126), 2.0**126)))
        return scale, min(max(round(-low / scale), 0), 2**self.width - 1) if self.affine else 0

    def _error(self, values: Floats, counts: Counts, low: float, high: float) -> float:
        scale, zero = self._scale(low, high)
        bottom, top = _limits(self.width, self.affine)
        rounded = (np.clip(np.rint(values / scale) + zero, bottom, top) - zero) * scale
        return squared_error(values, counts, rounded)

    def __str__(self) -> str:
        words = [str(self.width)]
        words += ["affine"] if self.affine else []
        words += [] if self.axis is None else ["channel"]
        words += [self.clip.value] if self.clip is not Clip.MINMAX else []
        words += ["po2"] if self.power_of_two else []
        words += [f"axis={self.axis}"] if self.axis not in (None, 0) else []
        return f"int({','.join(words)})"


@final
@dataclass(frozen=True, slots=True)
class ScaledInteger(Format):
    """`(clamp(round_half_even(x * (1 / scale)) + zero_point, low, high) - zero_point) * scale`, in float32 arithmetic.

    1 / scale is rounded to float32 first: the definition of `torch.fake_quantize_per_tensor_affine`, to the bit.
    Symmetric formats have integers -(2**(width-1) - 1) to 2**(width-1) - 1, affine ones 0 to 2**width - 1.

    NaN stays NaN; infinities and overflow saturate; the sign of a zero carries no meaning; there are no subnormals.

    Args:
        width: 2 to 16 bits.
        scales: one, or one for each channel; float32 values.
        zero_points: as many integers for an affine format; None for a symmetric one.
        axis: the dimension of channels; None for one scale.
    """

    width: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...] | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 16:
            raise FormatError(f"int: width must be between 2 and 16, got {self.width}.")
        if not self.scales or (self.axis is None and len(self.scales) != 1):
            raise FormatError(f"int: a format without axis must have one scale, got {len(self.scales)}.")
        for scale in self.scales:
            if not (0 < scale < math.inf and float(np.float32(scale)) == scale):
                raise FormatError(
                    f"int: a scale must be a positive float32, got {scale!r}. Round it with numpy.float32."
                )
        if self.zero_points is not None:
            if len(self.zero_points) != len(self.scales):
                raise FormatError(f"int: got {len(self.zero_points)} zero points for {len(self.scales)} scales.")
            if any(not 0 <= zero < 2**self.width for zero in self.zero_points):
                raise FormatError(f"int: zero points must lie in 0 to {2**self.width - 1}, got {self.zero_points}.")

    @property
    def element_bits(self) -> int:
        return self.width

    @property
    def maximum(self) -> float:
        return max(high * scale for scale, _, high in self._channels)

    @property
    def minimum(self) -> float:
        return min(low * scale for scale, low, _ in self._channels)

    @property
    def step(self) -> float:
        return min(self.scales)

    def storage_bits(self, shape: Sequence[Any]) -> Any:
        affine = self.zero_points is not None
        return Format.storage_bits(self, shape) + _shared_bits(shape, self.width, affine, self.axis)

    def values(self) -> Floats:
        if self.axis is not None:
            return Format.values(self)
        ((scale, low, high),) = self._channels
        return np.arange(low, high + 1, dtype=np.float64) * scale

    def element_values(self) -> Floats:
        return self.values() if self.axis is None else _integers(self.width, self.zero_points is not None)

    def in_range(self, x: Tensor) -> Tensor | None:
        if self.axis is None:
            return Format.in_range(self, x)
        scale, low, high = self._broadcast(x, x.dtype)
        return (x >= low * scale) & (x <= high * scale)

    def quantise(self, x: Tensor) -> Tensor:
        return self._round(x, in_place=False)

    def quantise_(self, x: Tensor) -> Tensor:
        return self._round(x, in_place=True)

    def _round(self, x: Tensor, *, in_place: bool) -> Tensor:
        if self.axis is not None:
            return self._round_channels(x.detach(), in_place=in_place)
        ((scale, low, high),) = self._channels
        return round_elements(x, _IntegerKernel(scale, low, high), in_place=in_place, overwrites=True)

    def _round_channels(self, x: Tensor, *, in_place: bool) -> Tensor:
        work = work_dtype(x)
        scale, low, high = self._broadcast(x, work)
        inverse = scale.to(torch.float32).reciprocal().to(work)
        inner = x.shape[self.axis :].numel() // len(self.scales)
        if inner >= _SHORTEST_RUN and x.dtype is work and takes_loops(x):
            out = x if in_place else torch.empty_like(x)
            fused.run(Loop("channels", (low, high)), x, out, size=inner, factor=inverse, scale=scale)
            return out
        y = x * inverse if x.dtype is work else x.to(work).mul_(inverse)
        # Clamping into an output that may be None, not in place: vmap has no rule for clamp_.
        y = torch.clamp(y.round_(), low, high, out=y if is_bare(y) else None)
        return y.mul_(scale).to(x.dtype)

    def _broadcast(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Scales, smallest and largest integers, shaped to broadcast along the axis of x."""
        assert self.axis is not None
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] != len(self.scales):
            raise FormatError(
                f"int: {len(self.scales)} scales along dimension {self.axis} do not fit a tensor of shape "
                f"{tuple(x.shape)}."
            )
        shape = [1] * x.ndim
        shape[self.axis] = len(self.scales)
        columns = torch.tensor(self._channels, dtype=torch.float64, device=x.device).to(dtype)
        scale, low, high = (column.reshape(shape) for column in columns.unbind(1))
        return scale, low, high

    @property
    def _channels(self) -> list[tuple[float, int, int]]:
        """(scale, smallest, largest integer) of each channel, the zero point taken off."""
        bottom, top = _limits(self.width, self.zero_points is not None)
        zeros = self.zero_points or (0,) * len(self.scales)
        return [(scale, bottom - zero, top - zero) for scale, zero in zip(self.scales, zeros, strict=True)]

    def __str__(self) -> str:
        parts = [str(self.width), "scale=" + "|".join(map(repr, self.scales))]
        if self.zero_points is not None:
            parts.append("zero=" + "|".join(map(str, self.zero_points)))
        if self.axis is not None:
            parts.append(f"axis={self.axis}")
        return f"int({','.join(parts)})"


@final
@dataclass(frozen=True, slots=True)
class _IntegerKernel:
    """Rounds to integers from low to high, times the scale."""

    scale: float
    low: int
    high: int

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        y = torch.mul(x, self._inverse, out=out).round_()
        return torch.clamp(y, self.low, self.high, out=out).mul_(self.scale)

    def loop(self, dtype: torch.dtype) -> Loop:
        return Loop("integers", (self._inverse, self.low, self.high, self.scale, -0.0))

    @property
    def _inverse(self) -> float:
        return float(np.float32(1) / np.float32(self.scale))


def _limits(width: int, affine: bool) -> tuple[int, int]:
    """The smallest and the largest integer, zero point included."""
    largest = 2 ** (width - 1) - 1
    return (0, 2**width - 1) if affine else (-largest, largest)


def _integers(width: int, affine: bool) -> Floats:
    bottom, top = _limits(width, affine)
    return np.arange(bottom, top + 1, dtype=np.float64)


def _shared_bits(shape: Sequence[Any], width: int, affine: bool, axis: int | None) -> Any:
    """A float32 scale for each channel, with a zero point of the element's width where affine."""
    channels = 1 if axis is None or not shape else shape[axis]
    return channels * (_SCALE_BITS + (width if affine else 0))
