"""Laws of channels that are cut into groups: they move with what they are made of, or the report says why not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.testing.transforms import check_resize, primed
from dovetail.transforms import GroupChange, inheritance_report, resize

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Multiplied(nn.Module):
    """A depthwise convolution that makes several of each channel, then a convolution or a normalisation in groups."""

    def __init__(self, width: int, several: int, groups: int, normalised: bool = False) -> None:
        super().__init__()
        wide = several * width
        self.a, self.depthwise = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, wide, 3, padding=1, groups=width)
        self.grouped = nn.GroupNorm(groups, wide) if normalised else nn.Conv2d(wide, 12, 1, groups=groups)
        self.out = nn.Linear(wide if normalised else 12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.grouped(F.relu(self.depthwise(F.relu(self.a(x)))))).mean((2, 3)))


class Concatenated(nn.Module):
    """Two tensors of channels, normalised in groups together."""

    def __init__(self, a: int, b: int, groups: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, a, 3, padding=1), nn.Conv2d(3, b, 3, padding=1)
        self.norm, self.out = nn.GroupNorm(groups, a + b), nn.Linear(a + b, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1))).mean((2, 3)))


def traced(model: nn.Module) -> tuple[Graph, nn.Module]:
    return trace(primed(model), (X,)), model


def changes(graph: Graph, **widths: int) -> dict[str, GroupChange]:
    return {change.group: change for change in inheritance_report(graph, Plan.of(widths=widths))}


SEVERAL = [(8, 2, 4), (8, 2, 2), (8, 3, 4), (8, 4, 4)]


@pytest.mark.parametrize(("width", "several", "groups"), SEVERAL)
def test_what_a_depthwise_convolution_makes_several_of_stays_in_its_group(
    width: int, several: int, groups: int
) -> None:
    graph, model = traced(Multiplied(width, several, groups))
    assert {g.name: g.multiple_of for g in graph.groups if g.frozen is None} == {"a": groups, "grouped": groups}
    for factor in (3, 6):
        plan = Plan.of(widths={"a": width * factor // 2, "grouped": 12 * factor // 3})
        assert all(change.exact for change in inheritance_report(graph, plan))
        check_resize(graph, model, (X,), plan, retrace=factor == 3)


@pytest.mark.parametrize(("width", "several", "groups"), SEVERAL)
def test_dropping_channels_that_are_zero_keeps_the_function(width: int, several: int, groups: int) -> None:
    graph, model = traced(Multiplied(width, several, groups))
    idle = [c for c in range(width) if c % (width // groups) >= width // groups // 2]  # the same ones of every group
    with torch.no_grad():
        for c in idle:
            model.a.weight[c] = model.a.bias[c] = 0
            model.depthwise.bias[several * c : several * (c + 1)] = 0
        expected = model(X)
        narrow = resize(graph, model, Plan.of(widths={"a": width // 2}))
        assert narrow.depthwise.weight.shape[0] == several * width // 2
        torch.testing.assert_close(narrow(X), expected, rtol=1e-5, atol=1e-5)


def test_several_of_each_channel_can_be_normalised_in_groups() -> None:
    graph, model = traced(Multiplied(8, 2, 4, normalised=True))
    assert graph.group("a").multiple_of == 4
    assert changes(graph, a=16)["a"].exact
    check_resize(graph, model, (X,), Plan.of(widths={"a": 16}), retrace=False)


@pytest.mark.parametrize(
    ("model", "group"),
    [
        (Multiplied(6, 2, 4), "a"),
        (Multiplied(3, 4, 2), "a"),
        (Multiplied(3, 4, 2, normalised=True), "a"),
        (Concatenated(4, 8, 2), "a"),
        (Concatenated(4, 8, 2), "b"),
    ],
    ids=["half-channels", "odd", "odd-norm", "cat-a", "cat-b"],
)
def test_groups_that_begin_amid_the_channels_of_a_width_make_growing_it_inexact(model: nn.Module, group: str) -> None:
    graph, model = traced(model)
    change = changes(graph, **{group: 2 * graph.group(group).base})[group]
    assert not change.exact
    assert any("and not between channels of a width" in reason for reason in change.reasons)
    with torch.no_grad():
        grown = resize(graph, model, Plan.of(widths={group: change.width}))
        assert not torch.allclose(grown(X), model(X), rtol=1e-3, atol=1e-3)


def test_the_outputs_of_a_convolution_in_groups_can_be_grown_whatever_its_inputs_are() -> None:
    graph, model = traced(Multiplied(6, 2, 4))
    assert changes(graph, grouped=24)["grouped"].exact
    check_resize(graph, model, (X,), Plan.of(widths={"grouped": 24}), retrace=False)
