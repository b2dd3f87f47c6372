"""Formats whose range is read off data."""

from __future__ import annotations

import copy

import torch

from dovetail.data import Split
from dovetail.evaluation import CALIBRATION_SAMPLES, Calibration, PtqEvaluator, ReferenceEvaluator
from dovetail.formats import parse
from dovetail.formats.statistics import Statistics
from dovetail.plan import Plan, Site, SiteKind

from .networks import case

DATA, WEIGHT = Site("2", SiteKind.DATA_IN), Site("2", SiteKind.WEIGHT)


def calibration(samples: int = 37) -> Calibration:
    its = case("mlp")
    split = Split(tuple(x[:samples] for x in its.split.inputs), its.split.targets[:samples])
    return Calibration(its.graph, copy.deepcopy(its.model).eval(), split, weights="inherit", seed=0)


def test_an_activations_range_is_that_of_the_float_model() -> None:
    its = case("mlp")
    model = copy.deepcopy(its.model).eval()
    with torch.no_grad():
        seen = torch.relu(model[0](its.split.inputs[0]))
    expected = parse("int(8)").calibrate(Statistics.of(seen))
    assert calibration().resolve(Plan.of({DATA: parse("int(8)")})) == Plan.of({DATA: expected})


def test_concrete_plans_and_weights_are_left_as_they_are() -> None:
    plan = Plan.of({DATA: parse("fixed(8,4)"), WEIGHT: parse("int(8)")})
    assert calibration().resolve(plan) is plan


def test_every_operand_of_a_site_counts() -> None:
    its = case("residual")
    (add,) = its.graph.select("add")
    site = Site(add.name, SiteKind.DATA_IN)
    model = copy.deepcopy(its.model).eval()
    with torch.no_grad():
        first = torch.relu(model.bn1(model.conv1(its.split.inputs[0])))
        second = model.conv2(first)
    expected = parse("int(6)").calibrate(Statistics.of(first) + Statistics.of(second))
    resolved = Calibration(its.graph, model, its.split, weights="inherit", seed=0).resolve(
        Plan.of({site: parse("int(6)")})
    )
    assert resolved.format(site) == expected


def test_calibrated_plans_score_as_each_alone_at_planned_widths_too() -> None:
    its = case("mlp")
    texts = ("int(8)", "int(4)", "int(4,affine)")
    plans = [
        Plan.of({DATA: parse(a), WEIGHT: parse(b)}, widths) for a in texts for b in texts for widths in ({}, {"2": 16})
    ]
    fast = {o.plan: (o.score, o.failure) for o in PtqEvaluator(its.graph, its.model, its.split).evaluate(plans)}
    slow = {o.plan: (o.score, o.failure) for o in ReferenceEvaluator(its.graph, its.model, its.split).evaluate(plans)}
    assert fast == slow
    assert all(score is not None for score, _ in fast.values())


def test_statistics_stand_on_a_stated_number_of_samples() -> None:
    assert CALIBRATION_SAMPLES == 512
