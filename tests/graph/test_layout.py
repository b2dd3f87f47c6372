"""Laws of following channels: the layout of a dimension tells every element's channel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sympy import Integer
from torch import Tensor, nn

from dovetail.graph import Graph, Use, trace


class Mixed(nn.Module):
    """Depthwise, grouped, concatenated, flattened, normalised, softmaxed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 12, 1, groups=4)
        self.norm = nn.GroupNorm(2, 12)
        self.fc = nn.Linear((12 + 6) * 4, 10)
        self.gate, self.out = nn.Linear(10, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.grouped(self.depthwise(self.a(x))))
        y = F.adaptive_avg_pool2d(torch.cat([y, self.b(x)], 1), 2).flatten(1)
        return self.out(self.gate(F.relu(self.fc(y))).softmax(-1))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(Mixed(), (torch.randn(2, 3, 8, 8),))


def test_a_concatenation_is_laid_out_block_after_block_and_flatten_puts_positions_inside(graph: Graph) -> None:
    b = graph.group("b").symbol
    *_, last = graph.layouts["fc.weight", 1].blocks
    assert last == (b, Integer(4))
    assert graph.layouts["fc.weight", 1].size == graph.tensor_shape("fc.weight")[1]


def test_channels_of_a_grouped_convolution_are_groups_of_channels(graph: Graph) -> None:
    a = graph.group("a")
    (inner,) = graph.layouts["grouped.weight", 1].blocks
    assert a.multiple_of % 2 == 0
    assert graph.layouts["depthwise.weight", 0].size == 2 * a.symbol
    assert 4 * graph.layouts["grouped.weight", 1].size == 2 * a.symbol
    assert inner[-1] in graph.layouts["depthwise.weight", 0].factors


def test_a_width_split_in_groups_must_be_a_multiple_of_them(graph: Graph) -> None:
    assert graph.group("grouped").multiple_of == 4
    assert graph.group("grouped").frozen is None


def test_rows_produce_columns_consume_and_depthwise_kernels_act_on_each_channel(graph: Graph) -> None:
    assert graph.uses["a.weight", 0] is Use.PRODUCES
    assert graph.uses["grouped.weight", 1] is Use.CONSUMES
    assert graph.uses["norm.weight", 0] is Use.ELEMENTWISE


def test_what_mixes_channels_without_weights_makes_growing_inexact_and_says_where(graph: Graph) -> None:
    assert graph.inexact["gate"] == "softmax takes the softmax over the channels"
    assert graph.normalised["grouped"] == ("norm",)
    assert "b" not in graph.inexact


def test_integers_that_modules_hold_follow_the_widths(graph: Graph) -> None:
    sizes = {(a.module, a.name): a.size for a in graph.attributes}
    a = graph.group("a").symbol
    assert sizes["depthwise", "groups"] == a
    assert sizes["depthwise", "out_channels"] == 2 * a
    assert sizes["norm", "num_channels"] == graph.group("grouped").symbol
    assert ("grouped", "groups") not in sizes


def test_a_width_that_many_widths_are_concatenated_to_follows_them_all() -> None:
    class Wide(nn.Module):
        def __init__(self, branches: int = 8) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Linear(3, 4 + i) for i in range(branches))
            total = sum(branch.out_features for branch in self.branches)
            self.norm, self.out = nn.BatchNorm1d(total), nn.Linear(total, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(torch.cat([branch(x) for branch in self.branches], 1)))

    graph = trace(Wide(), (torch.zeros(2, 3),))
    free = {group.name for group in graph.groups if group.frozen is None}
    assert free == {f"branches.{i}" for i in range(8)}
    assert graph.parameters["norm.weight"][0].free_symbols == {graph.group(name).symbol for name in free}
