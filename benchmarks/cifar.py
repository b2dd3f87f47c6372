"""CIFAR-10 and the ResNet-20 trained on it, from the folder of real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dovetail.models import load_checkpoint
from dovetail.models.resnet import ResNet20

__all__ = ["images", "trained_resnet20"]


def images(folder: Path, part: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The first images [n, 3, 32, 32] of "train" or "test", normalised as the network wants them, and their labels."""
    with np.load(folder / "cifar10.npz", allow_pickle=False) as file:
        x = torch.from_numpy(file[f"x_{part}"][:count]).permute(0, 3, 1, 2).float().div_(255)
        y = torch.from_numpy(file[f"y_{part}"][:count]).long()
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    return x.sub_(mean.view(1, 3, 1, 1)).div_(deviation.view(1, 3, 1, 1)).contiguous(), y


def trained_resnet20(folder: Path) -> ResNet20:
    """The network, in eval mode."""
    model = ResNet20().eval()
    load_checkpoint(model, folder / "resnet20-cifar10.safetensors")
    return model
