"""What the trials of a search follow from, as text: two searches of one identity give the same trials."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import nn

from dovetail.settings import RunConfig

__all__ = ["config_keys", "digest_model", "digest_tensors", "versions"]

_VOLATILE = (
    "out",
    "storage",
    "workers",
    "device",
    "search.trials",
    "search.timeout",
    "evaluation.memory",
    "model.checkpoint",  # its content counts, under model.weights
)
"""Keys that may differ between runs of one search: they say how far and where it runs, not what its trials are."""


def config_keys(config: RunConfig) -> dict[str, str]:
    """(dotted key, JSON text) of everything in a configuration that trials follow from."""
    table = msgspec.to_builtins(_plain(config))
    if config.evaluation.protocol == "ptq":
        table.pop("train", None)
    return {key: value for key, value in _flatten(table) if key not in _VOLATILE}


def versions() -> tuple[tuple[str, str], ...]:
    """(package, version) of what a result depends on."""
    packages = ("dovetail", "torch", "numpy", "optuna", "scipy")
    return (("python", platform.python_version()), *((name, importlib.metadata.version(name)) for name in packages))


def _plain(config: RunConfig) -> dict[str, Any]:
    """The config as nested dicts, Python objects left out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = (f for f in dataclasses.fields(value) if f.metadata.get("toml", True))
            return {f.name: plain(getattr(value, f.name)) for f in fields}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    table: dict[str, Any] = plain(config)
    return table


def _flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
    """(dotted path, JSON text) of each leaf."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _flatten(item, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for index, item in enumerate(value) for leaf in _flatten(item, f"{path}[{index}]")]
    return [(path, json.dumps(value, default=str))]


def digest_model(model: nn.Module) -> str:
    """A digest of a model's structure, parameters and buffers."""
    state = model.state_dict()
    return digest_tensors(state.values(), f"{model!r}{list(state)}")


def digest_tensors(tensors: Any, text: str = "") -> str:
    """A digest of tensors: dtypes, shapes and values."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
