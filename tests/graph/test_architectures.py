"""Laws on the architectures people have: free groups are free, and the graph computes what the model computes."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.graph import Graph, trace

pytestmark = pytest.mark.slow

IMAGE, SMALL = (torch.randn(2, 3, 56, 56),), (torch.randn(2, 3, 32, 32),)
TOKENS = (torch.randint(0, 99, (2, 12)),)


def zoo(module: str, name: str, *args: Any, **kwargs: Any) -> nn.Module:
    pytest.importorskip("pytorchcv")
    model: nn.Module = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)(*args, **kwargs)
    return model


def face(name: str, **kwargs: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, name.split("For")[0] + "Config")(**kwargs)
        model: nn.Module = getattr(transformers, name)(config)
    return model


class PaddedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(x + y)


def padded_resnet() -> nn.Module:
    blocks = (PaddedBlock(8, 8, 1), PaddedBlock(8, 16, 2))
    return nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


HEADS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SQUEEZED = {"channels": [[32, 32], [48]], "init_block_channels": 32, "in_size": (56, 56), "conv1_stride": True}
RESNET = {"channels": [[16, 16], [24]], "init_block_channels": 16, "in_size": (56, 56), "conv1_stride": True}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "resnet": (lambda: zoo("resnet", "ResNet", bottleneck=False, **RESNET), IMAGE),
    "bottleneck": (lambda: zoo("resnet", "ResNet", bottleneck=True, **RESNET), IMAGE),
    "seresnet": (
        lambda: zoo(
            "seresnet",
            "SEResNet",
            bottleneck=False,
            **SQUEEZED,
        ),
        IMAGE,
    ),
    "padded_resnet": (padded_resnet, SMALL),
    "densenet": (lambda: zoo("densenet", "DenseNet", [[24, 32], [24, 32]], 16, in_size=(56, 56)), IMAGE),
    "shufflenetv2": (lambda: zoo("shufflenetv2", "ShuffleNetV2", [[16, 16]], 8, 32, in_size=(56, 56)), IMAGE),
    "mobilenetv2": (
        lambda: zoo("mobilenetv2", "MobileNetV2", [[16], [24, 24]], 8, 32, False),
        (torch.randn(2, 3, 28, 28),),
    ),
    "convnext": (
        lambda: face("ConvNextForImageClassification", hidden_sizes=[8, 12], depths=[1, 1], num_stages=2),
        SMALL,
    ),
    "vit": (
        lambda: face("ViTForImageClassification", image_size=32, patch_size=8, intermediate_size=48, **HEADS),
        SMALL,
    ),
    "bert": (lambda: face("BertForSequenceClassification", vocab_size=99, intermediate_size=37, **HEADS), TOKENS),
    "opt": (lambda: face("OPTForCausalLM", vocab_size=99, ffn_dim=48, word_embed_proj_dim=32, **HEADS), TOKENS),
    "llama": (
        lambda: face("LlamaForCausalLM", vocab_size=99, intermediate_size=48, num_key_value_heads=2, **HEADS),
        TOKENS,
    ),
}

# Groups that must be free, counted by hand: streams, inner widths, heads; one for each squeeze, transition and half.
FREE = {
    "resnet": 5, "bottleneck": 8, "seresnet": 8, "padded_resnet": 3, "densenet": 10, "shufflenetv2": 5,
    "mobilenetv2": 7, "convnext": 4, "vit": 7, "bert": 8, "opt": 7, "llama": 6,
}  # fmt: skip
REASONS = (
    "its channels are the model's output",
    "looks its rows up by the model's input",
    "only buffers have its size",
)


@pytest.fixture(scope="module", params=MODELS)
def traced(request: pytest.FixtureRequest) -> tuple[str, nn.Module, tuple[Tensor, ...], Graph]:
    build, inputs = MODELS[request.param]
    model = build().eval()
    return request.param, model, inputs, trace(model, inputs)


def test_the_graph_computes_what_the_model_computes(traced: tuple[str, nn.Module, tuple[Tensor, ...], Graph]) -> None:
    _, model, inputs, graph = traced
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    output = model(*inputs)
    expected = output if isinstance(output, Tensor) else output.logits
    assert torch.equal(graph.run(tensors, *inputs), expected)


def test_groups_are_free_or_say_why_not(traced: tuple[str, nn.Module, tuple[Tensor, ...], Graph]) -> None:
    name, _, _, graph = traced
    free = [group.name for group in graph.groups if group.frozen is None]
    assert len(free) == FREE[name], free
    assert all(any(reason in g.frozen for reason in REASONS) for g in graph.groups if g.frozen is not None)


def test_every_dimension_that_follows_a_free_group_has_a_layout_of_its_size(
    traced: tuple[str, nn.Module, tuple[Tensor, ...], Graph],
) -> None:
    _, _, _, graph = traced
    for group in graph.groups:
        for member in group.members if group.frozen is None else ():
            assert graph.layouts[member.parameter, member.dim].size == member.size
            assert (member.parameter, member.dim) in graph.uses
