"""Graphs on disk, so that a model is exported once.

A file is found by a key of everything the graph follows from; a corrupt one, or one of another form, is no file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dovetail
from dovetail.graph.encode import decode_graph, encode_graph
from dovetail.graph.graph import Graph
from dovetail.graph.source import code_digest, source_parts

__all__ = ["default_folder", "graph_key", "load_graph", "save_graph"]

logger = logging.getLogger("dovetail")


def default_folder() -> Path:
    """`$DOVETAIL_CACHE`, or `dovetail` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DOVETAIL_CACHE") or Path(base) / "dovetail")


def graph_key(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """A digest of all that a model's graph follows from.

    The code of its modules' classes (see `source_parts`), the tree of modules with their plain attributes, names,
    shapes and sharing of tensors, shapes of the inputs, and the versions of Python, torch and dovetail.
    """
    digest = hashlib.sha256()
    for part in _parts(model, inputs, kwargs):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _parts(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[str]:
    yield f"{sys.version_info[:2]} {torch.__version__} {dovetail.__version__}"
    own = Path(__file__).parent
    yield from (file.read_text() for file in sorted(own.glob("*.py")))  # a version under development is a version too
    yield from source_parts(model)
    seen: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        first = seen.setdefault(id(module), path)
        yield f"{path} {first} {type(module).__module__}.{type(module).__qualname__}"
        yield _plain(
            {k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers", "_modules", "training")}
        )
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        yield f"{name} {seen.setdefault(id(tensor), name)} {tuple(tensor.shape)} {tensor.dtype}"
    yield _plain(inputs)
    yield _plain(dict(kwargs))


def _plain(value: Any) -> str:
    """What a value says about a graph, without addresses."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    if value is None or isinstance(value, (bool, int, float, str, complex)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_plain(k)}:{_plain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        members = map(_plain, value)
        return f"({','.join(sorted(members) if isinstance(value, (set, frozenset)) else members)})"
    if callable(getattr(value, "to_dict", None)):
        return _plain(value.to_dict())
    return f"{type(value).__qualname__} {getattr(value, '__qualname__', '')} {code_digest(value)}"


def load_graph(folder: Path, key: str) -> Graph | None:
    """The graph under a key, or None where there is none that can be read."""
    try:
        return decode_graph(json.loads((folder / f"{key}.json").read_text()))
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with the file, exporting anew is right
        logger.info("cached graph %s is not readable (%s): exporting anew", key, error)
        return None


def save_graph(folder: Path, key: str, graph: Graph) -> None:
    """Write a graph, whole or not at all; a graph or folder that does not let itself be written costs only the time."""
    try:
        text = json.dumps(encode_graph(graph))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False) as file:
            file.write(text)
        os.replace(file.name, folder / f"{key}.json")
    except (OSError, TypeError) as error:
        logger.info("graph %s is not cached: %s", key, error)
