"""Quantities with units, as a configuration writes them: durations, byte sizes and the limits of constraints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dovetail.errors import ConfigError

__all__ = ["Limit", "parse_bytes", "parse_duration_s", "parse_limit"]

_SECONDS = {
    "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3,
    "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_BYTES = {
    "": 1, "B": 1,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_COUNTS = {"": 1, "K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SHARES = {"%": 0.01}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%]*)\s*")


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on a metric, in the metric's own unit (bytes, milliseconds, counts, shares).

    Args:
        metric: what is bounded.
        op: which side is allowed; the bound itself is.
        value: the bound.
        unit: what the text gave it in: "bytes", "ms", "share", or "" for a bare number, which fits any metric.
    """

    metric: str
    op: Literal["<=", ">="]
    value: float
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Whether a value is within the limit; NaN never is."""
        return value <= self.value if self.op == "<=" else value >= self.value


def parse_duration_s(value: str | float) -> float:
    """Seconds in `"10 min"`, `"90 s"`, `"1.5 h"`; a bare number is seconds.

    Raises:
        ConfigError: Not a positive duration.

    Example:
        >>> parse_duration_s("10 min")
        600.0
    """
    return _positive(value, _SECONDS, "a duration such as '10 min', '90 s' or '2 h'")


def parse_bytes(value: str | int) -> int:
    """Bytes in `"4 KiB"`, `"2 GB"`; a bare number is bytes.

    Raises:
        ConfigError: Not a size of at least one byte.

    Example:
        >>> parse_bytes("4 KiB")
        4096
    """
    return int(_positive(value, _BYTES, "a size such as '512 MiB' or '2 GB'"))


def parse_limit(metric: str, text: str) -> Limit:
    """A constraint: `"<= 4 KiB"`, `">= 0.9"`, `"<= 5 K"`, `"<= 250 us"`, `">= 90 %"`.

    Byte units give bytes, time units milliseconds (the unit of `latency_ms`), K, M, G and T are powers of 1,000.

    Raises:
        ConfigError: Not `<=` or `>=` and a number with a known unit.

    Example:
        >>> parse_limit("model_bytes", "<= 4 KiB")
        Limit(metric='model_bytes', op='<=', value=4096.0, unit='bytes')
    """
    op, rest = text.strip()[:2], text.strip()[2:]
    for unit, scales in (("", _COUNTS), ("bytes", _BYTES), ("ms", _MILLISECONDS), ("share", _SHARES)):
        value = _amount(rest, scales)
        if value is not None and op in ("<=", ">="):
            return Limit(metric, "<=" if op == "<=" else ">=", value, unit)
    raise ConfigError(f"constraints.{metric}: must be '<=' or '>=' and a number, such as '<= 4 KiB', got {text!r}.")


def _positive(value: str | float, units: Mapping[str, float], what: str) -> float:
    amount = _amount(value, units) if isinstance(value, str) else float(value)
    if amount is None or not 0 < amount < float("inf"):
        raise ConfigError(f"must be {what}, got {value!r}.")
    return amount


def _amount(text: str, units: Mapping[str, float]) -> float | None:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]
