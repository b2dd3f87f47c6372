"""Whatever a model is made of, the interpreter scores a plan as the plan's own model does."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from tests.odd_models import ODD, made

FORMATS = [parse(text) for text in ("fixed(8,4)", "fixed(4,2)", "E4M3FN", "mxint8", "int(8)", "bfloat16", "binary")]


def draw_plans(graph: Graph, count: int) -> list[Plan]:
    rng = random.Random(0)
    free = [group for group in graph.groups if group.frozen is None]
    return [
        Plan.of(
            {site: rng.choice(FORMATS) for site in graph.sites if rng.random() < 0.7},
            {g.name: max(int(g.base * rng.choice([0.5, 1, 2])) // g.multiple_of, 1) * g.multiple_of for g in free},
        )
        for _ in range(count)
    ]


def require_equal_scores(graph: Graph, model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        outputs = model(x)
    if outputs.ndim == 2:
        metrics, targets = ("accuracy", "loss"), torch.arange(len(x)) % outputs.shape[1]
    else:
        metrics, targets = ("mse",), torch.zeros(outputs.shape)
    split, plans = Split((x,), targets), draw_plans(graph, 6)
    fast = {o.plan: (o.score, o.failure) for o in PtqEvaluator(graph, model, split, metrics).evaluate(plans)}
    slow = {o.plan: (o.score, o.failure) for o in ReferenceEvaluator(graph, model, split, metrics).evaluate(plans)}
    assert fast == slow
    assert all(failure is None for _, failure in fast.values())


@pytest.mark.parametrize("name", ODD)
def test_the_interpreter_scores_odd_models_as_their_own_code_does(name: str) -> None:
    model, x, graph = made(name, batch=12)
    require_equal_scores(graph, model, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_precisions_are_scored(dtype: torch.dtype) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
        x = torch.randn(12, 4).to(dtype)
    require_equal_scores(trace(model, (x[:2],)), model, x)
