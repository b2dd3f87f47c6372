from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dovetail.errors import PlanError, ResizeError, UnknownSiteError
from dovetail.graph import trace
from dovetail.plan import Plan
from dovetail.testing.transforms import check_resize, fingerprint
from dovetail.transforms import IMPORTANCE, Inherit, inheritance_report, resize
from dovetail.transforms.propagate import find_channels


def plan_for(graph, factor: float) -> Plan:
    free = [group for group in graph.groups if group.frozen is None]
    step = {group.name: max(2, group.multiple_of) for group in free}
    return Plan.of(widths={n: max(m, int(graph.group(n).base * factor) // m * m) for n, m in step.items()})


def test_layouts_of_a_flattened_residual_network(nets) -> None:
    graph, _, _ = nets("residual")
    layouts = {name: [str(x) for x in found] for name, found in find_channels(graph).layouts.items()}
    assert layouts["fc.weight"] == ["fc", "conv0 x 4"]
    assert layouts["conv1.weight"] == ["conv1", "conv0", "3", "3"]
    assert layouts["conv2.weight"] == ["conv0", "conv1", "3", "3"]


def test_layouts_of_a_concatenation(nets) -> None:
    graph, _, _ = nets("dense")
    assert str(find_channels(graph).layouts["conv2.weight"][1]) == "conv0 + conv1 + conv0"


def test_layouts_of_a_zero_padded_shortcut(nets) -> None:
    graph, _, _ = nets("padded")
    assert str(find_channels(graph).layouts["conv1.weight"][0]) == "2 + conv0 + 2"


@pytest.mark.parametrize("factor", [2.0, 3.0, 1.5])
def test_growing_keeps_the_function_wherever_the_report_says_so(net, factor: float) -> None:
    graph, model, inputs = net
    check_resize(graph, model, inputs, plan_for(graph, factor), retrace=factor == 2.0)


@pytest.mark.parametrize("factor", [0.5, 0.01])
def test_every_shrunk_model_runs_and_trains(net, factor: float) -> None:
    graph, model, inputs = net
    check_resize(graph, model, inputs, plan_for(graph, factor), retrace=False)


def test_growing_is_exact_to_1e_10_in_float64(net) -> None:
    graph, model, (x,) = net
    doubled = copy.deepcopy(model).double()
    plan = plan_for(graph, 2)
    exact = {change.group: change.exact for change in inheritance_report(graph, plan)}
    plan = Plan.of(widths={group: width for group, width in plan.widths if exact[group]})
    x = x.double()
    torch.testing.assert_close(resize(graph, doubled, plan)(x), doubled(x), rtol=1e-10, atol=1e-10)


def test_growing_copies_channels_side_by_side_and_shares_their_outgoing_weights() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [2.0]]))
        model[1].weight.copy_(torch.tensor([[6.0, 8.0]]))
    graph = trace(model, (torch.zeros(2, 1),))
    resized = resize(graph, model, Plan.of(widths={"0": 5}))
    assert resized[0].weight.tolist() == [[1.0], [1.0], [1.0], [2.0], [2.0]]
    assert resized[1].weight.tolist() == [[2.0, 2.0, 2.0, 4.0, 4.0]]


def test_shrinking_keeps_the_channels_of_largest_l1_in_their_order() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -5.0], [0.1, 0.1], [3.0, 3.0], [0.0, 2.0]]))
        model[1].weight.copy_(torch.tensor([[10.0, 20.0, 30.0, 40.0]]))
    graph = trace(model, (torch.zeros(2, 2),))
    resized = resize(graph, model, Plan.of(widths={"0": 2}))
    assert resized[0].weight.tolist() == [[1.0, -5.0], [3.0, 3.0]]
    assert resized[1].weight.tolist() == [[10.0, 30.0]]


def test_of_equally_important_channels_the_first_are_kept() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
    graph = trace(model, (torch.zeros(2, 1),))
    assert resize(graph, model, Plan.of(widths={"0": 2}))[1].weight.tolist() == [[1.0, 2.0]]


def test_l2_and_l1_rank_differently() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]]))  # l1: 3, 2; l2: 1.73, 2
        model[1].weight.copy_(torch.tensor([[1.0, 2.0]]))
    graph, plan = trace(model, (torch.zeros(2, 3),)), Plan.of(widths={"0": 1})
    assert resize(graph, model, plan, weights=Inherit("l1"))[1].weight.item() == 1.0
    assert resize(graph, model, plan, weights=Inherit("l2"))[1].weight.item() == 2.0


def test_bn_scale_ranks_by_gamma(nets) -> None:
    graph, model, _ = nets("residual")
    resized = resize(graph, model, Plan.of(widths={"conv1": 2}), weights=Inherit("bn_scale"))
    gamma = model.bn1.weight.abs()
    kept = gamma.argsort(descending=True)[:2].sort().values
    assert torch.equal(resized.bn1.weight, model.bn1.weight[kept])


def test_a_ranking_of_ones_own_is_a_callable(nets) -> None:
    graph, model, _ = nets("residual")
    resized = resize(
        graph, model, Plan.of(widths={"conv1": 2}), weights=Inherit(lambda parts, width, rng: np.arange(width))
    )
    assert torch.equal(resized.bn1.weight, model.bn1.weight[-2:])


def test_random_importance_follows_the_seed(nets) -> None:
    graph, model, _ = nets("residual")
    plan = Plan.of(widths={"conv1": 2, "conv0": 3})
    kept = [resize(graph, model, plan, weights=Inherit("random"), seed=seed).conv1.weight for seed in range(8)]
    again = resize(graph, model, plan, weights=Inherit("random"), seed=3).conv1.weight
    assert torch.equal(kept[3], again)
    assert any(not torch.equal(kept[0], other) for other in kept[1:])


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_every_ranking_gives_one_finite_score_a_channel(nets, importance: str) -> None:
    graph, model, (x,) = nets("inverted")
    assert resize(graph, model, Plan.of(widths={"expand": 3}), weights=Inherit(importance))(x).shape == (4, 4)


def test_a_ranking_of_the_wrong_shape_is_an_error(nets) -> None:
    graph, model, _ = nets("residual")
    with pytest.raises(ResizeError, match="one number per channel"):
        resize(graph, model, Plan.of(widths={"conv1": 2}), weights=Inherit(lambda parts, width, rng: np.ones(1)))


def test_an_unknown_ranking_lists_near_names(nets) -> None:
    graph, model, _ = nets("residual")
    with pytest.raises(ResizeError, match="l1"):
        resize(graph, model, Plan.of(widths={"conv1": 2}), weights=Inherit("l3"))


def test_the_report_says_what_normalisation_asks_for(nets) -> None:
    graph, _, _ = nets("normed")
    (whole,) = inheritance_report(graph, Plan.of(widths={"conv": 16}))
    (part,) = inheritance_report(graph, Plan.of(widths={"conv": 12}))
    assert whole.exact
    assert not part.exact
    assert any("layer_norm" in reason and "12 is no multiple of 8" in reason for reason in part.reasons)


def test_the_report_says_that_attention_scores_change(nets) -> None:
    graph, _, _ = nets("attention")
    report = {change.group: change for change in inheritance_report(graph, plan_for(graph, 2))}
    assert report["v"].exact
    assert not report["q"].exact
    assert "two activations" in report["q"].reasons[0]


def test_shrinking_is_never_exact(nets) -> None:
    graph, _, _ = nets("residual")
    (change,) = inheritance_report(graph, Plan.of(widths={"conv1": 2}))
    assert change == type(change)(group="conv1", base=5, width=2, exact=False, reasons=("3 of 5 channels are dropped",))


def test_the_report_is_empty_for_base_widths_and_asks_nothing_of_the_channels(nets, monkeypatch) -> None:
    graph, _, _ = nets("residual")
    monkeypatch.setattr("dovetail.transforms.inherit.find_channels", lambda graph: pytest.fail("nothing changes"))
    assert inheritance_report(graph, Plan.of(widths={"conv1": 5})) == ()


def test_a_weight_that_is_both_summed_over_and_read_cannot_share_copies() -> None:
    class TiedHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    graph = trace(TiedHead(), (torch.zeros(2, 3, dtype=torch.int64),))
    group = next(group for group in graph.groups if group.base == 4)
    (change,) = inheritance_report(graph, Plan.of(widths={group.name: 8}))
    assert not change.exact
    assert "copies cannot share it" in change.reasons[0]


def test_a_plan_does_not_depend_on_plans_before(nets) -> None:
    graph, model, _ = nets("residual")
    first = resize(graph, model, Plan.of(widths={"conv0": 3, "conv1": 9})).state_dict()
    for factor in (2.0, 0.5, 1.5):
        resize(graph, model, plan_for(graph, factor))
    again = resize(graph, model, Plan.of(widths={"conv0": 3, "conv1": 9})).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_plan_for_an_unknown_or_frozen_group_is_an_error(nets) -> None:
    graph, model, _ = nets("residual")
    before = fingerprint(model)
    with pytest.raises(UnknownSiteError, match="conv0"):
        resize(graph, model, Plan.of(widths={"convo": 3}))
    with pytest.raises(PlanError, match="output"):
        resize(graph, model, Plan.of(widths={"fc": 3}))
    assert fingerprint(model) == before
