"""Stacking last layers keeps every bit, or is not done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.evaluation.program import compile_program
from dovetail.evaluation.tail import find_tail, has_exact_sums, keeps_bits, row_steps
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind

from .networks import case


def test_a_linear_layer_with_pointwise_operators_after_it_is_a_tail() -> None:
    tail = find_tail(compile_program(case("mlp").graph))
    assert tail is not None
    assert len(tail.pointwise) == 1
    assert len(tail.unrounded) == 1


def test_a_program_that_ends_otherwise_has_no_tail() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Softmax(1))
    assert find_tail(compile_program(trace(model, (torch.zeros(2, 3),)))) is None


def test_sums_are_exact_up_to_the_dtypes_integers_and_not_beyond() -> None:
    data, weight = parse("fixed(16,0)"), parse("fixed(16,0)")
    rows = [row_steps(torch.full((1, 4), 1024.0), weight)]
    assert has_exact_sums(torch.full((1, 4), 4096.0), data, rows)  # 4096 x 4 x 1024 = 2**24
    assert not has_exact_sums(torch.full((1, 4), 4097.0), data, rows)
    assert has_exact_sums(torch.full((1, 4), 4097.0).double(), data, rows)


def test_sums_are_not_called_exact_without_two_grids_or_with_nan() -> None:
    x, fmt = torch.ones(1, 4), parse("fixed(8,4)")
    good = row_steps(x, fmt)
    assert has_exact_sums(x, fmt, [good])
    assert not has_exact_sums(x, None, [good])
    assert not has_exact_sums(x, fmt, [good, row_steps(x, None)])
    assert not has_exact_sums(x, fmt, [good, row_steps(x * float("nan"), fmt)])


def test_one_layer_alone_keeps_its_bits() -> None:
    assert keeps_bits(
        samples=9,
        features=5,
        outputs=3,
        plans=1,
        has_bias=True,
        exact=False,
        dtype=torch.float32,
        device=torch.device("cpu"),
        threads=torch.get_num_threads(),
    )


@pytest.mark.parametrize("data", ["float32", "fixed(6,3)", "fixed(16,8)"])
@pytest.mark.parametrize("samples", [700, 64])
def test_plans_that_differ_in_the_last_weights_score_as_each_alone(data: str, samples: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5), nn.ReLU())
    split = Split((torch.randn(samples, 16),), torch.randint(0, 5, (samples,)))
    graph = trace(model, (split.inputs[0][:2],))
    formats = [parse(f"fixed({width},{frac})") for width, frac in ((16, 8), (8, 6), (8, 4), (4, 2), (16, 15))]
    plans = [
        Plan.of(
            {
                Site("2", SiteKind.DATA_IN): parse(data),
                Site("2", SiteKind.WEIGHT): weight,
                Site("2", SiteKind.BIAS): bias,
            }
        )
        for weight in formats
        for bias in (parse("float32"), parse("fixed(4,2)"))
    ]
    metrics = ("accuracy", "loss")
    fast = sorted(PtqEvaluator(graph, model, split, metrics).evaluate_tagged(plans), key=lambda tagged: tagged[0])
    slow = list(ReferenceEvaluator(graph, model, split, metrics).evaluate(plans))
    assert [outcome.score for _, outcome in fast] == [outcome.score for outcome in slow]


def test_last_weights_are_rounded_and_stacked_once_for_all_plans_that_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dovetail.evaluation.leaves.keeps_bits", lambda **_: True)  # which depends on the processor
    its = case("mlp")
    evaluator = PtqEvaluator(its.graph, its.model, its.split)
    firsts, lasts = ("fixed(8,4)", "fixed(6,3)", "fixed(4,2)"), ("fixed(8,6)", "fixed(8,5)", "fixed(4,3)")
    plans = [
        Plan.of({Site("2", SiteKind.DATA_IN): parse(first), Site("6", SiteKind.WEIGHT): parse(last)})
        for first in firsts
        for last in lasts
    ]
    list(evaluator.evaluate(plans))
    prefix = 2  # batch norm and relu before the first decision
    middle = 5  # rounding, linear, relu, linear, relu
    assert evaluator.statistics.misses == prefix + len(firsts) * middle + len(lasts)
    assert evaluator.statistics.hits == (len(firsts) - 1) * 2  # of the others each found the prefix and the stack
