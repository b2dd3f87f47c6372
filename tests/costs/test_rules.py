"""Counting rules: hand-worked cases, and what happens to operators without one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dovetail.costs import RULES, CostModel, Work, elements, register_rule
from dovetail.errors import PricingError
from dovetail.graph import trace
from dovetail.plan import Plan


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def flops_of(function, *inputs):
    graph = trace(function if isinstance(function, nn.Module) else Function(function), inputs)
    priced = CostModel(graph, batch=inputs[0].shape[0]).price(Plan(), ["flops"])["flops"]
    assert priced.unpriced == ()
    return priced.value


x = torch.zeros(2, 6, 4, 4)

CASES = {
    "relu": (F.relu, (x,), 192),
    "relu in place": (lambda t: F.relu_(t + 1), (x,), 384),
    "gelu": (F.gelu, (x,), 192),
    "softmax": (lambda t: F.softmax(t, 1), (x,), 192),
    "sum of two": (lambda t: t + t, (x,), 192),
    "broadcast product": (lambda t, u: t * u, (x, torch.zeros(2, 6, 1, 1)), 192),
    "mean": (lambda t: t.mean((2, 3)), (x,), 192),
    "max pooling reads each element once": (lambda t: F.max_pool2d(t, 2), (x,), 192),
    "average pooling": (lambda t: F.adaptive_avg_pool2d(t, 1), (x,), 192),
    "upsampling writes each element once": (lambda t: F.interpolate(t, scale_factor=2), (x,), 768),
    "views and copies": (lambda t: torch.cat([t.flatten(1), t.reshape(2, -1)], 1).contiguous(), (x,), 0),
    "padding and chunks": (lambda t: F.pad(t.chunk(2, 1)[0], (1, 1)), (x,), 0),
    "batch norm": (nn.BatchNorm2d(6), (x,), 2 * 192),
    "batch norm without scale": (nn.BatchNorm2d(6, affine=False), (x,), 192),
    "layer norm": (nn.LayerNorm(4), (x,), 5 * 192),
    "group norm": (nn.GroupNorm(3, 6), (x,), 5 * 192),
    "rms norm": (nn.RMSNorm(4), (x,), 4 * 192),
    "dropout in eval mode": (nn.Dropout(0.5), (x,), 0),
    "linear without counting its bias": (nn.Linear(4, 3), (x,), 2 * 2 * 6 * 4 * 4 * 3),
    "conv1d": (nn.Conv1d(6, 8, 3), (torch.zeros(2, 6, 5),), 2 * 2 * 8 * 3 * 6 * 3),
    "conv2d": (nn.Conv2d(6, 8, 3, padding=1), (x,), 2 * 2 * 8 * 16 * 6 * 9),
    "grouped conv2d": (nn.Conv2d(6, 6, 3, padding="same", groups=3), (x,), 2 * 2 * 6 * 16 * 2 * 9),
    "transposed conv2d": (nn.ConvTranspose2d(6, 8, 2, stride=2), (x,), 2 * 2 * 16 * 6 * 8 * 4),
    "einsum": (lambda q, k: torch.einsum("bhqd,bhkd->bhqk", q, k), (x, x), 2 * 2 * 6 * 4 * 4 * 4),
    "einsum that contracts nothing": (lambda q, k: torch.einsum("bhqd,b->bhqd", q, k), (x, torch.zeros(2)), 192),
    "attention: two products, scale, softmax": (
        F.scaled_dot_product_attention,
        (x, x, x),
        2 * (2 * 6 * 4 * 4) * (4 + 4) + 2 * (2 * 6 * 4 * 4),
    ),
    "matrix times vector": (lambda t, v: t @ v, (x, torch.zeros(4)), 2 * 192),
    "LSTM": (
        nn.LSTM(4, 5, batch_first=True),
        (torch.zeros(2, 3, 4),),
        2 * 2 * 3 * 20 * (4 + 5) + 2 * 3 * 5 * 9,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_costs_what_its_rule_says(name):
    function, inputs, flops = CASES[name]
    assert flops_of(function, *inputs) == flops


def test_integers_are_not_floating_point_operations():
    assert flops_of(lambda t: t + 1, torch.zeros(2, 3, dtype=torch.long)) == 0


@torch.library.custom_op("dovetail_test::mystery", mutates_args=())
def mystery(t: torch.Tensor) -> torch.Tensor:
    return t.clone()


@mystery.register_fake
def _(t):
    return torch.empty_like(t)


def test_an_operator_without_a_rule_is_listed_and_not_counted_as_nothing():
    graph = trace(Function(lambda t: F.relu(torch.ops.dovetail_test.mystery(t))), (torch.zeros(2, 3),))
    priced = CostModel(graph, batch=2).price(Plan())
    assert priced["flops"].value == 6
    for name in ("flops", "macs", "bops", "arithmetic_intensity"):
        assert priced[name].unpriced == ("mystery (dovetail_test.mystery)",)
    assert priced["params"].unpriced == priced["activation_bytes"].unpriced == ()


def test_a_registered_rule_prices_it():
    graph = trace(Function(lambda t: torch.ops.dovetail_test.mystery(t)), (torch.zeros(2, 3),))
    register_rule(
        "dovetail_test.mystery", lambda call: Work(macs=elements(call.output), flops=elements(call.shape("t")))
    )
    try:
        priced = CostModel(graph, batch=2).price(Plan(), ["flops"])["flops"]
        assert (priced.value, priced.unpriced) == (3 * 6, ())
        with pytest.raises(PricingError, match="there is one already"):
            register_rule("dovetail_test.mystery", lambda call: Work())
    finally:
        del RULES["dovetail_test.mystery"]


def test_a_rule_needs_a_namespace():
    with pytest.raises(PricingError, match=r"such as 'aten.relu'"):
        register_rule("relu", lambda call: Work())
