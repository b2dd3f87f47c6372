"""Exhausted spaces of convolutional networks on CIFAR-10: weights and data as integers of 8 to 3 bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from cifar import images, trained_resnet20
from numpy.typing import NDArray
from rounding import noise_to_signal
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from dovetail.evaluation.rounding_noise import NOISE_SAMPLES

__all__ = ["Figures", "lenet_precision", "resnet20_precision"]

BATCH = 100  # images at a time: what stays in a processor's caches

Figures = tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[float, ...]]]
"""Accuracy and cost of every plan; noise per decision on precision, of each of its choices."""


def integer(x: Tensor, bits: int, low: float, high: float) -> Tensor:
    """To the nearest of even steps: from 0 to high, or where there are negative values, as far to either side."""
    top = 2**bits - 1 if low >= 0 else 2 ** (bits - 1) - 1
    step = max(high, -low) / top
    return torch.clamp(torch.round(x / step), 0 if low >= 0 else -top, top) * step


class Rounded(nn.Module):
    """A convolution or linear layer in float, which notes the range of its data and what rounding does to them; then
    with weights and data rounded."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, bits: Sequence[int]) -> None:
        super().__init__()
        self.layer = layer
        weight = layer.weight.detach()
        self.weights = {b: integer(weight, b, weight.min().item(), weight.max().item()) for b in bits}
        self.weight_noise = [noise_to_signal(weight, self.weights[b], whole=True) for b in bits]
        self.data_noise: list[float] = []
        self.range = (0.0, 0.0)
        self.macs = 0.0  # of one image
        self.weight_bits = self.data_bits = 0  # 0: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.weight_bits:
            value = self.layer(x)
            self.range = (x.min().item(), x.max().item())
            few = x[:NOISE_SAMPLES]
            self.data_noise = [noise_to_signal(few, integer(few, b, *self.range)) for b in self.weights]
            self.macs = self.layer.weight[0].numel() * value[0].numel()
            return value
        x, weight = integer(x, self.data_bits, *self.range), self.weights[self.weight_bits]
        if isinstance(self.layer, nn.Linear):
            return linear(x, weight, self.layer.bias)
        return self.layer._conv_forward(x, weight, self.layer.bias)


def wrap(module: nn.Module, bits: Sequence[int]) -> list[Rounded]:
    """Put every layer of a module into a `Rounded`, and list these."""
    layers = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d | nn.Linear):
                layers.append(Rounded(child, bits))
                setattr(parent, name, layers[-1])
    return layers


@torch.inference_mode()
def tabulate(
    stages: Sequence[nn.Module], bits: Sequence[int], sample: Tensor, x: Tensor, y: Tensor, *, shared_data_in: bool
) -> Figures:
    """Accuracy and BitOPs of every choice of bits; and per decision the noise of each of its choices.

    Args:
        stages: parts of the network, one after another; data ranges are those of a sample.
        bits: to choose from.
        shared_data_in: one decision for the data of all stages, then one per stage for its weights; or else one per
            stage for weights and data.
    """
    layers = [wrap(stage, bits) for stage in stages]
    for stage in stages:
        sample = stage(sample)

    def descend(depth: int, value: Tensor, spent: float, data: int | None) -> Iterator[tuple[float, float]]:
        if depth == len(stages):
            yield (value.argmax(1) == y).double().mean().item(), spent
            return
        for weight_bits in bits:
            data_bits = data or weight_bits
            for layer in layers[depth]:
                layer.weight_bits, layer.data_bits = weight_bits, data_bits
            after = torch.cat([stages[depth](part) for part in value.split(BATCH)])
            cost = sum(layer.macs for layer in layers[depth]) * weight_bits * data_bits
            yield from descend(depth + 1, after, spent + cost, data)

    roots = bits if shared_data_in else (None,)
    points = itertools.chain.from_iterable(descend(0, x, 0.0, data) for data in roots)
    accuracy, cost = np.array(list(points)).T
    weights = [[layer.weight_noise for layer in stage] for stage in layers]
    data = [[layer.data_noise for layer in stage] for stage in layers]
    if shared_data_in:
        decisions = [list(itertools.chain.from_iterable(data)), *weights]
    else:
        decisions = [its + their for its, their in zip(data, weights, strict=True)]
    return accuracy, cost, [tuple(np.mean(sites, axis=0).tolist()) for sites in decisions]


def resnet20_precision(folder: Path, bits: Sequence[int]) -> Figures:
    """A trained ResNet-20 in six parts, each with its bits for weights and data: on 1,000 test images."""
    net = trained_resnet20(folder)
    stages = [
        nn.Sequential(net.conv1, net.bn1, nn.ReLU(), net.layer1),
        nn.Sequential(net.layer2[0], net.layer2[1]),
        nn.Sequential(net.layer2[2]),
        nn.Sequential(net.layer3[0]),
        nn.Sequential(net.layer3[1]),
        nn.Sequential(net.layer3[2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.linear),
    ]
    sample, _ = images(folder, "train", 500)
    return tabulate(stages, bits, sample, *images(folder, "test", 1000), shared_data_in=False)


def lenet_precision(folder: Path, bits: Sequence[int]) -> Figures:
    """A LeNet-5 trained on 5,000 images: bits of all data, then of each layer's weights, on 10,000 test images."""
    torch.manual_seed(0)
    x, y = images(folder, "train")
    stages = [
        nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        nn.Sequential(nn.Linear(400, 120), nn.ReLU()),
        nn.Sequential(nn.Linear(120, 84), nn.ReLU()),
        nn.Sequential(nn.Linear(84, 10)),
    ]
    net = nn.Sequential(*stages)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, weight_decay=1e-4)
    for _ in range(30):
        for chosen in torch.randperm(len(x)).split(BATCH):
            flipped = torch.where(torch.rand(len(chosen), 1, 1, 1) < 0.5, x[chosen], x[chosen].flip(3))
            optimizer.zero_grad()
            cross_entropy(net(flipped), y[chosen]).backward()
            optimizer.step()
    return tabulate(stages, bits, x[:500], *images(folder, "test"), shared_data_in=True)
