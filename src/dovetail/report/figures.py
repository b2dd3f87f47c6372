"""Figures as text for people; files and JSON carry them in full."""

from __future__ import annotations

import math

from dovetail.evaluation.score import Measured

__all__ = ["format_duration", "format_figure", "format_measured"]


def format_figure(value: float) -> str:
    """A figure with at most five significant digits, integers with their thousands apart.

    Example:
        >>> format_figure(3013.0), format_figure(0.84371234), format_figure(8_610_000.5)
        ('3,013', '0.84371', '8.61e+06')
    """
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.5g}"


def format_measured(measured: Measured) -> str:
    """A figure with its 95 % interval and its samples.

    Example:
        >>> format_measured(Measured(0.9, 100, 0.8256, 0.9448))
        '0.9 [0.8256, 0.9448] n=100'
    """
    return f"{format_figure(measured.value)} [{measured.low:.4g}, {measured.high:.4g}] n={measured.samples:,}"


def format_duration(seconds: float) -> str:
    """A duration in the unit in which it is a handy number.

    Example:
        >>> [format_duration(s) for s in (0.0004, 2.25, 125, 7260)]
        ['0.4 ms', '2.2 s', '2 min 5 s', '2 h 1 min']
    """
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
