"""The architectures that people have, with random weights: one list for tests and benchmarks.

Each at two sizes: `small` has every construct of its architecture and few layers and channels; `full` is as published
(transformers: as deep as published, and narrow, for depth is what tracing takes its time for). pytorchcv's modules are
imported one by one, because its model provider wants torchvision.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "Architecture", "Example", "small"]

Example = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to build a model of an architecture, in eval mode, and inputs for it.

    Args:
        small: a few blocks of it.
        full: all of it.
        free: how many width groups of the small one can change, counted by hand: streams, inner widths, heads; one for
            each squeeze, transition and half.
        inexact: width groups of the small one that cannot be grown without changing the function, as globs: queries
            with keys, and tied weights.
        computes_in_float32: whether it does in places, whatever its own precision.
    """

    small: Callable[[], Example]
    full: Callable[[], Example]
    free: int
    inexact: tuple[str, ...] = ()
    computes_in_float32: bool = False


def images(size: int) -> tuple[Tensor, ...]:
    """Two of them."""
    return (torch.randn(2, 3, size, size),)


def zoo(module: str, name: str, size: int, *args: Any, **kwargs: Any) -> Callable[[], Example]:
    """A model of pytorchcv, for images of this size."""

    def build() -> Example:
        model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)(*args, **kwargs)
        return model.eval(), images(size)

    return build


def face(name: str, inputs: Callable[[], tuple[Tensor, ...]], **config: Any) -> Callable[[], Example]:
    """A model of transformers by its configuration."""

    def build() -> Example:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers = importlib.import_module("transformers")
            configuration = getattr(transformers, name.split("For")[0].removesuffix("LMHeadModel") + "Config")
            model = getattr(transformers, name)(configuration(**config))
        return model.eval(), inputs()

    return build


def tokens(count: int) -> Callable[[], tuple[Tensor, ...]]:
    """Two sequences."""
    return lambda: (torch.randint(0, 99, (2, count)),)


class PaddedBlock(nn.Module):
    """A block of a CIFAR ResNet whose shortcut has no parameters: subsampled, and padded with channels of zeros."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.padding = (width - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


class PaddedResNet(nn.Module):
    """The CIFAR network of He et al. 2016 (arXiv:1512.03385), as many blocks in each of its three stages."""

    def __init__(self, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, 1, blocks)
        self.layer2 = self._stage(width, 2 * width, 2, blocks)
        self.layer3 = self._stage(2 * width, 4 * width, 2, blocks)
        self.linear = nn.Linear(4 * width, 10)

    @staticmethod
    def _stage(inputs: int, width: int, stride: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(
            PaddedBlock(inputs, width, stride), *(PaddedBlock(width, width, 1) for _ in range(1, blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def padded(width: int, blocks: int, size: int) -> Example:
    return PaddedResNet(width, blocks).eval(), images(size)


# Few layers, few channels.
RESNET = {"channels": [[16, 16], [24]], "init_block_channels": 16, "in_size": (56, 56), "conv1_stride": True}
SQUEEZED = {"channels": [[32, 32], [48]], "init_block_channels": 32, "in_size": (56, 56), "conv1_stride": True}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {"num_key_value_heads": 2}
# As deep as published, and narrow.
DEEP = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 6}
WHOLE = {"vocab_size": 99, **DEEP}


ARCHITECTURES: dict[str, Architecture] = {
    "vgg": Architecture(
        small=zoo("vgg", "VGG", 224, channels=[[4], [6], [8], [8], [8]], num_classes=10),
        full=zoo("vgg", "vgg11", 224),
        free=7,
    ),
    "resnet": Architecture(
        small=zoo("resnet", "ResNet", 56, bottleneck=False, **RESNET), full=zoo("resnet", "resnet18", 224), free=5
    ),
    "bottleneck": Architecture(
        small=zoo("resnet", "ResNet", 56, bottleneck=True, **RESNET), full=zoo("resnet", "resnet50", 224), free=8
    ),
    "padded_resnet": Architecture(small=lambda: padded(8, 1, 32), full=lambda: padded(16, 3, 32), free=4),
    "densenet": Architecture(
        small=zoo("densenet", "DenseNet", 56, [[24, 32], [24, 32]], 16, in_size=(56, 56)),
        full=zoo("densenet", "densenet121", 224),
        free=10,
    ),
    "seresnet": Architecture(
        small=zoo("seresnet", "SEResNet", 56, bottleneck=False, **SQUEEZED),
        full=zoo("seresnet", "seresnet18", 224),
        free=8,
    ),
    "mobilenetv2": Architecture(
        small=zoo("mobilenetv2", "MobileNetV2", 28, [[16], [24, 24]], 8, 32, False),
        full=zoo("mobilenetv2", "mobilenetv2_w1", 224),
        free=7,
    ),
    "shufflenetv2": Architecture(
        small=zoo("shufflenetv2", "ShuffleNetV2", 56, [[16, 16]], 8, 32, in_size=(56, 56)),
        full=zoo("shufflenetv2", "shufflenetv2_wd2", 224),
        free=5,
        inexact=("features.stage1.unit1.expand_conv5",),
    ),
    "efficientnet": Architecture(
        small=zoo(
            "efficientnet",
            "EfficientNet",
            64,
            num_classes=10,
            in_size=(64, 64),
            channels=[[8], [12, 12]],
            init_block_channels=8,
            final_block_channels=24,
            kernel_sizes=[[3], [3, 5]],
            strides_per_stage=[1, 2],
            expansion_factors=[[1], [6, 6]],
        ),
        full=zoo("efficientnet", "efficientnet_b0", 224),
        free=8,
    ),
    "convnext": Architecture(
        small=face(
            "ConvNextForImageClassification", lambda: images(32), hidden_sizes=[8, 12], depths=[1, 1], num_stages=2
        ),
        full=face("ConvNextForImageClassification", lambda: images(224)),
        free=4,
    ),
    "vit": Architecture(
        small=face(
            "ViTForImageClassification", lambda: images(32), image_size=32, patch_size=8, intermediate_size=48, **SMALL
        ),
        full=face("ViTForImageClassification", lambda: images(224), intermediate_size=768, **DEEP),
        free=7,
        inexact=("*.head_dim",),
    ),
    "bert": Architecture(
        small=face("BertForSequenceClassification", tokens(12), vocab_size=99, intermediate_size=37, **SMALL),
        full=face("BertForSequenceClassification", tokens(16), intermediate_size=768, **WHOLE),
        free=8,
        inexact=("*.head_dim",),
    ),
    "opt": Architecture(
        small=face("OPTForCausalLM", tokens(12), vocab_size=99, ffn_dim=48, word_embed_proj_dim=32, **SMALL),
        full=face("OPTForCausalLM", tokens(16), ffn_dim=768, word_embed_proj_dim=192, **WHOLE),
        free=7,
        inexact=("*.embed_tokens", "*.head_dim"),
    ),
    "llama": Architecture(
        small=face("LlamaForCausalLM", tokens(12), vocab_size=99, intermediate_size=48, **GROUPED, **SMALL),
        full=face("LlamaForCausalLM", tokens(16), intermediate_size=768, **GROUPED, **WHOLE),
        free=6,
        inexact=("*.head_dim", "*.num_heads"),
        computes_in_float32=True,
    ),
}


def small(name: str) -> Example:
    """The small model of an architecture, from a seed of its own."""
    pytest.importorskip("transformers")
    pytest.importorskip("pytorchcv")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ARCHITECTURES[name].small()
