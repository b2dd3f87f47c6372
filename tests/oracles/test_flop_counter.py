"""Matmul-only FLOPs equal those of `torch.utils.flop_counter` on real architectures, resized at random too."""

import importlib

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dovetail.costs import CostModel
from dovetail.graph import trace
from dovetail.plan import Plan
from dovetail.transforms import resize


def counted(model, *inputs):
    """What PyTorch counts. Its counter knows no CPU kernel of attention, so attention runs as the products it is."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*inputs)
    return counter.get_total_flops()


def convolutional(module, name, size=32, **arguments):
    pytest.importorskip("pytorchcv")
    network = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)
    return network(num_classes=10, in_size=(size, size), **arguments), torch.randn(2, 3, size, size)


STAGES = {"channels": [[8], [12], [16]], "init_block_channels": 8}


def resnet():
    return convolutional("resnet_cifar", "CIFARResNet", bottleneck=False, **STAGES)


def resnet_bottleneck():
    return convolutional("resnet_cifar", "CIFARResNet", bottleneck=True, **STAGES)


def se_resnet():
    return convolutional(
        "seresnet_cifar", "CIFARSEResNet", bottleneck=False, channels=[[16], [32], [48]], init_block_channels=16
    )


def densenet():
    channels = [[20], [16], [14]]
    return convolutional("densenet_cifar", "CIFARDenseNet", channels=channels, init_block_channels=12, bottleneck=True)


def vgg():
    return convolutional("vgg", "VGG", size=224, channels=[[4], [6], [8], [8], [8]])


def mobilenet_v2():
    return convolutional(
        "mobilenetv2",
        "MobileNetV2",
        size=224,
        channels=[[8], [12, 12], [16], [16], [20]],
        init_block_channels=8,
        final_block_channels=24,
        remove_exp_conv=False,
    )


def shufflenet_v2():
    return convolutional(
        "shufflenetv2",
        "ShuffleNetV2",
        size=224,
        channels=[[12, 12], [24, 24], [32, 32]],
        init_block_channels=8,
        final_block_channels=24,
    )


def efficientnet():
    return convolutional(
        "efficientnet",
        "EfficientNet",
        size=64,
        channels=[[8], [12, 12]],
        init_block_channels=8,
        final_block_channels=24,
        kernel_sizes=[[3], [3, 5]],
        strides_per_stage=[1, 2],
        expansion_factors=[[1], [6, 6]],
    )


def transformer(name, config, inputs, **arguments):
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, name)(getattr(transformers, config)(**arguments)), inputs


IDS = torch.arange(14).reshape(2, 7)
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 48}


def vit():
    image = torch.randn(2, 3, 16, 16)
    return transformer("ViTForImageClassification", "ViTConfig", image, image_size=16, patch_size=8, **SMALL)


def convnext():
    image = torch.randn(2, 3, 64, 64)
    sizes = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
    return transformer("ConvNextForImageClassification", "ConvNextConfig", image, **sizes)


def bert():
    return transformer("BertForSequenceClassification", "BertConfig", IDS, vocab_size=50, **SMALL)


def opt():
    return transformer(
        "OPTForCausalLM",
        "OPTConfig",
        IDS,
        vocab_size=50,
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        ffn_dim=48,
        use_cache=False,
    )


def llama():
    return transformer(
        "LlamaForCausalLM", "LlamaConfig", IDS, vocab_size=50, num_key_value_heads=2, use_cache=False, **SMALL
    )


QUICK = [resnet]
SLOW = [
    *(resnet_bottleneck, se_resnet, densenet, vgg, mobilenet_v2, shufflenet_v2, efficientnet),
    *(vit, convnext, bert, opt, llama),
]
ARCHITECTURES = [*QUICK, *(pytest.param(build, marks=pytest.mark.slow) for build in SLOW)]


def random_widths(graph, rng):
    free = [group for group in graph.groups if group.frozen is None]
    return {g.name: int(g.multiple_of * rng.integers(1, 2 * g.base // g.multiple_of + 1)) for g in free}


@pytest.mark.parametrize("build", ARCHITECTURES, ids=lambda build: build.__name__)
def test_matmul_flops_and_parameters_equal_what_pytorch_counts(build):
    model, x = build()
    model.eval()
    graph = trace(model, (x,))
    costs = CostModel(graph, batch=2)
    rng = np.random.default_rng(0)
    for plan in (Plan(), Plan.of(widths=random_widths(graph, rng)), Plan.of(widths=random_widths(graph, rng))):
        built = resize(graph, model, plan, weights="initialise") if plan.widths else model
        priced = costs.price(plan, ["params", "flops_matmul"])
        assert priced["flops_matmul"].unpriced == ()
        assert priced["flops_matmul"].value == counted(built, x)
        assert priced["params"].value == sum(p.numel() for p in built.parameters())


def test_matmul_flops_follow_the_batch():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    x = torch.randn(2, 3, 4, 4)
    graph = trace(model, (x,))
    wider = torch.cat([x, x, x[:1]])
    assert CostModel(graph, batch=5).price(Plan(), ["flops_matmul"])["flops_matmul"].value == counted(model, wider)


CONTRACTIONS = [
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("...ij,...kj->...ik", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bi,bj->bij", (2, 3), (2, 4)),
    ("bi,ij,jk->bk", (2, 3), (3, 4), (4, 5)),
    ("bi,ij,bk,kj->b", (2, 3), (3, 4), (2, 5), (5, 4)),
    ("bij,bk->b", (2, 3, 4), (2, 5)),
    ("bij->bj", (2, 3, 4)),
]


@pytest.mark.parametrize("case", CONTRACTIONS, ids=lambda case: case[0])
def test_contractions_by_einsum_cost_what_pytorch_makes_of_them(case):
    class Einsum(torch.nn.Module):
        def forward(self, *tensors):
            return torch.einsum(case[0], *tensors)

    tensors = tuple(torch.randn(shape) for shape in case[1:])
    priced = CostModel(trace(Einsum(), tensors), batch=2).price(Plan(), ["flops_matmul"])["flops_matmul"]
    assert priced.value == counted(Einsum(), *tensors)
