"""The memoised interpreter gives, to the bit, what building and running each plan's model gives."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.evaluation import Outcome, PtqEvaluator, ReferenceEvaluator
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind

from .networks import BUILDERS, FORMATS, Case, case, draw_plans

METRICS = ("accuracy", "loss")


def in_order(evaluator: PtqEvaluator, plans: Sequence[Plan]) -> list[Outcome]:
    return [outcome for _, outcome in sorted(evaluator.evaluate_tagged(plans), key=lambda tagged: tagged[0])]


def scores(outcomes: Sequence[Outcome]) -> list[object]:
    return [(outcome.plan, outcome.score, outcome.failure) for outcome in outcomes]


def fast(its: Case, **options: object) -> PtqEvaluator:
    return PtqEvaluator(its.graph, its.model, its.split, METRICS, **options)  # type: ignore[arg-type]


def slow(its: Case, **options: object) -> ReferenceEvaluator:
    return ReferenceEvaluator(its.graph, its.model, its.split, METRICS, **options)  # type: ignore[arg-type]


SITUATIONS = {
    "name": st.sampled_from(sorted(BUILDERS)),
    "seed": st.integers(0, 2**16),
    "widths": st.booleans(),
    "budget": st.sampled_from([0, 700, 5_000, 30_000, 1 << 30]),
    "batch_size": st.sampled_from([None, 37, 16, 5]),
    "calls": st.sampled_from([(8,), (1, 1, 6), (4, 4)]),
}


def require_equal_scores(
    name: str, seed: int, widths: bool, budget: int, batch_size: int | None, calls: tuple[int, ...]
) -> None:
    its = case(name)
    plans = draw_plans(its.graph, sum(calls), seed, widths=widths)
    evaluator = fast(its, memory_budget=budget, batch_size=batch_size)
    series = iter(plans)
    found = [o for count in calls for o in in_order(evaluator, list(itertools.islice(series, count)))]
    assert scores(found) == scores(list(slow(its, batch_size=batch_size).evaluate(plans)))
    assert evaluator.statistics.bytes <= budget


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**SITUATIONS)
def test_every_score_is_that_of_the_plan_alone_whatever_order_budget_and_batches(**situation: Any) -> None:
    require_equal_scores(**situation)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**SITUATIONS)
def test_every_score_is_that_of_the_plan_alone_in_many_situations(**situation: Any) -> None:
    require_equal_scores(**situation)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_plans_of_these_tests_do_have_scores(name: str) -> None:
    its = case(name)
    assert all(outcome.score is not None for outcome in fast(its).evaluate(draw_plans(its.graph, 8, 1, widths=True)))


def test_the_empty_plan_scores_as_the_model_itself() -> None:
    its = case("mlp")
    (outcome,) = fast(its).evaluate([Plan()])
    with torch.no_grad():
        right = (copy.deepcopy(its.model).eval()(*its.split.inputs).argmax(1) == its.split.targets).sum()
    assert outcome.score is not None
    assert outcome.score.value("accuracy") == int(right) / len(its.split)


def test_a_plan_by_hand_with_plain_operations_agrees_to_the_last_sample() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 4))
    x, y = torch.randn(200, 6), torch.randint(0, 4, (200,))
    data, weight, bias = parse("fixed(6,3)"), parse("fixed(4,2)"), parse("fixed(8,4)")

    def rounded(value: torch.Tensor, width: int, frac: int) -> torch.Tensor:
        top = 2 ** (width - 1)
        return (value * 2**frac).round().clamp(-top, top - 1) / 2**frac

    plan = Plan.of({Site("0", kind): fmt for kind, fmt in zip(SiteKind, (data, weight, bias), strict=True)})
    outputs = rounded(x, 6, 3) @ rounded(model[0].weight.data, 4, 2).T + rounded(model[0].bias.data, 8, 4)
    (outcome,) = PtqEvaluator(trace(model, (x[:2],)), model, Split((x,), y)).evaluate([plan])
    assert outcome.score is not None
    assert outcome.score.correct_mask is not None
    assert outcome.score.correct_mask.tolist() == (outputs.argmax(1) == y).tolist()


def test_every_plan_has_one_outcome_that_names_it_whatever_the_order() -> None:
    its = case("mlp")
    plans = draw_plans(its.graph, 20, 5)
    evaluator = fast(its)
    assert sorted(o.plan.key for o in evaluator.evaluate([*plans, *plans])) == sorted(p.key for p in [*plans, *plans])
    tagged = list(evaluator.evaluate_tagged(plans))
    assert sorted(index for index, _ in tagged) == list(range(20))
    assert all(outcome.plan == plans[index] for index, outcome in tagged)


def test_the_users_model_and_data_are_bit_identical_afterwards() -> None:
    its = case("residual")
    before = {name: value.clone() for name, value in its.model.state_dict().items()}
    inputs = its.split.inputs[0].clone()
    list(fast(its, memory_budget=0).evaluate(draw_plans(its.graph, 6, 2, widths=True)))
    assert its.model.training
    assert torch.equal(its.split.inputs[0], inputs)
    assert all(torch.equal(value, before[name]) for name, value in its.model.state_dict().items())


def test_shared_prefixes_are_computed_once() -> None:
    its = case("mlp")
    site, last = Site("2", SiteKind.DATA_IN), Site("6", SiteKind.DATA_IN)
    plans = [Plan.of({site: a, last: b}) for a in FORMATS for b in FORMATS]
    evaluator = fast(its)
    list(evaluator.evaluate(plans))
    steps = 8 + 2  # eight layers, two rounded operands
    prefix = 2  # batch norm and relu before the first decision
    middle = 5  # rounding, linear, relu, linear, relu
    assert evaluator.statistics.misses == prefix + len(FORMATS) * middle + len(plans) * (steps - prefix - middle)


def test_weights_are_rounded_once_per_site_and_format() -> None:
    its = case("mlp")
    evaluator = fast(its, batch_size=10, memory_budget=20_000)  # too little to hold anything for a later call
    plans = [Plan.of({Site("4", SiteKind.WEIGHT): fmt}) for fmt in FORMATS]
    list(evaluator.evaluate(plans))
    first = evaluator.statistics.misses
    list(evaluator.evaluate(plans))
    assert first - (evaluator.statistics.misses - first) == len(FORMATS)  # the second call rounds no weight again


def test_an_unknown_site_fails_its_plan_alone() -> None:
    its = case("mlp")
    good, bad = Plan(), Plan.of({Site("nowhere", SiteKind.WEIGHT): FORMATS[0]})
    first, second = in_order(fast(its), [bad, good])
    assert first.failure is not None
    assert "nowhere" in first.failure
    assert second.score is not None


def test_nan_outputs_fail_the_plan_with_the_number_of_samples() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    x = torch.ones(5, 3)
    x[1, 0] = float("nan")
    (outcome,) = PtqEvaluator(
        trace(model, (torch.ones(2, 3),)), model, Split((x,), torch.zeros(5, dtype=torch.long))
    ).evaluate([Plan()])
    assert outcome.failure == "outputs are NaN for 1 of 5 samples."


def test_outputs_that_no_metric_fits_are_an_error_not_a_failure() -> None:
    model = nn.Sequential(nn.Unflatten(1, (3, 1)))
    split = Split((torch.ones(5, 3),), torch.zeros(5, dtype=torch.long))
    graph = trace(model, (torch.ones(2, 3),))
    for evaluator in (PtqEvaluator(graph, model, split), ReferenceEvaluator(graph, model, split)):
        with pytest.raises(EvaluationError, match=r"\[samples, classes\]"):
            list(evaluator.evaluate([Plan()]))


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(EvaluationError, match="batch_size"):
        fast(case("mlp"), batch_size=0)
