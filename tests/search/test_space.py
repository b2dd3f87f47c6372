"""A space is counted, enumerated and turned into plans without listing it, and says clearly when rules do not fit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from dovetail.errors import ConfigError, PlanError
from dovetail.formats import FLOAT32, FixedPoint, Format, parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan, Site, SiteKind
from dovetail.search import PrecisionRule, Space, WidthRule, build_space

EIGHT, FOUR = FixedPoint(8, 4), FixedPoint(4, 2)


@pytest.fixture(scope="module")
def graph() -> Graph:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 64, bias=False), nn.ReLU(), nn.Linear(64, 5))
    return trace(model, (torch.randn(8, 16),))


def formats(*texts: str) -> tuple[Format, ...]:
    return tuple(parse(text) for text in texts)


def joint(graph: Graph) -> Space:
    return build_space(
        graph,
        [PrecisionRule(operations="linear", together=True, data_in=(EIGHT, FOUR), weight=(EIGHT, FOUR, FLOAT32))],
        [WidthRule(groups="*", multipliers=(Fraction(1), Fraction(2), Fraction(1, 2), Fraction(4)))],
    )


def test_a_space_of_known_decisions_has_their_product_as_its_size(graph: Graph) -> None:
    space = joint(graph)
    assert [d.name for d in space.decisions] == ["linear:data_in", "linear:weight", "0:width", "2:width"]
    assert space.shape == (2, 3, 4, 4)
    assert space.size == 96


def test_rows_enumerate_every_row_once_with_the_last_decision_fastest(graph: Graph) -> None:
    space = joint(graph)
    rows = space.rows()
    assert rows[:5].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3], [0, 0, 1, 0]]
    assert len(np.unique(rows, axis=0)) == space.size
    for i in (0, 1, 37, 95):
        assert space.row_at(i) == tuple(rows[i])
        assert space.index(rows[i]) == i
    np.testing.assert_array_equal(space.rows(90, 200), rows[90:])


def test_a_row_spells_the_plan_its_choices_name(graph: Graph) -> None:
    plan = joint(graph).plan((1, 0, 1, 2))
    expected = {Site(name, SiteKind.DATA_IN): FOUR for name in "024"} | {Site(n, SiteKind.WEIGHT): EIGHT for n in "024"}
    assert plan == Plan.of(expected, {"0": 64, "2": 32})


def test_choices_that_leave_the_model_as_it_is_are_not_in_the_plan(graph: Graph) -> None:
    space = build_space(
        graph, [PrecisionRule(operations="0", weight=(FLOAT32,))], [WidthRule(groups="0", multipliers=(Fraction(1),))]
    )
    assert space.plan((0, 0)) == Plan()


def test_every_plan_of_a_space_passes_the_graphs_own_check(graph: Graph) -> None:
    space = joint(graph)
    for row in space.rows():
        graph.check(space.plan(row))


def test_together_false_decides_for_each_operation_in_the_order_of_the_graph(graph: Graph) -> None:
    space = build_space(
        graph, [PrecisionRule(operations="4", bias=(EIGHT,)), PrecisionRule(operations="*", weight=(EIGHT, FOUR))]
    )
    assert [d.name for d in space.decisions] == ["0:weight", "2:weight", "4:bias"]


def test_the_first_rule_that_matches_wins(graph: Graph) -> None:
    rules = [PrecisionRule(operations="2", weight=(FOUR,)), PrecisionRule(operations="linear", weight=(EIGHT,))]
    plan = build_space(graph, rules).plan((0, 0, 0))
    assert [str(plan.format(Site(name, SiteKind.WEIGHT))) for name in "024"] == [
        "fixed(8,4)",
        "fixed(4,2)",
        "fixed(8,4)",
    ]


def test_one_multiplier_can_scale_groups_of_different_width_together(graph: Graph) -> None:
    space = build_space(graph, width=[WidthRule(groups="*", multipliers=(Fraction(1), Fraction(3)), together=True)])
    assert space.size == 2
    assert space.plan((1,)) == Plan.of(widths={"0": 96, "2": 192})
    assert space.decisions[0].labels == ("x1", "x3")


def test_widths_round_to_the_stated_multiple_with_half_going_up(graph: Graph) -> None:
    rule = WidthRule(groups="0", multipliers=(Fraction(1, 3), Fraction(3, 8)), round_to=8)
    assert build_space(graph, width=[rule]).decisions[0].widths == ((8,), (16,))  # 10.67 -> 8; 12 lies between 8 and 16


def test_spellings_of_one_plan_are_folded_into_the_first(graph: Graph) -> None:
    rule = WidthRule(groups="0", multipliers=(Fraction(1), Fraction(33, 32), Fraction(1025, 1024)))
    space = build_space(graph, width=[rule])
    assert space.canonical((2,)) == (0,)
    assert space.distinct == 2
    assert space.is_canonical(space.rows()).tolist() == [True, True, False]
    assert space.plan((2,)) == space.plan((0,))


def test_a_space_beyond_64_bits_is_counted_exactly(graph: Graph) -> None:
    multipliers = tuple(Fraction(n) for n in range(1, 1 + 2**11))
    space = build_space(graph, width=[WidthRule(groups="*", multipliers=multipliers)])
    wide = Space(space.decisions * 5, space.base_widths)
    assert wide.size == 2**110
    assert wide.index(wide.row_at(2**100 + 7)) == 2**100 + 7
    assert wide.rows(2**100, 2**100 + 2).tolist()[1] == list(wide.row_at(2**100 + 1))


def test_a_pattern_that_matches_nothing_names_the_nearest(graph: Graph) -> None:
    with pytest.raises(ConfigError, match="'liner' matches nothing: .*Did you mean 'linear'"):
        build_space(graph, [PrecisionRule(operations="liner", weight=(EIGHT,))])
    with pytest.raises(ConfigError, match="groups = 'seq' matches nothing: unknown width group 'seq'. Known: 0, 2"):
        build_space(graph, width=[WidthRule(groups="seq", multipliers=(Fraction(1),))])


def test_an_optional_rule_that_matches_nothing_is_noted(graph: Graph) -> None:
    rules = [
        PrecisionRule(operations="conv2d", weight=(EIGHT,), optional=True),
        PrecisionRule(operations="0", weight=(EIGHT,)),
    ]
    assert "'conv2d' matches nothing" in build_space(graph, rules).notes[0]


def test_formats_for_a_tensor_that_no_match_has_are_noted(graph: Graph) -> None:
    space = build_space(graph, [PrecisionRule(operations="2", weight=(EIGHT,), bias=(EIGHT,))])
    assert "has a bias" in space.notes[0]
    assert len(space.decisions) == 1


def test_a_rule_shadowed_by_earlier_ones_is_an_error(graph: Graph) -> None:
    rules = [PrecisionRule(operations="linear", weight=(EIGHT,)), PrecisionRule(operations="4", weight=(FOUR,))]
    with pytest.raises(ConfigError, match="taken by earlier rules"):
        build_space(graph, rules)


def test_a_frozen_group_says_why_it_cannot_change(graph: Graph) -> None:
    with pytest.raises(ConfigError, match="group '4' is frozen: .*output"):
        build_space(graph, width=[WidthRule(groups="4", multipliers=(Fraction(2),))])


@pytest.mark.parametrize(
    ("multiplier", "message"),
    [(Fraction(-1), "must be > 0, got -1"), (Fraction(1, 100), "leaves 0. The smallest .* 0.015625")],
)
def test_a_multiplier_that_leaves_no_channels_is_refused(graph: Graph, multiplier: Fraction, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_space(graph, width=[WidthRule(groups="0", multipliers=(multiplier,))])


def test_nothing_to_decide_is_an_error_unless_allowed(graph: Graph) -> None:
    with pytest.raises(ConfigError, match="nothing to decide"):
        build_space(graph)
    assert build_space(graph, allow_empty=True).size == 1
    assert build_space(graph, allow_empty=True).plan(()) == Plan()


@pytest.mark.parametrize("row", [(0,), (0, 0, 0, 4), (0, 0, 0, -1)])
def test_a_row_of_another_space_is_refused(graph: Graph, row: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match="one choice index per decision"):
        joint(graph).plan(row)


def test_plans_spelt_in_bulk_are_those_built_with_every_check(graph: Graph) -> None:
    space = joint(graph)
    for row in space.rows():
        plan = space.plan(row)
        assert Plan(plan.formats, plan.widths) == Plan.of(dict(plan.formats), dict(plan.widths)) == plan
