"""What `dovetail space` tells of a space: decisions, groups, ranges of costs."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from dovetail import space_report
from dovetail.costs import COSTS, CostModel
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.search.space import PrecisionRule, Space, WidthRule, build_space
from dovetail.session import Session
from dovetail.settings import DataConfig, ModelConfig, RunConfig
from dovetail.space_report import cost_ranges, decision_table, group_table, range_table


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.zeros(2, 4),))


@pytest.fixture(scope="module")
def space(graph: Graph) -> Space:
    formats = (parse("fixed(4,2)"), parse("fixed(8,4)"))
    return build_space(
        graph,
        precision=[PrecisionRule(operations="linear", weight=formats)],
        width=[WidthRule(groups="0", multipliers=(Fraction(1, 2), Fraction(1), Fraction(2)))],
    )


@pytest.fixture
def session(graph: Graph, space: Space) -> Session:
    config = RunConfig(model=ModelConfig(name="mlp"), data=DataConfig(name="digits"))
    found = Session(config, space=space)
    found.__dict__.update(graph=graph, costs=CostModel(graph, 1))
    return found


def test_ranges_are_those_of_all_plans_priced_one_by_one(session: Session, space: Space) -> None:
    plans = [session.costs.price(space.plan(space.row_at(i))) for i in range(space.size)]
    base = session.costs.price(Plan())
    for found in cost_ranges(session):
        values = [prices[found.name].value for prices in plans]
        assert (found.minimum, found.base, found.maximum) == (min(values), base[found.name].value, max(values))
        assert found.is_exact


def test_ranges_by_hand(session: Session) -> None:
    found = {r.name: r for r in cost_ranges(session)}
    assert (found["params"].minimum, found["params"].maximum) == (4 * 4 + 4 + 4 * 3 + 3, 4 * 16 + 16 + 16 * 3 + 3)
    assert (found["average_bitwidth"].minimum, found["average_bitwidth"].maximum) == (4, 8)


def test_a_large_space_is_sampled_and_says_so_unless_its_extremes_are_known(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_report, "_COUNTED", 8)
    monkeypatch.setattr(space_report, "_PART", 4)
    sampled = cost_ranges(session)
    assert not any(r.is_exact for r in sampled)
    assert sampled == cost_ranges(session)
    assert range_table(sampled).title == "Costs (range of a sample of 8 plans)"
    known = cost_ranges(session, dict.fromkeys(COSTS, (1.0, 2.0)))
    assert all(r.is_exact and (r.minimum, r.maximum) == (1.0, 2.0) for r in known)
    assert range_table(known).title == "Costs"


def test_a_sample_lies_within_the_space(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {r.name: r for r in cost_ranges(session)}
    monkeypatch.setattr(space_report, "_COUNTED", 8)
    monkeypatch.setattr(space_report, "_PART", 4)
    for found in cost_ranges(session):
        assert exact[found.name].minimum <= found.minimum <= found.maximum <= exact[found.name].maximum


def test_tables_have_a_row_per_decision_group_and_cost(session: Session, graph: Graph, space: Space) -> None:
    decisions = decision_table(space)
    assert decisions.title == "3 decisions"
    assert decisions.rows[0] == ("0:weight", "precision", "2", "fixed(4,2), fixed(8,4)", "0:weight")
    assert decisions.rows[-1] == ("0:width", "width", "3", "x0.5, x1, x2", "0")
    assert [row[0] for row in group_table(graph).rows] == [group.name for group in graph.groups]
    assert [row[0] for row in range_table(cost_ranges(session)).rows] == list(COSTS)


def test_groups_that_cannot_be_grown_without_changing_the_function_say_why() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.Softmax(1), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    table = group_table(trace(network, (torch.zeros(2, 4),)))
    assert table.columns[-1] == "not grown exactly because"
    reasons = {row[0]: row[-1] for row in table.rows}
    assert "softmax" in reasons["0"]
    assert reasons["2"] == ""


def test_where_every_group_grows_exactly_nothing_is_said_of_it(graph: Graph) -> None:
    assert group_table(graph).columns[-1] == "frozen because"
