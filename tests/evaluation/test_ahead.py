"""Products computed ahead by a thread change nothing but the time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.evaluation import ahead as ahead_module
from dovetail.evaluation.leaves import Product
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan, Site, SiteKind

SAMPLES = 300


class Late:
    """A thread that computes as late as it may: whatever was overwritten meanwhile would show."""

    def __init__(self) -> None:
        self.num_works = 0

    def submit(self, work: Callable[[], Tensor]) -> Late.Work:
        self.num_works += 1
        return Late.Work(work)

    class Work:
        def __init__(self, work: Callable[[], Tensor]) -> None:
            self.result = work

        def cancel(self) -> bool:
            return False


@pytest.fixture
def case() -> tuple[Graph, nn.Module, Split]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 5), nn.ReLU())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8).round_().div_(8)  # sums are exact: their order, which differs in a stack, does not show
    split = Split((torch.randn(SAMPLES, 16).mul_(4).round_().div_(4),), torch.randint(0, 5, (SAMPLES,)))
    return trace(model, (split.inputs[0][:2],)), model, split


@pytest.fixture
def plans() -> list[Plan]:
    """The last layer's data as it is, then rounded: in place, where nobody else needed it."""
    sites = (Site("2", SiteKind.DATA_IN), Site("4", SiteKind.DATA_IN), Site("4", SiteKind.WEIGHT))
    choices = (("", "fixed(8,4)", "fixed(4,2)"), ("", "fixed(6,3)", "fixed(8,5)"), ("fixed(8,6)", "fixed(4,3)"))
    return [
        Plan.of({site: parse(text) for site, text in zip(sites, chosen, strict=True) if text})
        for chosen in itertools.product(*choices)
    ]


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ahead_module, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr("dovetail.evaluation.leaves.keeps_bits", lambda **_: True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Late:
    thread = Late()
    monkeypatch.setattr(ahead_module, "_thread", lambda process: thread)
    return thread


@pytest.mark.parametrize("situation", [{}, {"batch_size": 70}, {"batch_size": 70, "memory_budget": 40_000}])
@pytest.mark.parametrize("metrics", [("accuracy",), ("accuracy", "loss")])
def test_scores_are_those_of_each_plan_alone_however_late_a_thread_computes(
    case: Any, plans: list[Plan], late: Late, situation: dict[str, int], metrics: tuple[str, ...]
) -> None:
    fast = sorted(PtqEvaluator(*case, metrics, **situation).evaluate_tagged(plans), key=lambda tagged: tagged[0])
    batch_size = situation.get("batch_size")
    slow = ReferenceEvaluator(*case, metrics, **({"batch_size": batch_size} if batch_size else {})).evaluate(plans)
    assert [outcome.score for _, outcome in fast] == [outcome.score for outcome in slow]
    assert late.num_works > 0


def test_scores_order_hits_and_misses_do_not_depend_on_the_thread(case: Any, plans: list[Plan]) -> None:
    found = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        evaluator = PtqEvaluator(*case, memory_budget=1 << 20)
        outcomes = [(index, outcome.score) for index, outcome in evaluator.evaluate_tagged(plans)]
        found.append((outcomes, evaluator.statistics))
    assert found[0] == found[1]


def test_no_thread_computes_where_torch_may_use_one_alone(case: Any, plans: list[Plan], late: Late) -> None:
    torch.set_num_threads(1)
    list(PtqEvaluator(*case).evaluate(plans))
    assert late.num_works == 0


def test_an_evaluation_that_was_given_up_leaves_nothing_to_the_next(case: Any, plans: list[Plan], late: Late) -> None:
    evaluator = PtqEvaluator(*case)
    expected = [outcome.score for outcome in PtqEvaluator(*case).evaluate(plans)]
    for stop in range(1, len(plans)):
        given_up = evaluator.evaluate(plans)
        list(itertools.islice(given_up, stop))
        assert [outcome.score for outcome in evaluator.evaluate(plans)] == expected


def test_running_out_of_memory_in_the_thread_halves_the_batch(
    case: Any, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, names = Product.compute, set()

    def full(self: Product) -> Tensor:
        names.add(threading.current_thread().name)
        if len(self.data) > SAMPLES // 2:
            raise MemoryError
        return compute(self)

    monkeypatch.setattr(Product, "compute", full)
    monkeypatch.setattr(ahead_module.Future, "cancel", lambda self: False)  # so that it is the thread that fails
    evaluator = PtqEvaluator(*case)
    outcomes = list(evaluator.evaluate(plans))
    assert len(outcomes) == len(plans)
    assert all(outcome.score is not None for outcome in outcomes)
    assert evaluator.batch_size == SAMPLES // 2
    assert any(name.startswith("dovetail-products") for name in names)


def test_a_group_that_cannot_be_begun_fails_when_its_turn_comes(
    case: Any, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    product, calls = ahead_module.Leaves.product, itertools.count()

    def failing(self: Any, group: Any, given: Any, piece: int) -> Product | None:
        if next(calls) >= 1:
            raise RuntimeError("boom")
        return product(self, group, given, piece)

    monkeypatch.setattr(ahead_module.Leaves, "product", failing)
    outcomes = list(PtqEvaluator(*case).evaluate(plans))
    num_scored = sum(outcome.score is not None for outcome in outcomes)
    assert 0 < num_scored < len(plans)
    assert [outcome.failure for outcome in outcomes] == [None] * num_scored + ["boom"] * (len(plans) - num_scored)


def test_nobody_waits_for_a_thread_that_does_not_come_to_it(
    case: Any, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, go_on = ThreadPoolExecutor(1), threading.Event()
    busy.submit(go_on.wait)
    monkeypatch.setattr(ahead_module, "_thread", lambda process: busy)
    scores = [outcome.score for outcome in PtqEvaluator(*case).evaluate(plans)]
    go_on.set()
    busy.shutdown()
    torch.set_num_threads(1)
    assert scores == [outcome.score for outcome in PtqEvaluator(*case).evaluate(plans)]


def test_products_run_on_one_thread_each(case: Any, plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    compute, seen = Product.compute, []

    def watched(self: Product) -> Tensor:
        seen.append(torch.get_num_threads())
        return compute(self)

    monkeypatch.setattr(Product, "compute", watched)
    list(PtqEvaluator(*case).evaluate(plans))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
