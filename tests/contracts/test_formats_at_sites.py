"""Every format can be used at every site: after training as the model's own quantised code does, and in training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.evaluation.calibration import Calibration
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan, SiteKind
from dovetail.transforms import quantise

from .test_formats import TEXTS


class Network(nn.Module):
    """One of each: convolutions, one of them depthwise, both kinds of norm, a sum, a product and functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.last = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8 * 16, 10)
        self.layer_norm = nn.LayerNorm(10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        y = F.gelu(self.depthwise(torch.relu(y) + y * 0.5))
        return torch.softmax(self.layer_norm(self.last(y.flatten(1))), 1)


Case = tuple[Graph, nn.Module, Split]


@pytest.fixture(scope="module")
def case() -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Network().eval(), torch.randn(4, 3, 6, 6)
        return trace(model, (x,)), model, Split((x,), torch.randint(0, 10, (4,)))


def test_the_case_has_sites_of_every_kind(case: Case) -> None:
    assert {site.kind for site in case[0].sites} == set(SiteKind)


@pytest.mark.parametrize("text", [*TEXTS, "int(8,channel)", "int(4,affine,channel)"])
def test_every_format_is_scored_and_trained_at_every_site(case: Case, text: str) -> None:
    graph, model, split = case
    plan = Plan.of(dict.fromkeys(graph.sites, parse(text)))
    fast = PtqEvaluator(graph, model, split, ("accuracy", "loss"))
    slow = ReferenceEvaluator(graph, model, split, ("accuracy", "loss"))
    (outcome,), (expected,) = fast.evaluate([plan]), slow.evaluate([plan])
    assert outcome.failure is None
    assert outcome.score == expected.score

    concrete = Calibration(graph, model, split, weights="inherit", seed=0).resolve(plan)
    trained = quantise(graph, model, concrete).train()
    F.cross_entropy(trained(*split.inputs), split.targets).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.parameters())
