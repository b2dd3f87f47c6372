"""Laws on the architectures people have: free groups are free, and the graph computes what the model computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dovetail.graph import Graph, trace
from tests.architectures import ARCHITECTURES, small

pytestmark = pytest.mark.slow

REASONS = (
    "its channels are the model's output",
    "looks its rows up by the model's input",
    "only buffers have its size",
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def traced(request: pytest.FixtureRequest) -> tuple[str, nn.Module, tuple[Tensor, ...], Graph]:
    model, inputs = small(request.param)
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
    assert len(free) == ARCHITECTURES[name].free, free
    assert all(any(reason in g.frozen for reason in REASONS) for g in graph.groups if g.frozen is not None)
