"""Pairwise sums reproduce what they expand, and their integer programs find what enumeration finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dovetail.search.pairwise import Bound, PairwiseSum, expand, minimise

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def random_sum(shape: tuple[int, ...], seed: int) -> PairwiseSum:
    draw = np.random.default_rng(seed)
    singles = tuple(draw.normal(size=n) for n in shape)
    pairs = {
        (d, e): draw.normal(size=(shape[d], shape[e]))
        for d, e in itertools.combinations(range(len(shape)), 2)
        if draw.random() < 0.5
    }
    return PairwiseSum(draw.normal(), singles, pairs)


def all_rows(shape: tuple[int, ...]) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, shape))), dtype=np.int64)


@given(shapes, st.integers(0, 2**32 - 1))
def test_an_expansion_around_any_row_gives_back_a_pairwise_sum_exactly(shape: tuple[int, ...], seed: int) -> None:
    function, rows = random_sum(shape, seed), all_rows(shape)
    origin = tuple(int(c) for c in rows[seed % len(rows)])
    np.testing.assert_allclose(expand(function, shape, origin)(rows), function(rows), atol=1e-9)


@given(shapes, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_integer_program_agrees_with_enumeration(shape: tuple[int, ...], seed: int, share: float) -> None:
    function, cost, rows = random_sum(shape, seed), random_sum(shape, seed + 1), all_rows(shape)
    limit = float(np.quantile(cost(rows), share)) + 1e-6
    found = minimise(function, [Bound(cost, high=limit)])
    assert found is not None
    feasible = rows[cost(rows) <= limit]
    assert cost(np.array([found]))[0] <= limit + 1e-6
    assert function(np.array([found]))[0] == pytest.approx(function(feasible).min(), abs=1e-5)


@given(shapes, st.integers(0, 2**32 - 1))
def test_excluded_rows_are_passed_over_until_none_is_left(shape: tuple[int, ...], seed: int) -> None:
    function, rows = random_sum(shape, seed), all_rows(shape)
    seen: list[tuple[int, ...]] = []
    for _ in range(min(len(rows), 5)):
        found = minimise(function, exclude=seen)
        assert found is not None
        assert found not in seen
        seen.append(found)
    values = function(np.array(seen))
    np.testing.assert_allclose(values, np.sort(function(rows))[: len(seen)], atol=1e-5)
    if len(rows) <= 5:
        assert minimise(function, exclude=seen) is None


def test_bounds_that_no_row_keeps_have_no_answer() -> None:
    function = random_sum((3, 3), 0)
    assert minimise(function, [Bound(function, high=float(function(all_rows((3, 3))).min()) - 1)]) is None


def test_sums_add_and_scale_as_their_values_do() -> None:
    a, b, rows = random_sum((2, 3, 4), 1), random_sum((2, 3, 4), 2), all_rows((2, 3, 4))
    np.testing.assert_allclose((a + b.scaled(-2.5))(rows), a(rows) - 2.5 * b(rows))


def test_an_expansion_in_lots_equals_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    function, shape = random_sum((3, 4, 2, 3), 3), (3, 4, 2, 3)
    whole = expand(function, shape, (0, 0, 0, 0))
    monkeypatch.setattr("dovetail.search.pairwise._CHUNK", 1)
    in_lots = expand(function, shape, (0, 0, 0, 0))
    assert whole.pairs.keys() == in_lots.pairs.keys()
    for key in whole.pairs:
        np.testing.assert_array_equal(whole.pairs[key], in_lots.pairs[key])
