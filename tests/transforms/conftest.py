"""Small models that between them have every construct the transforms know, as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.graph import Graph, trace
from dovetail.testing.transforms import primed


class Residual(nn.Module):
    """Conv, BatchNorm, a residual sum, flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.relu = nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.fc = nn.Linear(6 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn0(self.conv0(x)))
        x = self.relu(x + self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Dense(nn.Module):
    """Concatenation of three tensors, two of them the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.conv2, self.fc = nn.Conv2d(14, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = F.gelu(self.conv0(x))
        b = F.silu(self.conv1(a))
        return self.fc(self.conv2(torch.cat([a, b, a], 1)).mean((2, 3)))


class Inverted(nn.Module):
    """Depthwise convolution, squeeze-and-excitation, ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.project, self.fc = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.depthwise(F.relu6(self.bn(self.expand(x)))))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return self.fc(F.max_pool2d(self.project(x * gate[:, :, None, None]), 4).amax((2, 3)))


class Padded(nn.Module):
    """A parameter-free shortcut: subsampling, zero channels on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv0(x))
        x = F.relu(self.conv1(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.fc(x.mean((2, 3)))


class Normed(nn.Module):
    """LayerNorm and GroupNorm over channels that grow, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.group = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.layer, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale, self.fc = nn.Parameter(torch.full((8,), 0.5)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(self.conv(x)).flatten(2).transpose(1, 2)
        x = x + self.scale * self.down(F.gelu(self.up(self.layer(x))))
        return self.fc(x.mean(1))


class Attention(nn.Module):
    """One head, scores and weighted sum written out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.q, self.k, self.v = nn.Linear(8, 5), nn.Linear(8, 5), nn.Linear(8, 7)
        self.out, self.fc = nn.Linear(7, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        scores = F.softmax(self.q(x) @ self.k(x).transpose(-2, -1) / 2.0, dim=-1)
        return self.fc((x + self.out(scores @ self.v(x))).mean(1))


class Blocks(nn.Module):
    """Channels cut into equal blocks: grouped and multiplying depthwise convolution, channel shuffle, a gated half."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.twice = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.up, self.down = nn.Linear(24, 10), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.conv(x))))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        value, gate = self.up(torch.tanh(self.twice(x)).mean((2, 3))).chunk(2, dim=1)
        return self.down(value * torch.sigmoid(gate))


class Tied(nn.Module):
    """The same weights twice: one shared module, one tied parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.other = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.other.weight = self.shared.weight
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.fc(self.other(torch.tanh(self.shared(torch.tanh(self.shared(x))))))


def three_linear() -> nn.Module:
    layers = [nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 5), nn.ReLU())


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "three-linear": (three_linear, (4, 16)),
    "residual": (Residual, (4, 3, 8, 8)),
    "dense": (Dense, (4, 3, 8, 8)),
    "inverted": (Inverted, (4, 3, 8, 8)),
    "padded": (Padded, (4, 3, 8, 8)),
    "normed": (Normed, (4, 3, 4, 4)),
    "attention": (Attention, (4, 5, 6)),
    "blocks": (Blocks, (4, 3, 4, 4)),
    "tied": (Tied, (4, 5)),
}


Net = tuple[Graph, nn.Module, tuple[Tensor, ...]]


@cache
def built(name: str) -> Net:
    make, shape = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = primed(make()), (torch.randn(shape),)
    return trace(model, inputs), model, inputs


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Net:
    """Each small model: its graph, the model with drawn weights in eval mode, an input. No test may change them."""
    return built(request.param)


@pytest.fixture
def nets() -> Callable[[str], Net]:
    """The small model of a name, as `net` gives it."""
    return built
