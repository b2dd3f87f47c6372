"""Matmul-only FLOPs equal those of `torch.utils.flop_counter` on real architectures, resized at random too."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dovetail.costs import CostModel
from dovetail.graph import trace
from dovetail.plan import Plan
from dovetail.transforms import resize
from tests.architectures import ARCHITECTURES, small


def counted(model, *inputs):
    """What PyTorch counts. Its counter knows no CPU kernel of attention, so attention runs as the products it is."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*inputs)
    return counter.get_total_flops()


def random_widths(graph, rng):
    free = [group for group in graph.groups if group.frozen is None]
    return {g.name: int(g.multiple_of * rng.integers(1, 2 * g.base // g.multiple_of + 1)) for g in free}


QUICK = "padded_resnet"


@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_matmul_flops_and_parameters_equal_what_pytorch_counts(name):
    model, inputs = small(name)
    graph = trace(model, inputs)
    costs = CostModel(graph, batch=2)
    rng = np.random.default_rng(0)
    for plan in (Plan(), Plan.of(widths=random_widths(graph, rng)), Plan.of(widths=random_widths(graph, rng))):
        built = resize(graph, model, plan, weights="initialise") if plan.widths else model
        priced = costs.price(plan, ["params", "flops_matmul"])
        assert priced["flops_matmul"].unpriced == ()
        assert priced["flops_matmul"].value == counted(built, *inputs)
        assert priced["params"].value == sum(p.numel() for p in built.parameters())


def test_matmul_flops_follow_the_batch():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    x = torch.randn(2, 3, 4, 4)
    graph = trace(model, (x,))
    wider = torch.cat([x, x, x[:1]])
    assert CostModel(graph, batch=5).price(Plan(), ["flops_matmul"])["flops_matmul"].value == counted(model, wider)


CONTRACTIONS = [
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("...ij,...kj->...ik", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bi,bj->bij", (2, 3), (2, 4)),
    ("bi,ij,jk->bk", (2, 3), (3, 4), (4, 5)),
    ("bi,ij,bk,kj->b", (2, 3), (3, 4), (2, 5), (5, 4)),
    ("bij,bk->b", (2, 3, 4), (2, 5)),
    ("bij->bj", (2, 3, 4)),
]


@pytest.mark.parametrize("case", CONTRACTIONS, ids=lambda case: case[0])
def test_contractions_by_einsum_cost_what_pytorch_makes_of_them(case):
    class Einsum(torch.nn.Module):
        def forward(self, *tensors):
            return torch.einsum(case[0], *tensors)

    tensors = tuple(torch.randn(shape) for shape in case[1:])
    priced = CostModel(trace(Einsum(), tensors), batch=2).price(Plan(), ["flops_matmul"])["flops_matmul"]
    assert priced.value == counted(Einsum(), *tensors)
