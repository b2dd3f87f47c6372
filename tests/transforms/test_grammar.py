"""Random models from a small grammar, random plans: each builds, runs, trains, and keeps its function when grown."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dovetail.costs import CostModel
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.testing.transforms import check_quantise, check_resize, primed
from dovetail.transforms import apply, inheritance_report

BLOCKS = ["conv", "norm", "relu", "residual", "cat", "depthwise", "pool", "squeeze"]


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.relu(self.inner(x)))


class Concatenated(nn.Module):
    def __init__(self, width: int, more: int) -> None:
        super().__init__()
        self.branch = nn.Conv2d(width, more, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch(x), x], 1)


class Squeezed(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.tanh(self.down(x.mean((2, 3))))))[:, :, None, None]


def block(name: str, width: int, size: int) -> tuple[nn.Module, int]:
    """A block for this many channels, of a free size, and the channels that come out."""
    match name:
        case "conv":
            return nn.Conv2d(width, size, 3, padding=1), size
        case "norm":
            return nn.BatchNorm2d(width), width
        case "relu":
            return nn.ReLU(inplace=True), width
        case "residual":
            return Residual(width, size), width
        case "cat":
            return Concatenated(width, size), width + size
        case "depthwise":
            return nn.Conv2d(width, width, 3, padding=1, groups=width), width
        case "pool":
            return nn.MaxPool2d(3, stride=1, padding=1), width
        case _:
            return Squeezed(width, size), width


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    """A convolution, up to five blocks, pooling, flatten or mean, one or two linear layers."""
    width = draw(st.integers(2, 5))
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for name in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5)):
        layer, width = block(name, width, draw(st.integers(2, 5)))
        layers.append(layer)
    pixels = draw(st.sampled_from([1, 2]))
    layers += [nn.AdaptiveAvgPool2d(pixels), nn.Flatten()]
    width *= pixels**2
    if draw(st.booleans()):
        hidden = draw(st.integers(2, 6))
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return primed(nn.Sequential(*layers, nn.Linear(width, 3)), draw(st.integers(0, 99)))


def check_prices(graph: Graph, model: nn.Module, x: tuple[Tensor], plan: Plan) -> None:
    """What is priced is what is counted on the built model."""
    built = apply(graph, model, plan)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built.eval()(*x)
    priced = CostModel(graph, batch=len(x[0])).price(plan)
    assert priced["flops_matmul"].value == counter.get_total_flops()
    assert priced["params"].value == sum(p.numel() for p in built.parameters())


def check(model: nn.Module, data: st.DataObject, seed: int, *, retrace: bool) -> None:
    x = (torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed)),)
    graph = trace(model, x)
    free = [group for group in graph.groups if group.frozen is None]
    assert free
    grown = Plan.of(widths={g.name: data.draw(st.integers(g.base, 3 * g.base), label=g.name) for g in free})
    assert all(change.exact for change in inheritance_report(graph, grown))
    check_resize(graph, model, x, grown, retrace=retrace)
    anything = Plan.of(widths={g.name: data.draw(st.integers(1, 2 * g.base), label=g.name) for g in free})
    check_resize(graph, model, x, anything, retrace=False)
    for plan in (grown, anything):
        check_prices(graph, model, x, plan)
    formats = {site: data.draw(st.sampled_from([parse("fixed(8,4)"), parse("fixed(4,2)")])) for site in graph.sites}
    check_quantise(graph, model, x, Plan.of(formats))
    both = apply(graph, model, Plan.of(formats, dict(anything.widths)))
    assert both(*x).shape == (2, 3)


SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=3, **SETTINGS)
@given(models(), st.data(), st.integers(0, 99))
def test_any_model_of_the_grammar_obeys_the_laws(model: nn.Module, data: st.DataObject, seed: int) -> None:
    check(model, data, seed, retrace=False)


@pytest.mark.slow
@settings(max_examples=15, **SETTINGS)
@given(models(), st.data(), st.integers(0, 99))
def test_many_models_of_the_grammar_obey_the_laws(model: nn.Module, data: st.DataObject, seed: int) -> None:
    check(model, data, seed, retrace=True)
