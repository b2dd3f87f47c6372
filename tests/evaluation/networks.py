"""Small networks of different shapes, with their graphs, and plans drawn for them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.formats import Format, parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan

FORMATS: tuple[Format, ...] = tuple(parse(f"fixed({w},{f})") for w, f in ((16, 8), (8, 4), (6, 3), (4, 2), (3, 0)))


@dataclass(frozen=True)
class Case:
    """A network with data."""

    model: nn.Module
    graph: Graph
    split: Split


class Residual(nn.Module):
    """Convolutions, a residual sum, a view, two readers of one value, in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.side = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.conv2(x) + x)
        z = self.side(x)[:, :, ::2, ::2]
        y = torch.cat([F.max_pool2d(y, 2), z], 1)
        return self.head(y.mean((2, 3)).flatten(1))


class Mixing(nn.Module):
    """Matrix products of activations, one value rounded for three readers, a parameter used outside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.shift = nn.Parameter(torch.randn(4))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 3, 4)
        weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
        return self.head(torch.tanh(weights @ self.v(x) + self.shift).flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 8),
        nn.ReLU(),
        nn.Linear(8, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
        nn.ReLU(),
    )


SHAPES = {"mlp": (12,), "residual": (2, 4, 4), "mixing": (12,)}
BUILDERS = {"mlp": mlp, "residual": Residual, "mixing": Mixing}


@cache
def case(name: str, samples: int = 37) -> Case:
    """The network of a name; traced once for all tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BUILDERS[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        inputs = torch.randn(samples, *SHAPES[name])
        targets = torch.randint(0, 3, (samples,))
    return Case(model, trace(model, (inputs[:2],)), Split((inputs,), targets))


def draw_plans(graph: Graph, count: int, seed: int, *, widths: bool = False, density: float = 0.6) -> list[Plan]:
    """Plans with a random format at a share of the sites; few formats, so that plans share and repeat."""
    rng = random.Random(seed)
    choices = rng.sample(FORMATS, 2)
    groups = [group for group in graph.groups if group.frozen is None] if widths else []
    return [
        Plan.of(
            {site: rng.choice(choices) for site in graph.sites if rng.random() < density},
            {group.name: group.base * rng.choice((1, 2)) for group in groups if rng.random() < 0.5},
        )
        for _ in range(count)
    ]
