"""Modules that people have beside linear layers and convolutions: what is offered runs, what cannot change says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.costs import CostModel
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.transforms import inheritance_report, resize


class Net(nn.Module):
    """Modules by name and the code that calls them."""

    def __init__(self, code: Callable[..., Any], **modules: nn.Module | nn.Parameter):
        super().__init__()
        self.code = code
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> Any:
        return self.code(self, *inputs)


def gated(s: Net, x: Tensor) -> Tensor:
    gate = torch.softmax(s.gate(x), 1)
    return gate[:, 0:1] * s.a(x) + gate[:, 1:2] * s.b(x)


def attention(s: Net, x: Tensor) -> Tensor:
    return s.o(torch.softmax(s.q(x) @ s.k(x).transpose(1, 2) / 4, -1) @ s.v(x)).mean(1)


def mixer(s: Net, x: Tensor) -> Tensor:
    return s.fc((x + s.t2(F.gelu(s.t1(x.transpose(1, 2)))).transpose(1, 2)).mean(1))


def unet(s: Net, x: Tensor) -> Tensor:
    down = s.a(x)
    return s.o(torch.cat([down, F.interpolate(s.b(F.max_pool2d(down, 2)), scale_factor=2)], 1))


def head(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def two_layers(first: nn.Module) -> nn.Sequential:
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 3))


IMAGE, ROW, SERIES, IDS = (2, 3, 8, 8), (2, 4), (2, 5, 6), None

ODD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...] | None]] = {
    "conv1d": (lambda: Net(lambda s, x: s.fc(s.c(x).mean(2)), c=nn.Conv1d(5, 8, 3), fc=nn.Linear(8, 3)), SERIES),
    "conv-transpose": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GELU(), nn.ConvTranspose2d(8, 6, 4, 2), nn.Conv2d(6, 3, 1)),
        IMAGE,
    ),
    "group-norm": (lambda: head(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.SiLU()), IMAGE),
    "instance-norm": (lambda: head(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)), IMAGE),
    "pixel-shuffle": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 3, 3)), IMAGE),
    "u-net": (lambda: Net(unet, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 12, 1), o=nn.Conv2d(20, 2, 1)), IMAGE),
    "lstm": (
        lambda: Net(lambda s, x: s.fc(s.l(x)[0][:, -1]), l=nn.LSTM(6, 8, 2, batch_first=True), fc=nn.Linear(8, 3)),
        SERIES,
    ),
    "gru-after-linear": (
        lambda: Net(
            lambda s, x: s.fc(s.l(s.i(x))[0].mean(1)),
            i=nn.Linear(6, 10),
            l=nn.GRU(10, 8, batch_first=True),
            fc=nn.Linear(8, 3),
        ),
        SERIES,
    ),
    "multihead-attention": (
        lambda: Net(
            lambda s, x: s.fc(s.a(x, x, x, need_weights=False)[0].mean(1)),
            a=nn.MultiheadAttention(6, 2, batch_first=True),
            fc=nn.Linear(6, 3),
        ),
        SERIES,
    ),
    "attention-by-hand": (
        lambda: Net(attention, q=nn.Linear(6, 16), k=nn.Linear(6, 16), v=nn.Linear(6, 8), o=nn.Linear(8, 3)),
        SERIES,
    ),
    "embedding": (lambda: Net(lambda s, x: s.fc(s.e(x).mean(1)), e=nn.Embedding(20, 8), fc=nn.Linear(8, 3)), IDS),
    "embedding-bag": (lambda: Net(lambda s, x: s.fc(s.e(x)), e=nn.EmbeddingBag(20, 8), fc=nn.Linear(8, 3)), IDS),
    "weight-norm": (lambda: two_layers(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 8))), ROW),
    "glu": (lambda: nn.Sequential(nn.Linear(4, 16), nn.GLU(), nn.Linear(8, 3)), ROW),
    "einsum": (
        lambda: Net(
            lambda s, x: s.fc(torch.einsum("bi,oi->bo", x, s.w)), w=nn.Parameter(torch.randn(8, 4)), fc=nn.Linear(8, 3)
        ),
        ROW,
    ),
    "outer-product": (
        lambda: Net(
            lambda s, x: s.fc((s.a(x)[:, :, None] * s.b(x)[:, None, :]).flatten(1)),
            a=nn.Linear(4, 3),
            b=nn.Linear(4, 5),
            fc=nn.Linear(15, 3),
        ),
        ROW,
    ),
    "gate-cut-in-places": (
        lambda: Net(gated, gate=nn.Linear(4, 2), a=two_layers(nn.Linear(4, 8)), b=two_layers(nn.Linear(4, 8))),
        ROW,
    ),
    "top-3": (lambda: Net(lambda s, x: s.fc(s.l(x).topk(3, 1)[0]), l=nn.Linear(4, 8), fc=nn.Linear(3, 3)), ROW),
    "mixer": (lambda: Net(mixer, t1=nn.Linear(5, 8), t2=nn.Linear(8, 5), fc=nn.Linear(6, 3)), SERIES),
    "fft": (
        lambda: Net(lambda s, x: s.fc(torch.fft.rfft(s.l(x)).abs()), l=nn.Linear(4, 8), fc=nn.Linear(5, 3)), ROW
    ),
    "cumsum": (lambda: Net(lambda s, x: s.fc(s.l(x).cumsum(1)), l=nn.Linear(4, 8), fc=nn.Linear(8, 3)), ROW),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Tensor, Graph]:
    build, shape = ODD[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().eval()
        x = torch.randint(0, 20, (2, 5)) if shape is None else torch.randn(shape)
    return model, x, trace(model, (x,))


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
        ("multihead-attention", "linear_1", "was expecting embedding dimension of 7, but got 6"),
        ("embedding", "e.weight", "looks its rows up by the model's input"),
        ("embedding-bag", "e.weight", "looks its rows up by the model's input"),
        ("gate-cut-in-places", "gate", "cuts its channels at fixed places"),
        ("top-3", "l", "cuts its channels at fixed places"),
    ],
)
def test_what_cannot_change_says_why(name: str, group: str, reason: str) -> None:
    _, _, graph = made(name)
    assert reason in str(graph.group(group).frozen)


def test_every_head_of_a_model_is_a_result_that_is_priced_and_keeps_its_channels() -> None:
    def heads(s: Net, x: Tensor) -> dict[str, Tensor]:
        return {"scores": s.a(s.t(x)), "boxes": s.b(s.t(x))}

    model = Net(heads, t=nn.Linear(4, 8), a=nn.Linear(8, 3), b=nn.Linear(8, 5))
    graph = trace(model, (torch.randn(2, 4),))
    assert [(g.name, g.frozen is None) for g in graph.groups] == [("t", True), ("a", False), ("b", False)]
    # t is called twice; boxes cost as scores do
    assert CostModel(graph, 1).price(Plan.of())["macs"].value == 2 * 4 * 8 + 8 * 3 + 8 * 5
