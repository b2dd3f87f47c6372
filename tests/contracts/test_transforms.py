"""Every way to get weights and every ranking obeys the laws of the transforms; new rows of the tables are covered
from birth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan
from dovetail.testing.transforms import check_quantise, check_resize, fingerprint, primed
from dovetail.transforms import IMPORTANCE, Inherit, Weights, apply, resize


@pytest.fixture(scope="module")
def case():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = [
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 6, 3),
            nn.Flatten(),
        ]
        model = primed(nn.Sequential(*conv, nn.Linear(6 * 4, 5)))
        inputs = (torch.randn(4, 3, 4, 4),)
    return trace(model, inputs), model, inputs


WIDTHS = [{}, {"0": 16}, {"3": 3}, {"0": 4, "3": 18}, {"0": 1, "3": 1}]


@pytest.mark.parametrize("widths", WIDTHS)
def test_resizing_obeys_its_laws(case, widths) -> None:
    check_resize(*case, Plan.of(widths=widths))


@pytest.mark.parametrize("text", ["fixed(16,8)", "fixed(8,4)", "fixed(4,2)", "fixed(2,0)", "float32"])
def test_quantising_obeys_its_laws(case, text: str) -> None:
    check_quantise(*case, Plan.of(dict.fromkeys(case[0].sites, parse(text))))


@pytest.mark.parametrize("weights", ["inherit", "initialise", *map(Inherit, IMPORTANCE)], ids=str)
def test_every_option_gives_the_planned_shapes_and_follows_its_seed(case, weights: Weights) -> None:
    graph, model, inputs = case
    before = fingerprint(model)
    plan = Plan.of(dict.fromkeys(graph.sites, parse("fixed(8,4)")), {"0": 5, "3": 7})
    results = [apply(graph, model, plan, weights=weights, seed=3) for _ in range(2)]
    shapes = {name: tuple(t.shape) for name, t in results[0].state_dict().items()}
    assert shapes == {n: tuple(t.shape) for n, t in resize(graph, model, plan).state_dict().items()}
    assert torch.equal(results[0](*inputs), results[1](*inputs))
    assert fingerprint(model) == before
