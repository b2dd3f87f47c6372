"""What rounding does to each tensor, against its definition written out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.evaluation import Calibration
from dovetail.evaluation.rounding_noise import NOISE_SAMPLES, rounding_noise
from dovetail.formats import FLOAT32, Format, parse
from dovetail.formats.statistics import Statistics
from dovetail.graph import Graph, trace
from dovetail.plan import Site, SiteKind

from .networks import case

COARSE, FINE, INTEGER = parse("fixed(4,2)"), parse("fixed(8,6)"), parse("int(4)")


def noise(
    graph: Graph, model: nn.Module, split: Split, wanted: dict[Site, tuple[Format, ...]]
) -> dict[Site, tuple[float, ...] | None]:
    calibration = Calibration(graph, model, split, weights="inherit", seed=0)
    return rounding_noise(graph, model, split, calibration, wanted)


def ratio(x: Tensor, fmt: Format) -> float:
    """Mean over rows of lost to whole power."""
    x = x.double().flatten(1)
    lost = (fmt.quantise(x) - x).square().sum(1) / x.square().sum(1)
    return float(lost.clamp(max=1).mean())


def test_of_an_activation_it_is_the_mean_over_samples_of_lost_power() -> None:
    its = case("mlp")
    model = copy.deepcopy(its.model).eval()
    site = Site("2", SiteKind.DATA_IN)
    found = noise(its.graph, model, its.split, {site: (FINE, COARSE, FLOAT32)})[site]
    with torch.no_grad():
        x = torch.relu(model[0](its.split.inputs[0]))[:NOISE_SAMPLES]
    x = x[x.abs().sum(1) > 0]
    assert found == (pytest.approx(ratio(x, FINE), rel=1e-3), pytest.approx(ratio(x, COARSE), rel=1e-3), 0.0)


def test_of_a_weight_or_a_bias_it_is_the_lost_share_of_its_power() -> None:
    its = case("mlp")
    model = copy.deepcopy(its.model).eval()
    weight, bias = Site("2", SiteKind.WEIGHT), Site("2", SiteKind.BIAS)
    found = noise(its.graph, model, its.split, {weight: (FINE, INTEGER), bias: (COARSE,)})
    w, b = model[2].weight.detach().reshape(1, -1), model[2].bias.detach().reshape(1, -1)
    assert found[weight] == pytest.approx((ratio(w, FINE), ratio(w, INTEGER.calibrate(w))), rel=1e-3)
    assert found[bias] == pytest.approx((ratio(b, COARSE),), rel=1e-3)


def test_every_operand_of_a_site_counts_and_ranges_are_those_of_plans() -> None:
    its = case("residual")
    model = copy.deepcopy(its.model).eval()
    (add,) = its.graph.select("add")
    site = Site(add.name, SiteKind.DATA_IN)
    found = noise(its.graph, model, its.split, {site: (INTEGER,)})[site]
    with torch.no_grad():
        first = torch.relu(model.bn1(model.conv1(its.split.inputs[0])))
        second = model.conv2(first)
    concrete = INTEGER.calibrate(Statistics.of(first) + Statistics.of(second))
    both = torch.cat([first[:NOISE_SAMPLES], second[:NOISE_SAMPLES]])
    assert found == pytest.approx((ratio(both, concrete),), rel=1e-3)


def test_no_format_loses_more_than_all_and_nothing_is_lost_of_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2)).eval()
    nn.init.zeros_(model[0].weight)
    x = torch.full((4, 3), 0.01)
    graph = trace(model, (x,))
    binary = parse("binary(scale=1)")
    sites = {Site("0", SiteKind.DATA_IN): (binary,), Site("1", SiteKind.DATA_IN): (FINE,)}
    found = noise(graph, model, Split((x,), torch.zeros(4, dtype=torch.long)), sites)
    assert found == {Site("0", SiteKind.DATA_IN): (1.0,), Site("1", SiteKind.DATA_IN): None}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_values_of_half_precision_do_not_overflow(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 2)).to(dtype).eval()
    x = torch.full((4, 3), 1000.0, dtype=dtype)
    site = Site("0", SiteKind.DATA_IN)
    found = noise(trace(model, (x,)), model, Split((x,), torch.zeros(4, dtype=torch.long)), {site: (parse("int(8)"),)})
    assert found[site] == pytest.approx((0.0,), abs=1e-4)


class Gated(nn.Module):
    """Takes one of two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) if x.sum() > 0 else self.right(-x)


def test_of_a_model_that_cannot_be_exported_it_is_what_its_code_computes_with() -> None:
    model = Gated().eval()
    x = torch.rand(8, 3)
    graph = trace(model, (x,))
    assert not graph.is_replayable
    left, right = Site("left", SiteKind.DATA_IN), Site("left", SiteKind.WEIGHT)
    found = noise(graph, model, Split((x,), torch.zeros(8, dtype=torch.long)), {left: (COARSE,), right: (COARSE,)})
    assert found[left] == pytest.approx((ratio(x, COARSE),), rel=1e-3)
    assert found[right] == pytest.approx((ratio(model.left.weight.detach().reshape(1, -1), COARSE),), rel=1e-3)


def test_it_does_not_hang_on_the_number_of_threads() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10)).eval()
    x = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    graph, split = trace(model, (x[:2],)), Split((x,), torch.zeros(20, dtype=torch.long))
    sites = {Site(name, kind): (COARSE, FINE) for name in ("0", "2") for kind in (SiteKind.DATA_IN, SiteKind.WEIGHT)}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(noise(graph, model, split, sites))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_rounding_changes_neither_model_nor_data() -> None:
    its = case("mixing")
    model = copy.deepcopy(its.model).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = its.split.inputs[0].clone()
    wanted = {Site(o.name, kind): (COARSE,) for o in its.graph.operations for kind in o.sites}
    assert all(found is not None for found in noise(its.graph, model, its.split, wanted).values())
    assert torch.equal(its.split.inputs[0], inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert F.mse_loss(its.model(inputs), model(inputs)) == 0
