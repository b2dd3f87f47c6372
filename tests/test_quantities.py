"""Durations, sizes and limits are read with their units, and nothing else is."""

from __future__ import annotations

import math

import pytest

from dovetail.errors import ConfigError
from dovetail.quantities import Limit, parse_bytes, parse_duration_s, parse_limit


@pytest.mark.parametrize(
    ("text", "seconds"), [("10 min", 600), ("90 s", 90), ("1.5 h", 5400), ("2h", 7200), (20000, 20000), ("500 ms", 0.5)]
)
def test_a_duration_is_read_in_seconds(text: str | float, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "ten minutes", "10 parsecs", "-1 s", "0 s", "nan", -1, math.inf])
def test_what_is_no_positive_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ConfigError, match="must be a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(("text", "size"), [("4 KiB", 4096), ("2 GB", 2 * 10**9), ("1.5MiB", 1572864), (17, 17)])
def test_a_size_is_read_in_bytes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "op", "value", "unit"),
    [
        ("<= 4 KiB", "<=", 4096, "bytes"),
        (">= 0.9", ">=", 0.9, ""),
        (">= 90 %", ">=", 0.9, "share"),
        ("<= 5 K", "<=", 5000, ""),
        ("<= 250 us", "<=", 0.25, "ms"),
        ("<=1e6", "<=", 1e6, ""),
    ],
)
def test_a_limit_is_read_in_its_metrics_unit(text: str, op: str, value: float, unit: str) -> None:
    limit = parse_limit("m", text)
    assert (limit.metric, limit.op, limit.unit) == ("m", op, unit)
    assert limit.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["4 KiB", "< 4", "== 4", "<= four", "<= 4 KiB KiB", "<="])
def test_what_is_no_limit_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"constraints\.model_bytes: must be '<=' or '>='"):
        parse_limit("model_bytes", text)


def test_a_limit_holds_at_its_bound_and_never_for_nan() -> None:
    assert Limit("m", "<=", 4).holds(4)
    assert not Limit("m", "<=", 4).holds(4.1)
    assert Limit("m", ">=", 4).holds(4)
    assert not Limit("m", ">=", 4).holds(math.nan)
    assert not Limit("m", "<=", 4).holds(math.nan)
