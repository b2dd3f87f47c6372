from __future__ import annotations

import numpy as np
import pytest
import sympy

from dovetail.transforms.layout import Layout

a, b = sympy.symbols("a b", integer=True, positive=True)


def test_size_is_the_sum_of_products() -> None:
    assert Layout.of([(a, 4), (8,)]).size == 4 * a + 8


def test_neighbouring_constants_are_one() -> None:
    assert Layout.of([(2, 3), (4,), (a, 1, 2, 2)]) == Layout(((10,), (a, 4)))


def test_equal_neighbouring_segments_are_counted() -> None:
    assert Layout.of([(a,), (2, a), (b,)]) == Layout(((3, a), (b,)))


def test_merging_puts_the_outer_dimension_first() -> None:
    assert Layout.of([(a,)]).times(Layout.of([(4,)])) == Layout(((a, 4),))


def test_a_concatenation_merged_with_pixels_stays_a_concatenation() -> None:
    assert Layout.of([(a,), (b,)]).times(Layout.of([(4,)])) == Layout(((a, 4), (b, 4)))


def test_a_constant_before_a_concatenation_repeats_it() -> None:
    assert Layout.of([(2,)]).times(Layout.of([(a,), (b,)])) == Layout(((a,), (b,), (a,), (b,)))


def test_channels_before_a_concatenation_have_no_layout() -> None:
    assert Layout.of([(a,)]).times(Layout.of([(a,), (b,)])) is None


@pytest.mark.parametrize(
    ("segments", "outer", "inner", "expected"),
    [
        ([(a, 4)], a, 4, ([(a,)], [(4,)])),
        ([(3, a)], 3, a, ([(3,)], [(a,)])),
        ([(a, 12)], 3 * a, 4, ([(a, 3)], [(4,)])),
        ([(3, a, b)], 3 * a, b, ([(3, a)], [(b,)])),
        ([(a,), (a,)], 2, a, ([(2,)], [(a,)])),
    ],
)
def test_a_view_splits_between_factors(segments, outer, inner, expected) -> None:
    assert Layout.of(segments).split(outer, inner) == tuple(Layout.of(part) for part in expected)


def test_a_view_that_cuts_through_channels_has_no_layout() -> None:
    assert Layout.of([(a, 4)]).split(4, a) is None


def test_cutting_gives_the_segments_back() -> None:
    assert Layout.of([(a,), (8,), (b,)]).cut([a + 3, b + 5]) == [Layout.of([(a,), (3,)]), Layout.of([(5,), (b,)])]


def test_cutting_through_channels_is_impossible() -> None:
    assert Layout.of([(a,)]).cut([sympy.Integer(2), a - 2]) is None


def test_source_follows_the_channels_of_each_segment() -> None:
    # a: 2 -> 3 channels, copies 0, 0, 1; elements of a come in pairs, then one constant
    layout = Layout.of([(a, 2), (1,)])
    found = layout.source({a: np.array([0, 0, 1])}, {a: 2})
    assert found.tolist() == [0, 1, 0, 1, 2, 3, 4]


def test_source_of_a_product_of_two_groups() -> None:
    # 2 heads of 2 -> 2 heads of 3: channels 0, 0, 1 in each
    found = Layout.of([(a, b)]).source({a: np.array([0, 1]), b: np.array([0, 0, 1])}, {a: 2, b: 2})
    assert found.tolist() == [0, 0, 1, 2, 2, 3]


def test_spread_multiplies_over_the_factors() -> None:
    found = Layout.of([(a, 2), (1,)]).spread({a: np.array([0.5, 1.0])})
    assert found.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0]


def test_channels_tell_the_channel_of_each_element() -> None:
    assert Layout.of([(a, 2), (1,), (a,)]).channels(a, {a: 2}).tolist() == [0, 0, 1, 1, -1, 0, 1]
    assert Layout.of([(2, a)]).channels(a, {a: 2}).tolist() == [0, 1, 0, 1]


def test_a_guess_needs_a_sum_of_products() -> None:
    assert Layout.guess(4 * a + 8) == Layout.of([(8,), (a, 4)]) or Layout.guess(4 * a + 8) == Layout.of([(a, 4), (8,)])
    assert Layout.guess(sympy.floor(a / 2)) is None
