"""Laws of following channels: the layout of a dimension tells every element's channel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.transforms import inheritance_report
from dovetail.transforms.propagate import Channels, find_channels


class Mixed(nn.Module):
    """Depthwise, grouped, concatenated, flattened, normalised, softmaxed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 1, groups=4)
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


@pytest.fixture(scope="module")
def channels(graph: Graph) -> Channels:
    return find_channels(graph)


def test_a_concatenation_is_laid_out_block_after_block_and_flatten_puts_positions_inside(channels: Channels) -> None:
    grouped, b = channels.blocks["grouped"], channels.blocks["b"]
    assert channels.layouts["fc.weight"][1].segments == ((4, grouped, 4), (b, 4))


def test_channels_of_a_grouped_convolution_are_groups_of_channels(channels: Channels) -> None:
    a = channels.blocks["a"]
    assert channels.layouts["depthwise.weight"][0].segments == ((4, a),)
    assert channels.layouts["grouped.weight"][1].segments == ((a,),)


def test_columns_are_summed_over_and_rows_and_scales_are_not(channels: Channels) -> None:
    assert {("grouped.weight", 1), ("fc.weight", 1), ("out.weight", 1)} <= channels.contracted
    assert not {("a.weight", 0), ("norm.weight", 0), ("depthwise.weight", 0)} & channels.contracted


def test_what_mixes_channels_without_weights_makes_growing_inexact_and_says_where(graph: Graph) -> None:
    doubled = Plan.of(widths={name: 2 * graph.group(name).base for name in ("b", "gate", "grouped")})
    odd = Plan.of(widths={"grouped": 16})
    report = {change.group: change for change in inheritance_report(graph, doubled)}
    assert report["b"].exact
    assert report["grouped"].exact
    assert not report["gate"].exact
    assert any("softmax" in reason for reason in report["gate"].reasons)
    (change,) = inheritance_report(graph, odd)
    assert not change.exact
    assert any("norm" in reason and "16 is no multiple of 12" in reason for reason in change.reasons)
