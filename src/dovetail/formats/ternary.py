"""Three values: minus, zero, plus."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.carrier import keep_nan, round_elements
from dovetail.formats.fused import Loop
from dovetail.formats.statistics import Statistics

__all__ = ["Ternary", "Threshold"]


class Threshold(StrEnum):
    """What the threshold is a part of."""

    MEAN = "mean"
    """0.75 times the mean of |x| (Li et al. 2016, Ternary weight networks, arXiv:1605.04711)."""
    MEDIAN = "median"
    """0.75 times the median of |x|."""
    MAX = "max"
    """0.05 times the maximum of |x| (Zhu et al. 2017, Trained ternary quantization, arXiv:1612.01064)."""


_PARTS = {Threshold.MEAN: 0.75, Threshold.MEDIAN: 0.75, Threshold.MAX: 0.05}


@final
@dataclass(frozen=True, slots=True)
class Ternary(Format):
    """`scale * sign(x)` where |x| > threshold, else 0.

    The threshold comes from calibration by `rule`; the scale is 1, or for a scaled format the mean of the |x| above the
    threshold. The threshold decides, as ternary networks define it, not the nearer value; it never reaches
    the scale, so rounding is idempotent.

    NaN stays NaN; infinities saturate to +-scale; the sign of a zero carries no meaning.

    Args:
        rule: which statistic gives the threshold.
        scaled: whether the scale comes from data.
        threshold: None before calibration.
        scale: None before calibration of a scaled format.
    """

    rule: Threshold = Threshold.MEAN
    scaled: bool = False
    threshold: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) != (self.scale is None):
            raise FormatError("ternary: threshold and scale must be given together, or neither.")
        if self.threshold is not None and self.scale is not None and not 0 <= self.threshold < self.scale < math.inf:
            raise FormatError(
                f"ternary: must have 0 <= threshold < scale, got threshold {self.threshold!r} and scale {self.scale!r}."
            )

    @property
    def element_bits(self) -> int:
        return 2

    @property
    def maximum(self) -> float:
        return math.nan if self.scale is None else self.scale

    @property
    def minimum(self) -> float:
        return -self.maximum

    @property
    def step(self) -> float:
        return self.maximum

    @property
    def needs_calibration(self) -> bool:
        return self.threshold is None

    def values(self) -> NDArray[np.float64]:
        return Format.values(self) if self.scale is None else np.array([-self.scale, 0.0, self.scale])

    def element_values(self) -> NDArray[np.float64]:
        return np.array([-1.0, 0.0, 1.0]) if self.scale is None else self.values()

    def in_range(self, x: Tensor) -> Tensor | None:
        """None: the gradient passes everywhere, for magnitudes above the scale are what the scale averages."""
        return None

    def calibrate(self, observed: Statistics | Tensor) -> Ternary:
        """The format with threshold and scale of the observed values: over bins, each within 1/256 of its values."""
        if self.threshold is not None:
            return self
        statistics = Statistics.of(observed) if isinstance(observed, Tensor) else observed.whole()
        statistics.check("ternary")
        values, counts = statistics.channel(0)
        order = np.argsort(np.abs(values), kind="stable")
        magnitudes, counts = np.abs(values)[order], counts[order]
        match self.rule:
            case Threshold.MEAN:
                base = float(np.dot(magnitudes, counts) / counts.sum())
            case Threshold.MEDIAN:
                cumulative = np.cumsum(counts)
                base = float(magnitudes[np.searchsorted(cumulative, cumulative[-1] / 2)])
            case Threshold.MAX:
                base = float(magnitudes[-1])
        threshold = float(np.float32(_PARTS[self.rule] * base))
        above = magnitudes > threshold
        mean = float(np.dot(magnitudes[above], counts[above]) / max(int(counts[above].sum()), 1))
        scale = (float(np.float32(mean)) or 1.0) if self.scaled else 1.0
        ceiling = float(np.nextafter(np.float32(scale), np.float32(0)))
        return replace(self, threshold=min(threshold, ceiling), scale=scale)

    def quantise(self, x: Tensor) -> Tensor:
        if self.threshold is None or self.scale is None:
            raise FormatError("ternary: the threshold is not known yet. Call calibrate(statistics) first.")
        return round_elements(x, _ThresholdKernel(self.threshold, self.scale))

    def __str__(self) -> str:
        parts = [self.rule.value]
        parts += ["scaled"] if self.scaled else []
        parts += [] if self.threshold is None else [f"threshold={self.threshold!r}", f"scale={self.scale!r}"]
        return f"ternary({','.join(parts)})"


@final
@dataclass(frozen=True, slots=True)
class _ThresholdKernel:
    """The scale with the sign of what is beyond the threshold, else zero."""

    threshold: float
    scale: float

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        kept = F.hardshrink(x, self.threshold)  # zero where |x| <= threshold
        return torch.mul(kept.sign_(), self.scale, out=out).add_(keep_nan(x))

    def loop(self, dtype: torch.dtype) -> Loop:
        return Loop("levels", (-self.threshold, self.threshold, -self.scale, 0.0, self.scale))
