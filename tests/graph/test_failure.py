"""Laws of models that resist tracing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dovetail.costs import CostModel
from dovetail.data import Split
from dovetail.errors import TraceError
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if y.sum() > 0:  # the line at fault
            raise ValueError("positive")
        raise ValueError("negative")


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(x.shape[0], 3, 4).flatten(1))


class Looked(nn.Module):
    """Looks a function up by a width, which a symbol is not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b({8: torch.relu, 16: torch.tanh}[y.shape[1]](y))


class OneBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)).view(int(x.shape[0]), -1))


def test_control_flow_on_values_in_a_model_that_does_not_run_is_an_error_that_names_the_line_and_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"test_failure\.py:\d+: if y\.sum\(\) > 0.*torch\.where"):
        trace(Refusing(), (torch.randn(2, 4),))


def test_a_width_that_tracing_fixed_is_a_frozen_group_that_names_the_line() -> None:
    group = trace(Fixed(), (torch.randn(2, 8),)).group("a")
    assert group.base == 12
    assert group.frozen is not None
    assert "test_failure.py" in group.frozen
    assert "view(x.shape[0], 3, 4)" in group.frozen


def test_a_model_whose_widths_cannot_be_symbols_has_a_graph_of_constant_widths_at_any_batch() -> None:
    torch.manual_seed(0)
    model = Looked()
    graph = trace(model, (torch.randn(2, 4),))
    assert graph.is_replayable
    assert {group.name: group.base for group in graph.groups if group.frozen is not None} == {"a": 8, "b": 2}
    assert CostModel(graph, 5).price(Plan())["macs"].value == 5 * (4 * 8 + 8 * 2)
    split = Split((torch.randn(7, 4),), torch.arange(7) % 2)
    plans = [Plan(), Plan.of({Site("a", SiteKind.WEIGHT): parse("fixed(3,1)")})]
    expected = [outcome.score for outcome in ReferenceEvaluator(graph, model, split, batch_size=3).evaluate(plans)]
    found = {o.plan: o.score for o in PtqEvaluator(graph, model, split, batch_size=3).evaluate(plans)}
    assert [found[plan] for plan in plans] == expected
    assert None not in expected


def test_a_model_that_makes_a_constant_of_the_batch_is_recorded_and_told_its_line() -> None:
    model = OneBatch()
    graph = trace(model, (torch.randn(2, 4),))
    assert not graph.is_replayable
    assert "view(int(x.shape[0]), -1)" in str(graph.obstacle)
    assert "test_failure.py" in str(graph.group("a").frozen)
    assert CostModel(graph, 5).price(Plan())["macs"].value == 5 * (4 * 8 + 8 * 2)
