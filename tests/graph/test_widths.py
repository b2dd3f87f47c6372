"""Width groups of channels that are concatenated, grouped and flattened, and the integers that follow them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.graph import Graph, trace


class Mixed(nn.Module):
    """Depthwise, grouped, concatenated, flattened, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 12, 1, groups=4)
        self.norm = nn.GroupNorm(2, 12)
        self.fc = nn.Linear((12 + 6) * 4, 10)
        self.out = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.grouped(self.depthwise(self.a(x))))
        y = F.adaptive_avg_pool2d(torch.cat([y, self.b(x)], 1), 2).flatten(1)
        return self.out(F.relu(self.fc(y)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(Mixed(), (torch.randn(2, 3, 8, 8),))


def test_shapes_of_a_grouped_convolution_follow_its_groups(graph: Graph) -> None:
    a = graph.group("a")
    assert a.multiple_of % 2 == 0  # two channels to each of four groups, where each of a's channels becomes two
    assert graph.parameters["depthwise.weight"][0] == 2 * a.symbol
    assert 4 * graph.parameters["grouped.weight"][1] == 2 * a.symbol


def test_a_width_split_in_groups_must_be_a_multiple_of_them(graph: Graph) -> None:
    assert graph.group("grouped").multiple_of == 4
    assert graph.group("grouped").frozen is None


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
