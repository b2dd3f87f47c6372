"""Residual convolutional networks: a small one that follows the data, and ResNet-20 for CIFAR."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.errors import ConfigError

__all__ = ["ResNet20", "SmallResNet"]


class _Residual(nn.Module):
    """Two convolutions with batch norm and a shortcut; a convolution adapts the shortcut where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity() if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of feature maps, [batch, channels, height, width]."""
        hidden = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem and two residual blocks, the second at half the resolution, then global average pooling and a linear
    layer.

    Args:
        input_shape: Channels, height, width of one sample.
        classes: Outputs.
        channels: Of the stem and first block; the second block has twice as many.
    """

    def __init__(self, *, input_shape: tuple[int, ...], classes: int, channels: int = 8) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ConfigError(
                f"model 'small-resnet': samples must be images (channels, height, width), got shape {input_shape}. "
                "Image data sets: digits-8x8, or a .npz whose x has 3 or 4 dimensions."
            )
        self.stem = nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.block1 = _Residual(channels, channels, stride=1)
        self.block2 = _Residual(channels, 2 * channels, stride=2)
        self.linear = nn.Linear(2 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        x = F.relu(self.bn(self.stem(x)))
        x = self.block2(self.block1(x))
        return self.linear(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class _BasicBlock(nn.Module):
    """Two convolutions and a parameter-free shortcut: every second pixel, zero channels on both sides ("option A")."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2 if stride != 1 or inputs != outputs else 0

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of feature maps, [batch, channels, height, width]."""
        hidden = F.relu(self.bn1(self.conv1(x)))
        hidden = self.bn2(self.conv2(hidden))
        if self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(hidden + x)


class ResNet20(nn.Module):
    """ResNet-20 for 32 x 32 images: a stem, three stages of three basic blocks with 16, 32 and 64 channels, a linear
    layer.

    Args:
        classes: Outputs.
        channels: Of the image.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.2; names as in github.com/akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, channels, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = _BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, _BasicBlock(outputs, outputs, 1), _BasicBlock(outputs, outputs, 1))
