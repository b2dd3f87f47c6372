"""Numbers as text in bulk: the same bytes as one at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dovetail.report.number_text import TextMatrix, number_cell, number_matrix, text_matrix


def read(matrix: TextMatrix) -> list[str]:
    """The text of each row, without its bytes of 0."""
    return [row.tobytes().replace(b"\0", b"").decode() for row in matrix]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (7.0, "7"), (10_000.0, "10000"), (-12.0, "-12"), (0.1, "0.1"),
        (2 / 3, "0.6666666666666666"), (float(2**53), "9007199254740992"), (1e16, "1e+16"), (1.5e-7, "1.5e-07"),
        (math.nan, "nan"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_a_number_is_written_as_its_shortest_exact_text_and_a_whole_one_without_a_point(
    value: float, text: str
) -> None:
    assert number_cell(value) == text
    assert read(number_matrix(np.array([value]))) == [text]


@given(st.lists(st.floats(width=64), min_size=1))
def test_any_floats_are_written_in_bulk_as_one_by_one(values: list[float]) -> None:
    assert read(number_matrix(np.array(values))) == [number_cell(value) for value in values]


@given(st.lists(st.integers(0, 2**53), min_size=1))
def test_whole_numbers_are_written_in_bulk_as_python_writes_them(values: list[int]) -> None:
    assert read(number_matrix(np.array(values, np.float64))) == [str(value) for value in values]


@given(st.lists(st.floats(-1e15, 1e15).filter(lambda x: abs(x) >= 1e-3) | st.integers(0, 99).map(float), min_size=1))
def test_everyday_sizes_whole_and_not_are_written_in_bulk_as_one_by_one(values: list[float]) -> None:
    assert read(number_matrix(np.array(values))) == [number_cell(value) for value in values]


def test_every_number_of_digits_is_written_with_no_zero_too_many() -> None:
    values = [n for power in range(16) for n in (10**power - 1, 10**power, 10**power + 1)]
    assert read(number_matrix(np.array(values, np.float64))) == [str(value) for value in values]


def test_no_numbers_and_empty_texts_are_no_text() -> None:
    assert number_matrix(np.empty(0)).shape[0] == 0
    assert text_matrix([b"", b""]).shape == (2, 0)
