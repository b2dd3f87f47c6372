"""On the architectures that people have, the interpreter scores a plan as the plan's own model does, bit for bit."""

from __future__ import annotations

import random

import pytest
import torch

from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.graph.export import first_tensor
from dovetail.plan import Plan
from tests.architectures import ARCHITECTURES, small

pytestmark = pytest.mark.slow

FORMATS = [parse(text) for text in ("fixed(8,4)", "fixed(6,3)", "E4M3FN", "mxint8", "int(8)", "bfloat16")]


def draw_plan(graph: Graph, rng: random.Random) -> Plan:
    widths = {}
    for group in graph.groups:
        if group.frozen is None:
            blocks = int(group.base * rng.choice([0.5, 1, 2])) // group.multiple_of
            widths[group.name] = max(blocks, 1) * group.multiple_of
    return Plan.of({site: rng.choice(FORMATS) for site in graph.sites if rng.random() < 0.7}, widths)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_interpreter_scores_architectures_as_their_own_code_does(name: str) -> None:
    model, inputs = small(name)
    graph = trace(model, inputs)
    with torch.no_grad():
        outputs = first_tensor(model(*inputs))
    split = Split(inputs, torch.randn(outputs.shape))
    rng = random.Random(0)
    plans = [draw_plan(graph, rng) for _ in range(3)]
    fast = {o.plan: (o.score, o.failure) for o in PtqEvaluator(graph, model, split, ("mse",)).evaluate(plans)}
    slow = {o.plan: (o.score, o.failure) for o in ReferenceEvaluator(graph, model, split, ("mse",)).evaluate(plans)}
    assert fast == slow
