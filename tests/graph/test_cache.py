"""Laws of graphs on disk."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dovetail.graph import Graph, trace
from dovetail.graph.cache import graph_key


class Attention(nn.Module):
    """Two heads of width four, on a stream of twelve; a product of sizes in its shapes."""

    def __init__(self, num_heads: int = 2, head_dim: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.inp = nn.Linear(6, 12)
        self.q, self.k, self.v = (nn.Linear(12, num_heads * head_dim) for _ in range(3))
        self.out = nn.Linear(num_heads * head_dim, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        q, k, v = (f(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1)
        return self.head(self.norm(x + self.out(y)).mean(1))


X = (torch.randn(2, 5, 6),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def graph(folder: Path) -> Graph:
    return trace(Attention(), X, cache=folder)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_a_cached_graph_is_the_graph(graph: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Graph:
        raise AssertionError("exported again")

    monkeypatch.setattr(importlib.import_module("dovetail.graph.trace"), "exported_or_explained", never)
    model = Attention().eval()
    again = trace(model, X, cache=folder)
    for field in ("operations", "groups", "parameters", "shapes", "bindings", "attributes", "sizes"):
        assert getattr(again, field) == getattr(graph, field), field
    assert torch.equal(again.run(tensors(model), *X), model(*X))


def test_a_corrupt_cache_is_a_miss(graph: Graph, folder: Path) -> None:
    (file,) = folder.glob("*.json")
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    assert trace(Attention(), X, cache=folder).groups == graph.groups
    assert file.read_text() == whole


def test_another_width_or_attribute_or_input_is_another_key() -> None:
    base = graph_key(Attention(), X, {})
    assert graph_key(Attention(), X, {}) == base
    other = Attention()
    other.head_dim = 2
    assert (
        len({base, graph_key(other, X, {}), graph_key(Attention(4), X, {}), graph_key(Attention(), (X[0][:1],), {})})
        == 4
    )


def test_heads_are_groups_of_their_own_and_keep_the_projections_together(graph: Graph) -> None:
    number, width = graph.group("num_heads"), graph.group("head_dim")
    assert (number.base, number.frozen, width.base, width.frozen) == (2, None, 4, None)
    names = {(m.parameter, m.dim) for m in width.members}
    assert {("q.weight", 0), ("k.weight", 0), ("v.weight", 0), ("out.weight", 1)} <= names
    assert graph.parameters["q.weight"][0] == number.symbol * width.symbol


def test_a_graph_with_other_heads_computes_what_a_model_with_other_heads_computes(graph: Graph) -> None:
    from dovetail.plan import Plan

    wider = Attention(3, 6).eval()
    plan = Plan.of(widths={"num_heads": 3, "head_dim": 6})
    assert torch.equal(graph.at(plan).run(tensors(wider), *X), wider(*X))
