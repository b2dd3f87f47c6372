from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.errors import FormatError, UnknownSiteError
from dovetail.formats import Format, fake_quantise, parse
from dovetail.graph import Call, trace
from dovetail.plan import Plan, Site, SiteKind
from dovetail.testing.transforms import check_quantise
from dovetail.transforms import quantise

DATA, WEIGHT, BIAS = SiteKind.DATA_IN, SiteKind.WEIGHT, SiteKind.BIAS
Q8, Q6, Q4 = parse("fixed(8,4)"), parse("fixed(6,3)"), parse("fixed(4,2)")


def everywhere(graph, data: Format = Q8, weight: Format = Q6, bias: Format = Q4) -> Plan:
    formats = {DATA: data, WEIGHT: weight, BIAS: bias}
    return Plan.of({site: formats[site.kind] for site in graph.sites})


def test_the_laws_hold_for_every_small_model(net) -> None:
    graph, model, inputs = net
    check_quantise(graph, model, inputs, everywhere(graph))


def test_three_linear_equals_plain_pytorch_by_hand_on_every_bit(nets) -> None:
    graph, model, (x,) = nets("three-linear")
    q, w, b = Q8.quantise, Q6.quantise, Q4.quantise
    bn = model[0]
    expected = F.batch_norm(q(x), bn.running_mean, bn.running_var, w(bn.weight), b(bn.bias), eps=bn.eps)
    for linear in (model[2], model[4], model[6]):
        expected = F.linear(q(F.relu(q(expected))), w(linear.weight), b(linear.bias))
    assert torch.equal(quantise(graph, model, everywhere(graph))(x), F.relu(q(expected)))


def test_residual_equals_plain_pytorch_by_hand_on_every_bit(nets) -> None:
    graph, m, (x,) = nets("residual")
    q, w, b = Q8.quantise, Q6.quantise, Q4.quantise

    def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
        return F.conv2d(q(x), w(layer.weight), None if layer.bias is None else b(layer.bias), padding=1)

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return F.batch_norm(q(x), layer.running_mean, layer.running_var, w(layer.weight), b(layer.bias), eps=layer.eps)

    y = F.relu(q(norm(m.bn0, conv(m.conv0, x))))
    z = conv(m.conv2, F.relu(q(norm(m.bn1, conv(m.conv1, y)))))
    y = F.relu(q(q(y) + q(z)))
    expected = F.linear(q(F.adaptive_avg_pool2d(q(y), 2).flatten(1)), w(m.fc.weight), b(m.fc.bias))
    assert torch.equal(quantise(graph, m, everywhere(graph))(x), expected)


def test_attention_equals_plain_pytorch_by_hand_on_every_bit(nets) -> None:
    graph, m, (x,) = nets("attention")
    q = Q8.quantise
    plan = Plan.of({Site(o.name, DATA): Q8 for o in graph.operations if o.type in ("matmul", "softmax")})
    assert len(plan.formats) == 3
    e = m.embed(x)
    scores = F.softmax(q(q(m.q(e)) @ q(m.k(e).transpose(-2, -1)) / 2.0), dim=-1)
    expected = m.fc((e + m.out(q(scores) @ q(m.v(e)))).mean(1))
    assert torch.equal(quantise(graph, m, plan)(x), expected)


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)).sum(-1) * 0.5


def test_operands_of_fused_attention_are_quantised() -> None:
    m, x = Fused(), torch.randn(2, 3, 6)
    graph = trace(m, (x,))
    (attention,) = [o for o in graph.operations if o.type == "attention"]
    got = quantise(graph, m, Plan.of({Site(attention.name, DATA): Q6}))(x)
    q = Q6.quantise
    assert torch.equal(got, F.scaled_dot_product_attention(q(m.q(x)), q(m.k(x)), q(m.v(x))).sum(-1) * 0.5)


def test_only_the_named_sites_change_anything(nets) -> None:
    graph, model, (x,) = nets("three-linear")
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand[4].weight.copy_(Q4.quantise(by_hand[4].weight))
    assert torch.equal(quantise(graph, model, Plan.of({Site("4", WEIGHT): Q4}))(x), by_hand(x))


class InPlace(nn.Module):
    """What is overwritten is read again under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        kept = y
        self.relu(y)
        y += 1.0
        return kept * 2.0


def test_in_place_operations_still_write_into_their_operand() -> None:
    m, x = InPlace(), torch.randn(3, 4)
    graph = trace(m, (x,))
    plan = Plan.of({Site("relu", DATA): Q4})
    assert torch.equal(quantise(graph, m, plan)(x), (F.relu(Q4.quantise(m.fc(x))) + 1.0) * 2.0)
    quantise(graph, m, plan).train()(x).sum().backward()


def test_training_passes_gradients_straight_through(nets) -> None:
    graph, model, (x,) = nets("three-linear")
    quantised = quantise(graph, model, everywhere(graph)).train()
    quantised(x).square().sum().backward()

    copied = copy.deepcopy(model).train()

    def q(t: Tensor, fmt: Format = Q8) -> Tensor:
        return fake_quantise(t, fmt)

    bn = copied[0]
    y = F.batch_norm(q(x), bn.running_mean, bn.running_var, q(bn.weight, Q6), q(bn.bias, Q4), training=True)
    for linear in (copied[2], copied[4], copied[6]):
        y = F.linear(q(F.relu(q(y))), q(linear.weight, Q6), q(linear.bias, Q4))
    F.relu(q(y)).square().sum().backward()
    for (name, got), expected in zip(quantised.named_parameters(), copied.parameters(), strict=True):
        assert torch.equal(got.grad, expected.grad), name
    assert torch.equal(quantised.base[0].running_mean, bn.running_mean)


def test_modes_follow_the_model_and_reach_every_layer(nets) -> None:
    graph, model, _ = nets("three-linear")
    quantised = quantise(graph, model, everywhere(graph))
    assert not quantised.training
    assert not quantised.base.training
    quantised.train()
    assert all(m.training for m in [*quantised.modules(), *quantised.base.modules()])
    quantised.eval()
    assert not any(m.training for m in [*quantised.modules(), *quantised.base.modules()])


def test_a_checkpoint_of_the_model_loads_into_the_quantised_one_and_back(nets) -> None:
    graph, model, (x,) = nets("residual")
    plan = everywhere(graph)
    quantised, other = quantise(graph, model, plan), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    quantised.load_state_dict(other.state_dict())
    assert torch.equal(quantised(x), quantise(graph, other, plan)(x))
    assert torch.equal(quantised.base(x), other(x))
    other.load_state_dict(quantise(graph, model, plan).state_dict())
    assert torch.equal(other(x), model(x))


def test_functional_call_swaps_the_parameters(nets) -> None:
    graph, model, (x,) = nets("residual")
    plan = everywhere(graph)
    halved = {name: p.detach() * 0.5 for name, p in model.named_parameters()}
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **halved})
    got = torch.func.functional_call(quantise(graph, model, plan), halved, (x,))
    assert torch.equal(got, quantise(graph, other, plan)(x))


def test_vmap_over_stacked_parameters_equals_one_by_one(nets) -> None:
    graph, model, (x,) = nets("three-linear")
    quantised = quantise(graph, model, everywhere(graph))
    scales = torch.tensor([1.0, 0.5, 2.0])
    stacked = {name: torch.stack([p.detach() * s for s in scales]) for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(quantised, parameters, (x,)).square().mean()

    grads, values = torch.func.vmap(torch.func.grad_and_value(loss))(stacked)
    for i in range(3):
        alone = {name: p[i] for name, p in stacked.items()}
        grad, value = torch.func.grad_and_value(loss)(alone)
        torch.testing.assert_close(values[i], value)
        for name in grad:
            torch.testing.assert_close(grads[name][i], grad[name])


def test_moving_to_another_dtype_moves_the_base(nets) -> None:
    graph, model, (x,) = nets("residual")
    quantised = quantise(graph, model, everywhere(graph)).double()
    assert {p.dtype for p in quantised.base.parameters()} == {torch.float64}
    assert quantised(x.double()).dtype == torch.float64


def test_a_quantised_model_is_exported_with_its_rounding(nets) -> None:
    graph, model, (x,) = nets("three-linear")
    quantised = quantise(graph, model, everywhere(graph))
    program = torch.export.export(quantised, (x,), strict=False)
    assert torch.equal(program.module()(x), quantised(x))


def test_two_plans_do_not_disturb_each_other(nets) -> None:
    graph, model, (x,) = nets("residual")
    first = quantise(graph, model, everywhere(graph))
    expected = first(x)
    second = quantise(graph, model, everywhere(graph, Q4, Q4, Q4))
    second.train()(x).sum().backward()
    assert torch.equal(first(x), expected)
    assert torch.equal(quantise(graph, model, everywhere(graph))(x), expected)


def test_an_unknown_site_is_an_error(nets) -> None:
    graph, model, _ = nets("three-linear")
    with pytest.raises(UnknownSiteError, match="weight"):
        quantise(graph, model, Plan.of({Site("1", WEIGHT): Q8}))


def test_a_format_with_a_scale_from_data_is_calibrated_on_the_weight_it_is_for(nets) -> None:
    graph, model, (x,) = nets("three-linear")
    auto = parse("int(8)")
    assert auto.needs_calibration
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand[4].weight.copy_(auto.calibrate(by_hand[4].weight).quantise(by_hand[4].weight))
    assert torch.equal(quantise(graph, model, Plan.of({Site("4", WEIGHT): auto}))(x), by_hand(x))


def test_an_uncalibrated_format_for_an_activation_is_an_error(nets) -> None:
    graph, model, _ = nets("three-linear")
    with pytest.raises(FormatError, match="4:data_in.*calibrated on data"):
        quantise(graph, model, Plan.of({Site("4", DATA): parse("int(8)")}))


def test_a_call_that_training_does_not_make_is_warned_of() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if self.training else torch.relu(self.fc(x))

    model = Branching()
    graph = trace(model, (torch.zeros(2, 3),))
    (relu,) = [o for o in graph.operations if o.type == "relu"]
    quantised = quantise(graph, model, Plan.of({Site(relu.name, DATA): Q8}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantised.eval()(torch.zeros(2, 3))
    with pytest.warns(UserWarning, match=r"relu\|0"):
        quantised.train()(torch.zeros(2, 3))


def test_calls_are_addressed_as_the_graph_does(nets) -> None:
    graph, model, _ = nets("residual")
    assert set(quantise(graph, model, everywhere(graph)).formats) >= {Call("conv0", "conv2d", 0), Call("", "add", 0)}
