"""Non-dominated sets and hypervolume, against hand counts, inclusion-exclusion and Monte Carlo."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dovetail.search.front import free_boxes, hypervolume, non_dominated


def obvious_front(points):
    return [not any((q >= p).all() and (q > p).any() for q in points) for p in points]


def union_by_inclusion_exclusion(points, reference):
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total -= (-1) ** size * np.prod(np.maximum(np.min(chosen, axis=0) - reference, 0))
    return total


@pytest.mark.parametrize("figures", [1, 2, 3, 4])
def test_the_front_is_what_pairwise_comparison_leaves(figures):
    for seed in range(20):
        points = np.random.default_rng(seed).integers(0, 5, (30, figures)).astype(float)
        assert non_dominated(points).tolist() == obvious_front(points)


def test_equal_points_stay_together_on_the_front():
    assert non_dominated([[1, 1], [1, 1], [0, 1]]).tolist() == [True, True, False]


def test_a_point_with_nan_is_never_on_the_front():
    assert non_dominated([[np.nan, 5], [1, 1]]).tolist() == [False, True]
    assert non_dominated([[np.nan, 5, 1], [1, 1, 1]]).tolist() == [False, True]


def test_an_infinitely_bad_figure_can_be_on_the_front():
    assert non_dominated([[2, -np.inf], [1, 0]]).tolist() == [True, True]
    assert non_dominated([[2, -np.inf], [2, 0]]).tolist() == [False, True]


def test_no_points_have_no_front_and_no_volume():
    assert non_dominated(np.empty((0, 2))).tolist() == []
    assert hypervolume(np.empty((0, 3)), [0, 0, 0]) == 0.0


def test_hypervolume_of_two_steps_is_counted_by_hand():
    assert hypervolume([[1, 3], [2, 2]], [0, 0]) == 3 + 2
    assert hypervolume([[1, 3], [2, 2], [1, 1]], [0.5, 1]) == 0.5 * 2 + 1 * 1


def test_points_below_the_reference_add_no_volume():
    assert hypervolume([[2, -1], [1, 1]], [0, 0]) == 1.0


@pytest.mark.parametrize("figures", [1, 2, 3, 4])
def test_hypervolume_equals_inclusion_and_exclusion_of_boxes(figures):
    for seed in range(10):
        points = np.random.default_rng(seed).integers(0, 6, (7, figures)).astype(float)
        reference = np.full(figures, 1.0)
        assert hypervolume(points, reference) == pytest.approx(union_by_inclusion_exclusion(points, reference))


@pytest.mark.parametrize("figures", [1, 2, 3, 4])
def test_free_boxes_are_disjoint_and_cover_what_is_not_dominated(figures):
    rng = np.random.default_rng(figures)
    points, reference = rng.integers(1, 6, (9, figures)).astype(float), np.zeros(figures)
    lower, upper = free_boxes(points, reference)
    for z in rng.uniform(0, 7, (500, figures)):
        holds = ((lower < z) & (z <= upper)).all(axis=1).sum()
        assert holds == (0 if (points >= z).all(axis=1).any() else 1)


@pytest.mark.parametrize("figures", [2, 3, 4])
def test_improvement_over_free_boxes_is_the_difference_in_hypervolume(figures):
    rng = np.random.default_rng(figures)
    points, reference = rng.uniform(0, 1, (12, figures)), np.zeros(figures)
    lower, upper = free_boxes(points, reference)
    for z in rng.uniform(0, 1.2, (20, figures)):
        gain = np.prod(np.maximum(np.minimum(upper, z) - lower, 0), axis=1).sum()
        assert gain == pytest.approx(hypervolume(np.vstack([points, z]), reference) - hypervolume(points, reference))


def test_two_figures_take_one_box_more_than_the_front_has_points():
    lower, upper = free_boxes([[1, 3], [2, 2], [3, 1]], [0, 0])
    assert len(lower) == 4
    assert np.isinf(upper[:, 0]).all()
