"""Modules that people have beside linear layers and convolutions: what is offered runs, what cannot change says why."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dovetail.costs import CostModel
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.transforms import apply, inheritance_report, resize
from tests.odd_models import ODD, Net, made


def scaled(graph: Graph, factor: float) -> Plan:
    free = [group for group in graph.groups if group.frozen is None]
    return Plan.of(widths={g.name: max(int(g.base * factor) // g.multiple_of, 1) * g.multiple_of for g in free})


@pytest.mark.parametrize("name", ODD)
def test_what_is_offered_runs_wider_and_narrower_and_is_exact_where_it_is_said_to_be(name: str) -> None:
    model, x, graph = made(name)
    with torch.no_grad():
        expected = model(x)
        for factor in (0.5, 1.5):
            assert resize(graph, model, scaled(graph, factor))(x).shape == expected.shape
        doubled = scaled(graph, 2.0)
        grown = resize(graph, model, doubled)(x)
    if all(change.exact for change in inheritance_report(graph, doubled)):
        assert torch.allclose(grown, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "group", "reason"),
    [
        ("lstm", "l", "takes the size of its state from a number"),
        ("gru-after-linear", "l.weight_hh_l0", "takes the size of its state from a number"),
        ("norm-by-number", "l", "Given normalized_shape=[8], expected input with shape [8]"),
        ("embedding", "e.weight", "looks its rows up by the model's input"),
        ("embedding-bag", "e.weight", "looks its rows up by the model's input"),
        ("gate-cut-in-places", "gate", "cuts its channels at fixed places"),
        ("top-3", "l", "cuts its channels at fixed places"),
    ],
)
def test_what_cannot_change_says_why(name: str, group: str, reason: str) -> None:
    _, _, graph = made(name)
    assert reason in str(graph.group(group).frozen)


def test_number_and_width_of_heads_are_groups_of_their_own() -> None:
    _, _, graph = made("heads")
    assert {g.name: g.base for g in graph.groups if g.frozen is None} == {"i": 10, "num_heads": 4, "head_dim": 3}


def test_calls_that_are_made_otherwise_for_the_exporter_have_no_sites() -> None:
    def code(s: Net, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # as libraries do, for masks
            x = x + 0.0
        return s.b(torch.relu(s.a(x)) + 1.0)

    graph = trace(Net(code, a=nn.Linear(4, 8), b=nn.Linear(8, 3)), (torch.randn(2, 4),))
    reasons = {o.type: o.no_sites for o in graph.operations}
    assert reasons["add"] == "the model's code makes other calls when it runs than when it is exported"
    assert reasons["linear"] is None


def test_calls_on_integers_do_not_count_among_those_on_activations() -> None:
    def code(s: Net, x: Tensor) -> Tensor:
        places = torch.arange(8)
        if torch.compiler.is_exporting():
            places = places + 0
        return s.b(torch.relu(s.a(x)) + s.p(places))

    model = Net(code, a=nn.Linear(4, 8), b=nn.Linear(8, 3), p=Net(lambda s, places: places * 0.5)).eval()
    x = torch.randn(2, 4)
    graph = trace(model, (x,))
    (add,) = (o for o in graph.operations if o.type == "add" and o.sites)
    rounded = apply(graph, model, Plan.of({add.all_sites[0]: parse("fixed(3,0)")}))
    with torch.no_grad():
        by_hand = model.b(
            torch.round(torch.relu(model.a(x))).clamp(-4, 3) + torch.round(torch.arange(8) * 0.5).clamp(-4, 3)
        )
        assert torch.equal(rounded(x), by_hand)


def test_every_head_of_a_model_is_a_result_that_is_priced_and_keeps_its_channels() -> None:
    def heads(s: Net, x: Tensor) -> dict[str, Tensor]:
        return {"scores": s.a(s.t(x)), "boxes": s.b(s.t(x))}

    model = Net(heads, t=nn.Linear(4, 8), a=nn.Linear(8, 3), b=nn.Linear(8, 5))
    graph = trace(model, (torch.randn(2, 4),))
    assert [(g.name, g.frozen is None) for g in graph.groups] == [("t", True), ("a", False), ("b", False)]
    # t is called twice; boxes cost as scores do
    assert CostModel(graph, 1).price(Plan.of())["macs"].value == 2 * 4 * 8 + 8 * 3 + 8 * 5
