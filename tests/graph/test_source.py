"""A changed line of the code that a model runs is another key."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from dovetail.graph import trace
from dovetail.graph.cache import graph_key

X = (torch.zeros(2, 4),)

MODEL = """
import torch
from torch import nn
from dovetail_test_helpers import activation

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return activation(self.linear(x))
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "dovetail_test_model.py").write_text(MODEL)
    (tmp_path / "dovetail_test_helpers.py").write_text("import torch\nactivation = torch.relu\n")
    yield tmp_path
    forget()


def forget() -> None:
    for name in ("dovetail_test_model", "dovetail_test_helpers"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def built() -> nn.Module:
    forget()
    model: nn.Module = importlib.import_module("dovetail_test_model").Model()
    return model


def test_the_same_files_are_the_same_key(written: Path) -> None:
    assert graph_key(built(), X, {}) == graph_key(built(), X, {})


def test_a_changed_line_of_the_model_is_another_key(written: Path) -> None:
    before = graph_key(built(), X, {})
    (written / "dovetail_test_model.py").write_text(MODEL.replace("(x))", "(x) + 1)"))
    assert graph_key(built(), X, {}) != before


def test_a_changed_line_of_what_the_model_imports_is_another_key(written: Path, tmp_path: Path) -> None:
    text = "import torch\ndef activation(x):\n    return torch.{}(x)\n"
    (written / "dovetail_test_helpers.py").write_text(text.format("relu"))
    first = trace(built(), X, cache=tmp_path / "cache")
    (written / "dovetail_test_helpers.py").write_text(text.format("tanh"))
    second = trace(built(), X, cache=tmp_path / "cache")
    assert [graph.operations[-1].type for graph in (first, second)] == ["relu", "tanh"]


def typed(body: str) -> nn.Module:
    """A model of a class that has no file, as in a notebook."""
    names: dict[str, type[nn.Module]] = {}
    code = f"class Typed(nn.Module):\n    def forward(self, x):\n        return {body}\n"
    exec(code, {"nn": nn, "torch": torch, "__name__": "typed_into_a_session"}, names)
    return names["Typed"]()


def test_a_class_typed_anew_into_a_session_is_another_key() -> None:
    bodies = ["x + 1", "x + 2", "torch.relu(x)", "torch.tanh(x)"]
    assert len({graph_key(typed(body), X, {}) for body in bodies}) == 4
    assert graph_key(typed("x + 1"), X, {}) == graph_key(typed("x + 1"), X, {})


def test_another_function_among_a_modules_attributes_is_another_key() -> None:
    def model(function: object) -> nn.Module:
        made = nn.Linear(4, 3)
        made.function = function  # type: ignore[assignment]
        return made

    keys = [graph_key(model(function), X, {}) for function in (lambda x: x + 1, lambda x: x * 2)]
    assert keys[0] != keys[1]


def test_another_version_of_torch_python_or_dovetail_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(4, 3)
    keys = {graph_key(model, X, {})}
    for name, value in (("torch.__version__", "0.1"), ("sys.version_info", (4, 0)), ("dovetail.__version__", "9.9")):
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            keys.add(graph_key(model, X, {}))
    assert len(keys) == 4


def test_a_digest_of_code_is_the_same_in_every_process() -> None:
    program = (
        "from dovetail.graph.source import code_digest\n"
        "def is_known(x): return x in {'relu', 'gelu', 'silu', 'tanh', 'mish'}\n"
        "print(code_digest(is_known))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64
