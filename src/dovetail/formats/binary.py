"""One bit: two values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.carrier import is_worth_splitting, keep_nan, round_elements, work_dtype
from dovetail.formats.fused import Loop
from dovetail.formats.statistics import Statistics

__all__ = ["Binary", "uniform_noise"]

_AT_ONCE = 1 << 15
"""Elements that draw their noise at a time: it takes several integers of 64 bits for each."""


@final
@dataclass(frozen=True, slots=True)
class Binary(Format):
    """Two values: -scale and scale (bipolar), or 0 and scale.

    Bipolar: scale where x >= 0, else -scale. Zero-one: scale where x > 0, else 0. The scale is 1, or the mean of |x|
    (of the positive x for zero-one) from calibration. The sign decides, as binary networks define it, not the nearer
    value.

    Stochastic: the upper value with probability (x / scale + 1) / 2, cut to 0 .. 1. The noise is a hash of the seed and
    the element's position (row-major), so equal tensors round equally, on every device; `with_seed` gives another draw.
    A stochastic format is not idempotent for values other than the bipolar +-scale.

    NaN stays NaN; infinities count by their sign; a zero of either sign is >= 0; everything overflows alike.

    Source: Courbariaux et al. 2016, arXiv:1602.02830; Rastegari et al. 2016, XNOR-Net, arXiv:1603.05279 (scale).

    Args:
        bipolar: -1 and 1, or 0 and 1.
        scaled: whether the scale comes from data.
        stochastic: whether rounding is random.
        seed: of the noise.
        scale: the upper value; None before calibration.

    Example:
        >>> Binary().quantise(torch.tensor([-0.3, 0.0, 5.0]))
        tensor([-1.,  1.,  1.])
    """

    bipolar: bool = True
    scaled: bool = False
    stochastic: bool = False
    seed: int = 0
    scale: float | None = None

    def __post_init__(self) -> None:
        if not self.scaled and self.scale is None:
            object.__setattr__(self, "scale", 1.0)
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise FormatError(f"binary: scale must be positive and finite, got {self.scale!r}.")
        if not self.scaled and self.scale != 1.0:
            raise FormatError(f"binary: scale must be 1 unless the format is scaled, got {self.scale!r}.")

    @property
    def element_bits(self) -> int:
        return 1

    @property
    def maximum(self) -> float:
        return math.nan if self.scale is None else self.scale

    @property
    def minimum(self) -> float:
        return -self.maximum if self.bipolar else 0.0

    @property
    def step(self) -> float:
        return self.maximum

    @property
    def needs_calibration(self) -> bool:
        return self.scale is None

    def values(self) -> NDArray[np.float64]:
        return Format.values(self) if self.scale is None else np.array([self.minimum, self.maximum])

    def element_values(self) -> NDArray[np.float64]:
        return np.array([-1.0 if self.bipolar else 0.0, 1.0]) if self.scale is None else self.values()

    def in_range(self, x: Tensor) -> Tensor | None:
        """The gradient passes where |x| <= max(scale, 1): for zero-one too, so that negative weights can come back."""
        bound = max(self.scale or 1.0, 1.0)
        return x.abs() <= bound

    def with_seed(self, seed: int) -> Binary:
        """The same format with other noise."""
        return replace(self, seed=seed)

    def calibrate(self, observed: Statistics | Tensor) -> Binary:
        """The format with the scale of the observed values: a mean over bins, each within 1/256 of its values."""
        if self.scale is not None:
            return self
        statistics = Statistics.of(observed) if isinstance(observed, Tensor) else observed.whole()
        statistics.check("binary")
        values, counts = statistics.channel(0)
        kept = np.ones(len(values), bool) if self.bipolar else values > 0
        mean = float(np.dot(np.abs(values[kept]), counts[kept]) / max(int(counts[kept].sum()), 1))
        return replace(self, scale=float(np.float32(mean)) or 1.0)

    def quantise(self, x: Tensor) -> Tensor:
        if self.scale is None:
            raise FormatError("binary: the scale is not known yet. Call calibrate(statistics) first.")
        if self.stochastic:
            return self._quantise_stochastic(x.detach(), self.scale)
        return round_elements(x, _SignKernel(self.scale, self.bipolar))

    def _quantise_stochastic(self, x: Tensor, scale: float) -> Tensor:
        ordered = x.contiguous()
        if not is_worth_splitting(ordered):
            return self._draw(x, scale, 0)
        flat = ordered.view(-1)
        out = torch.empty_like(flat)
        for first in range(0, len(flat), _AT_ONCE):
            part = flat[first : first + _AT_ONCE]
            out[first : first + _AT_ONCE] = self._draw(part, scale, first)
        return out.view(x.shape)

    def _draw(self, x: Tensor, scale: float, first: int) -> Tensor:
        wide = x.to(work_dtype(x))
        probability = wide.mul(1 / scale).add_(1).mul_(0.5)
        upper = uniform_noise(x, self.seed, first) < probability
        return torch.where(upper, self.maximum, self.minimum).to(wide.dtype).add_(keep_nan(wide)).to(x.dtype)

    def __str__(self) -> str:
        parts = [] if self.bipolar else ["zero_one"]
        parts += ["scaled"] if self.scaled else []
        parts += ["stochastic"] if self.stochastic else []
        parts += [f"seed={self.seed}"] if self.seed else []
        parts += [f"scale={self.scale!r}"] if self.scaled and self.scale is not None else []
        return f"binary({','.join(parts)})" if parts else "binary"


@final
@dataclass(frozen=True, slots=True)
class _SignKernel:
    """The scale, or what is below it, by the sign."""

    scale: float
    bipolar: bool

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if not self.bipolar:
            return torch.mul(x.sign().clamp_min_(0.0), self.scale, out=out).add_(keep_nan(x))
        signed = x + 0.0  # -0 + 0 is +0
        return torch.add(keep_nan(x), self.scale, out=out).copysign_(signed)

    def loop(self, dtype: torch.dtype) -> Loop:
        below, middle = (-self.scale, self.scale) if self.bipolar else (0.0, 0.0)
        return Loop("levels", (0.0, 0.0, below, middle, self.scale))


def uniform_noise(x: Tensor, seed: int, first: int = 0) -> Tensor:
    """Numbers in [0, 1), one for each element of x: 24 bits of a hash of (seed, row-major position, from `first` on).

    The hash follows the 32-bit finaliser of MurmurHash3 (Appleby, public domain), with factors cut to 31 bits so that
    products fit int64: the same numbers on every device.
    """
    word = 0xFFFFFFFF
    position = torch.arange(first, first + x.numel(), device=x.device, dtype=torch.int64).reshape(x.shape)
    h = position.add_((seed * 0x9E3779B1) & word).bitwise_and_(word)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = h.bitwise_xor(h >> shift).mul_(factor & 0x7FFFFFFF).bitwise_and_(word)
    h = h.bitwise_xor(h >> 16)
    return (h >> 8).to(torch.float32) * 2.0**-24
