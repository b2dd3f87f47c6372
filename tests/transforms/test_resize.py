from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dovetail.errors import ResizeError
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind
from dovetail.transforms import QuantisedModel, apply, resize


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# 17*h1 + h1*h2 + h2 + 5*h2 + 5 + 32 for BatchNorm(16), 16 -> h1 -> h2 -> 5
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(32, 64, 3_013), (64, 64, 5_605), (32, 128, 5_445), (512, 1024, 539_173), (1, 1, 61), (17, 3, 395)],
)
def test_parameters_of_three_linear_follow_the_formula(nets, first: int, second: int, expected: int) -> None:
    graph, model, inputs = nets("three-linear")
    resized = resize(graph, model, Plan.of(widths={"2": first, "4": second}))
    assert num_parameters(resized) == expected == 17 * first + first * second + 6 * second + 37
    assert resized(*inputs).shape == (4, 5)


def test_the_default_plan_reproduces_outputs_exactly(net) -> None:
    graph, model, inputs = net
    resized = resize(graph, model, Plan())
    assert torch.equal(resized(*inputs), model(*inputs))
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in resized.state_dict().items())


def test_layers_that_the_plan_leaves_alone_stay_as_they_were(nets) -> None:
    graph, model, _ = nets("three-linear")
    resized = resize(graph, model, Plan.of(widths={"2": 48}))
    assert resized[3].inplace is True
    assert resized[5].inplace is False
    assert repr(resized[4]) == "Linear(in_features=48, out_features=64, bias=True)"


def test_mode_dtype_and_frozen_parameters_stay(nets) -> None:
    _, _, inputs = nets("residual")
    model = copy.deepcopy(nets("residual")[1]).train().to(torch.bfloat16)
    model.conv0.eval()
    model.conv1.weight.requires_grad_(False)
    resized = resize(nets("residual")[0], model, Plan.of(widths={"conv0": 12}))
    assert resized.training
    assert not resized.conv0.training
    assert not resized.conv1.weight.requires_grad
    assert {p.dtype for p in resized.parameters()} == {torch.bfloat16}
    assert resized(inputs[0].to(torch.bfloat16)).dtype == torch.bfloat16


def test_hooks_come_along_and_the_users_are_not_called(nets) -> None:
    graph, original, inputs = nets("residual")
    model, seen = copy.deepcopy(original), []
    model.conv0.register_forward_hook(lambda module, args, output: seen.append(module))
    resized = resize(graph, model, Plan.of(widths={"conv0": 12}))
    resized(*inputs)
    assert seen == [resized.conv0]


def test_tied_weights_stay_tied(nets) -> None:
    graph, model, _ = nets("tied")
    resized = resize(graph, model, Plan.of(widths={"first": 12}))
    assert resized.other.weight is resized.shared.weight
    assert resized.other.weight.shape == (12, 12)
    assert resized.other.weight is not model.other.weight


def test_depthwise_groups_follow_the_channels(nets) -> None:
    graph, model, _ = nets("inverted")
    resized = resize(graph, model, Plan.of(widths={"expand": 13}))
    assert (resized.depthwise.groups, resized.depthwise.in_channels, resized.depthwise.out_channels) == (13, 13, 13)


def test_a_resized_model_can_be_resized_back(nets) -> None:
    graph, model, inputs = nets("residual")
    grown = resize(graph, model, Plan.of(widths={"conv0": 12, "conv1": 10}))
    again = trace(grown, inputs)
    back = resize(again, grown, Plan.of(widths={"conv0": 6, "conv1": 5}))
    assert num_parameters(back) == num_parameters(model)


def test_the_graph_computes_the_resized_model(net) -> None:
    graph, model, inputs = net
    plan = Plan.of(widths={g.name: g.base + 2 * g.multiple_of for g in graph.groups if g.frozen is None})
    resized = resize(graph, model, plan)
    tensors = {**dict(resized.named_parameters()), **dict(resized.named_buffers())}
    with torch.no_grad():
        torch.testing.assert_close(graph.run(tensors, *inputs), resized(*inputs))


def test_shared_parameters_use_the_users_memory_and_cannot_be_trained(nets) -> None:
    graph, model, _ = nets("residual")
    resized = resize(graph, model, Plan.of(widths={"conv1": 10}), share=True)
    assert resized.conv0.weight.data_ptr() == model.conv0.weight.data_ptr()
    assert not resized.conv0.weight.requires_grad
    assert model.conv0.weight.requires_grad
    assert resized.conv1.weight.data_ptr() != model.conv1.weight.data_ptr()
    assert resized.bn0.running_mean.data_ptr() != model.bn0.running_mean.data_ptr()


def test_without_sharing_no_memory_is_the_users(net) -> None:
    graph, model, _ = net
    own = {t.data_ptr() for t in [*model.parameters(), *model.buffers()]}
    resized = resize(graph, model, Plan())
    assert not own & {t.data_ptr() for t in [*resized.parameters(), *resized.buffers()]}


def test_fresh_weights_follow_the_seed_and_leave_the_global_generator_alone(nets) -> None:
    graph, model, inputs = nets("residual")
    plan = Plan.of(widths={"conv0": 12})
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = resize(graph, model, plan, weights="initialise", seed=1)
    assert torch.equal(torch.rand(3), expected)
    again = resize(graph, model, plan, weights="initialise", seed=1)
    other = resize(graph, model, plan, weights="initialise", seed=2)
    assert torch.equal(first(*inputs), again(*inputs))
    assert not torch.equal(first.conv0.weight, other.conv0.weight)
    assert torch.equal(first.bn0.weight, torch.ones(12))
    assert torch.equal(first.bn0.running_mean, torch.zeros(12))


def test_fresh_linear_weights_are_what_building_the_layer_anew_gives() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    graph = trace(model, (torch.zeros(2, 4),))
    resized = resize(graph, model, Plan.of(widths={"0": 6}), weights="initialise", seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        anew = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    assert all(torch.equal(a, b) for a, b in zip(resized.parameters(), anew.parameters(), strict=True))


def test_a_bare_parameter_is_drawn_with_its_own_mean_and_spread(nets) -> None:
    graph, model, _ = nets("normed")
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.scale.fill_(0.5)
    resized = resize(graph, model, Plan.of(widths={"conv": 16}), weights="initialise")
    assert torch.equal(resized.scale, torch.full((16,), 0.5))


def test_a_model_of_another_shape_is_an_error(nets) -> None:
    graph, model, _ = nets("three-linear")
    resized = resize(graph, model, Plan.of(widths={"2": 48}))
    with pytest.raises(ResizeError, match=r"Trace the resized model"):
        resize(graph, resized, Plan.of(widths={"2": 64}))
    with pytest.raises(ResizeError, match="no tensor"):
        resize(graph, nn.Linear(2, 2), Plan())


def test_a_width_that_the_groups_of_a_layer_do_not_divide_is_an_error(nets) -> None:
    graph, model, _ = nets("normed")
    with pytest.raises(ValueError, match=r"must be a multiple of .*2.*, got 9. Nearest .* 8 or 10"):
        resize(graph, model, Plan.of(widths={"conv": 9}))


def test_an_unknown_way_to_get_weights_is_an_error(nets) -> None:
    graph, model, _ = nets("three-linear")
    with pytest.raises(ResizeError, match="inherit"):
        resize(graph, model, Plan(), weights="inherits")  # type: ignore[arg-type]


def test_apply_resizes_then_quantises(nets) -> None:
    graph, model, inputs = nets("three-linear")
    fmt = parse("fixed(8,4)")
    plan = Plan.of({Site("4", SiteKind.WEIGHT): fmt}, {"2": 64})
    applied = apply(graph, model, plan)
    assert isinstance(applied, QuantisedModel)
    by_hand = resize(graph, model, plan)
    with torch.no_grad():
        by_hand[4].weight.copy_(fmt.quantise(by_hand[4].weight))
    assert torch.equal(applied(*inputs), by_hand(*inputs))


def test_apply_without_formats_gives_the_users_own_class(nets) -> None:
    graph, model, _ = nets("residual")
    assert type(apply(graph, model, Plan.of(widths={"conv0": 12}))) is type(model)
