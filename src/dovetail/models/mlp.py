"""A multilayer perceptron whose sizes follow the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

__all__ = ["mlp"]


def mlp(*, input_shape: tuple[int, ...], classes: int, hidden: Sequence[int] = (64, 32, 32)) -> nn.Sequential:
    """Linear layers with ReLU between, as `nn.Sequential` (`0`, `2`, `4`, ...); images are flattened first.

    Args:
        input_shape: Of one sample.
        classes: Outputs.
        hidden: Width of each hidden layer.
    """
    widths = [math.prod(input_shape), *hidden, classes]
    layers: list[nn.Module] = [] if len(input_shape) == 1 else [nn.Flatten()]
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [nn.Linear(inputs, outputs)] if index == 0 else [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)
