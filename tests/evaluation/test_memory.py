"""Budgets, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dovetail.evaluation import Outcome, PtqEvaluator, ReferenceEvaluator, default_budget, free_memory
from dovetail.evaluation.cache import ValueCache
from dovetail.formats import Format, parse
from dovetail.plan import Plan, Site, SiteKind

from .networks import case, draw_plans


def fill_gpu() -> None:
    raise torch.OutOfMemoryError("out of memory")


def fill_gpu_library() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def fill_memory_by_torch() -> None:
    torch.empty(1 << 58)


def fill_memory_by_numpy() -> None:
    np.empty(1 << 58, np.uint8)


class Exhausting(Format):
    """Rounds nothing, and runs out of memory on more than so many samples."""

    element_bits = 8
    maximum = minimum = step = 1.0

    def __init__(self, most: int, fill: Callable[[], None] = fill_gpu) -> None:
        self.most = most
        self.fill = fill
        self.seen: list[int] = []

    def quantise(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            self.fill()
        return x.clone()

    def __str__(self) -> str:
        return "exhausting"


def run(fmt: Format, **options: Any) -> tuple[PtqEvaluator, list[Outcome]]:
    its = case("mlp")
    evaluator = PtqEvaluator(its.graph, its.model, its.split, **options)
    plans = [Plan.of({Site("4", SiteKind.DATA_IN): fmt}), Plan()]
    return evaluator, [o for _, o in sorted(evaluator.evaluate_tagged(plans), key=lambda tagged: tagged[0])]


@pytest.mark.parametrize("fill", [fill_gpu, fill_gpu_library, fill_memory_by_torch, fill_memory_by_numpy])
def test_out_of_memory_halves_the_batch_and_goes_on(fill: Callable[[], None]) -> None:
    evaluator, outcomes = run(Exhausting(10, fill))
    its = case("mlp")
    (plain,) = ReferenceEvaluator(its.graph, its.model, its.split).evaluate([Plan()])
    assert evaluator.batch_size == 10  # 37, 19, 10
    assert [outcome.score for outcome in outcomes] == [plain.score, plain.score]


@pytest.mark.parametrize("fill", [fill_gpu, fill_memory_by_numpy])
def test_out_of_memory_on_a_single_sample_fails_the_plan_alone(fill: Callable[[], None]) -> None:
    evaluator, (first, second) = run(Exhausting(0, fill), batch_size=4)
    assert first.failure is not None
    assert "out of memory" in first.failure
    assert second.score is not None
    assert evaluator.batch_size == 1


def test_other_errors_of_a_plan_fail_it_and_bugs_are_raised() -> None:
    class Failing(Exhausting):
        def quantise(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("sizes do not match")

    class Buggy(Exhausting):
        def quantise(self, x: torch.Tensor) -> torch.Tensor:
            raise TypeError("a bug")

    _, (first, second) = run(Failing(0))
    assert first.failure == "sizes do not match"
    assert second.score is not None
    with pytest.raises(TypeError, match="a bug"):
        run(Buggy(0))


@pytest.mark.parametrize("budget", [0, 2_000, 20_000])
def test_the_cache_never_holds_more_than_its_budget(budget: int) -> None:
    its = case("residual")
    evaluator = PtqEvaluator(its.graph, its.model, its.split, memory_budget=budget, batch_size=8)
    list(evaluator.evaluate(draw_plans(its.graph, 10, 0)))
    assert evaluator.statistics.budget == budget
    assert evaluator.statistics.peak_bytes <= budget


def test_the_least_recently_used_value_goes_first() -> None:
    cache = ValueCache(3 * 64 * 4)
    for key in range(3):
        cache.put(key, torch.zeros(64))
    cache.get(0)
    cache.put(3, torch.zeros(64))
    assert [key in cache for key in range(4)] == [True, False, True, True]
    assert cache.statistics.evictions == 1


def test_views_of_one_memory_are_counted_once() -> None:
    cache = ValueCache(10_000)
    x = torch.zeros(64)
    cache.put(0, x)
    cache.put(1, (x.view(8, 8), x[3:]))
    assert cache.statistics.bytes == 64 * 4
    cache.pop(0)
    assert cache.statistics.bytes == 64 * 4
    cache.pop(1)
    assert cache.statistics.bytes == 0


def test_the_default_budget_is_a_quarter_of_free_memory() -> None:
    assert free_memory() > 0
    assert default_budget() == pytest.approx(free_memory() / 4, rel=0.2)


def test_a_format_that_rounds_in_place_never_touches_what_others_need() -> None:
    its = case("residual")
    fmt = parse("fixed(3,0)")
    plans = [Plan.of({Site("conv2", SiteKind.DATA_IN): fmt}), Plan.of({Site("side", SiteKind.DATA_IN): fmt}), Plan()]
    for order in (plans, plans[::-1]):
        fast = {o.plan: o.score for o in PtqEvaluator(its.graph, its.model, its.split, ("loss",)).evaluate(order)}
        slow = {o.plan: o.score for o in ReferenceEvaluator(its.graph, its.model, its.split, ("loss",)).evaluate(order)}
        assert fast == slow
