"""What rounding does to a tensor, in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["noise_to_signal"]


def noise_to_signal(x: Tensor, rounded: Tensor, *, whole: bool = False) -> float:
    """min(|rounded - x|^2 / |x|^2, 1) of all of x, or of each sample, mean over those that are not all zero."""
    x, rounded = x.double().flatten(0 if whole else 1), rounded.double().flatten(0 if whole else 1)
    noise, signal = (rounded - x).square().sum(-1), x.square().sum(-1)
    counts = signal > 0
    return float((noise[counts] / signal[counts]).clamp(max=1.0).mean()) if counts.any() else 0.0
