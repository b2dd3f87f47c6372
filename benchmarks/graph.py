"""Seconds to export and read the graph of each architecture, and to load it from the cache.

Run with `python -m benchmarks.graph [NAME ...]`; prints one row per architecture. Needs pytorchcv and transformers.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from dovetail.graph import Graph, trace

Example = tuple[nn.Module, tuple[Tensor, ...]]


def zoo(module: str, name: str) -> Example:
    """A model of pytorchcv at its own image size."""
    model: nn.Module = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    return model, (torch.randn(2, 3, 224, 224),)


def face(name: str, inputs: Tensor, **config: int) -> Example:
    """A model of transformers by config, with random weights and twelve layers."""
    transformers = importlib.import_module("transformers")
    model: nn.Module = getattr(transformers, name)(getattr(transformers, name.split("For")[0] + "Config")(**config))
    return model, (inputs,)


TOKENS, IMAGE = torch.randint(0, 99, (2, 16)), torch.randn(2, 3, 224, 224)
SMALL = {"vocab_size": 99, "hidden_size": 96, "num_hidden_layers": 12, "num_attention_heads": 12}
EXAMPLES: dict[str, Callable[[], Example]] = {
    "resnet18": lambda: zoo("resnet", "resnet18"),
    "resnet50": lambda: zoo("resnet", "resnet50"),
    "densenet121": lambda: zoo("densenet", "densenet121"),
    "seresnet18": lambda: zoo("seresnet", "seresnet18"),
    "mobilenetv2": lambda: zoo("mobilenetv2", "mobilenetv2_w1"),
    "shufflenetv2": lambda: zoo("shufflenetv2", "shufflenetv2_wd2"),
    "efficientnet_b0": lambda: zoo("efficientnet", "efficientnet_b0"),
    "convnext": lambda: face("ConvNextForImageClassification", IMAGE),
    "vit": lambda: face("ViTForImageClassification", IMAGE, hidden_size=96, num_attention_heads=12),
    "bert": lambda: face("BertForSequenceClassification", TOKENS, intermediate_size=192, **SMALL),
    "opt": lambda: face("OPTForCausalLM", TOKENS, ffn_dim=192, word_embed_proj_dim=96, **SMALL),
    "llama": lambda: face("LlamaForCausalLM", TOKENS, intermediate_size=192, num_key_value_heads=4, **SMALL),
}


def export(name: str) -> tuple[Graph, list[float]]:
    """The graph of an architecture, and seconds to export it and to load it from the cache."""
    model, inputs = EXAMPLES[name]()
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.perf_counter()
            graph = trace(model, inputs, cache=Path(folder))
            seconds.append(time.perf_counter() - start)
    return graph, seconds


def rows(*, quick: bool) -> Iterator[Row]:
    """Loading each architecture from the cache beside exporting it."""
    warnings.simplefilter("ignore")
    for name in ["resnet18"] if quick else EXAMPLES:
        _, (exported, cached) = export(name)
        yield Row(
            work=f"graph of {name} from the cache: export",
            measured=cached,
            baseline=exported,
            unit="s",
            ratio=cached / exported,
        )


def main(names: list[str]) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    print(f"{'architecture':16s} {'export s':>9s} {'cached s':>9s} {'operations':>10s} {'groups':>7s} {'free':>5s}")
    for name in names or list(EXAMPLES):
        graph, seconds = export(name)
        free = sum(group.frozen is None for group in graph.groups)
        numbers = f"{seconds[0]:9.2f} {seconds[1]:9.2f} {len(graph.operations):10d} {len(graph.groups):7d} {free:5d}"
        print(f"{name:16s} {numbers}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
