"""The laws on networks that people have, with random weights (pytorchcv, transformers), and on a trained ResNet-20."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan
from dovetail.testing.transforms import check_quantise, check_resize
from dovetail.transforms import inheritance_report, resize

pytestmark = pytest.mark.slow

Case = tuple[nn.Module, tuple[Tensor, ...]]


def vision(module: str, name: str, size: int) -> Case:
    pytest.importorskip("pytorchcv")
    model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 2.0)
    return model.eval(), (torch.randn(2, 3, size, size),)


def bert() -> Case:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **sizes)
    return transformers.BertForSequenceClassification(config).eval(), (torch.randint(0, 50, (2, 7)),)


def vit() -> Case:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **sizes)
    return transformers.ViTForImageClassification(config).eval(), (torch.randn(2, 3, 8, 8),)


def llama() -> Case:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, max_position_embeddings=16, **sizes)
    return transformers.LlamaForCausalLM(config).eval(), (torch.randint(0, 50, (2, 7)),)


CASES: dict[str, Callable[[], Case]] = {
    "resnet20": lambda: vision("resnet_cifar", "resnet20_cifar10", 32),
    "se-resnet20": lambda: vision("seresnet_cifar", "seresnet20_cifar10", 32),
    "bert": bert,
    "vit": vit,
    "llama": llama,
}


def plan_for(graph, factor: float) -> Plan:
    free = [group for group in graph.groups if group.frozen is None]
    widths = {g.name: max(g.multiple_of, int(g.base * factor) // g.multiple_of * g.multiple_of) for g in free}
    return Plan.of(widths=widths)


@pytest.mark.parametrize("name", CASES)
def test_the_laws_hold(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = CASES[name]()
    graph = trace(model, inputs)
    for factor in (2.0, 1.5, 0.5):
        check_resize(graph, model, inputs, plan_for(graph, factor), retrace=False)
    # An RMSNorm written out takes the root of a mean square, which eight bits round to 0: one over it is infinite.
    sites = [site for o in graph.operations if o.type != "rsqrt" for site in o.all_sites]
    check_quantise(graph, model, inputs, Plan.of(dict.fromkeys(sites, parse("fixed(8,4)"))))


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_every_group_that_the_report_calls_exact_is(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = CASES[name]()
    graph = trace(model, inputs)
    exact = {c.group: c.width for c in inheritance_report(graph, plan_for(graph, 2.0)) if c.exact}
    assert any(group.endswith("num_heads") for group in exact)
    grown = resize(graph, model, Plan.of(widths=exact))
    torch.testing.assert_close(grown(*inputs)[0], model(*inputs)[0], rtol=1e-5, atol=1e-5)


class Block(nn.Module):
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


class ResNet20(nn.Module):
    """The CIFAR network of He et al. 2016 with zero-padded shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    folder = Path(os.environ.get("DOVETAIL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    weights, images = folder / "resnet20-cifar10.safetensors", folder / "cifar10.npz"
    if not weights.exists() or not images.exists():
        pytest.skip(f"needs {weights.name} and {images.name} in DOVETAIL_DATA")
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = ResNet20().eval()
    model.load_state_dict(load_file(weights))
    data = np.load(images, allow_pickle=False)
    x = torch.from_numpy(data["x_test"][:200]).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    return model, x, torch.from_numpy(data["y_test"][:200].astype(np.int64))


def test_a_trained_resnet_keeps_every_answer_when_grown_and_most_when_quantised() -> None:
    model, x, y = trained()
    graph = trace(model, (x[:2],))
    with torch.no_grad():
        logits = model(x)
        assert float((logits.argmax(1) == y).float().mean()) > 0.85
        for factor in (2.0, 1.5):
            plan = plan_for(graph, factor)
            assert all(change.exact for change in inheritance_report(graph, plan))
            torch.testing.assert_close(resize(graph, model, plan)(x), logits, rtol=1e-4, atol=1e-4)
    quantised = check_quantise(graph, model, (x[:4],), Plan.of(dict.fromkeys(graph.sites, parse("fixed(16,8)"))))
    with torch.no_grad():
        assert float((quantised(x).argmax(1) == logits.argmax(1)).float().mean()) > 0.95


def test_shrinking_a_trained_resnet_by_importance_beats_shrinking_it_at_random() -> None:
    model, x, _ = trained()
    graph = trace(model, (x[:2],))
    plan = Plan.of(widths={g.name: g.base - 2 for g in graph.groups if g.name.startswith("layer3") and not g.frozen})
    with torch.no_grad():
        logits = model(x)

        def error(importance: str, seed: int = 0) -> float:
            return float((resize(graph, model, plan, importance=importance, seed=seed)(x) - logits).square().mean())

        assert error("l1") < np.mean([error("random", seed) for seed in range(5)])
