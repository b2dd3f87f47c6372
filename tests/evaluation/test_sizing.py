"""How much goes through a model at a time, and on how many threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator, ReferenceEvaluator
from dovetail.evaluation.program import compile_program
from dovetail.evaluation.sizing import is_small, on_one_thread
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_is_for_the_block_alone_even_where_it_fails(two_threads: None) -> None:
    with on_one_thread(True):
        assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), on_one_thread(True):
        _ = 1 / 0
    with on_one_thread(False):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("model", "example", "multiplications"),
    [
        (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), torch.zeros(2, 16), 512),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), torch.zeros(2, 3, 4, 4), 8 * 16 * 27),
    ],
)
def test_a_model_is_small_below_two_to_the_26_multiplications_of_one_operator(
    model: nn.Module, example: torch.Tensor, multiplications: int
) -> None:
    program = compile_program(trace(model, (example,)), CPU)
    most = (1 << 26) // multiplications  # samples
    assert is_small(program, model, most - 1, CPU)
    assert not is_small(program, model, most + 1, CPU)
    assert not is_small(program, model, 1, torch.device("cuda"))


def test_scores_do_not_depend_on_the_users_threads_and_leave_them_as_they_were(two_threads: None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    split = Split((torch.randn(3000, 16),), torch.randint(0, 5, (3000,)))
    graph = trace(model, (split.inputs[0][:2],))
    plans = [Plan.of({Site("2", SiteKind.DATA_IN): parse(text)}) for text in ("fixed(8,4)", "fixed(4,2)", "bfloat16")]
    for kind in (PtqEvaluator, ReferenceEvaluator):
        found = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            outcomes = sorted(kind(graph, model, split, ("accuracy", "loss")).evaluate(plans), key=lambda o: o.plan.key)
            found.append([(outcome.plan, outcome.score) for outcome in outcomes])
            assert torch.get_num_threads() == threads
        assert found[0] == found[1]
