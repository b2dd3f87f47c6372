"""Every cost of the table keeps the laws of costs, on graphs of several kinds."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dovetail.costs import COSTS
from dovetail.graph import Graph, trace
from dovetail.testing.costs import COST_LAWS, check_cost


class Attention(nn.Module):
    """Tied embedding, shared layer, normalisation, attention by hand, residual."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(7, 6), nn.LayerNorm(6)
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        q = self.mix(self.norm(x))
        x = x + torch.softmax(q @ q.transpose(1, 2) * 0.5, -1) @ self.mix(x)
        return self.head(x)


class Convolutions(nn.Module):
    """Convolution, BatchNorm, depthwise convolution, pooling, concatenation, flattening."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.depth, self.point = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(10 * 4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = torch.cat([x, self.point(self.depth(x))], 1)
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


@torch.library.custom_op("dovetail_laws::mystery", mutates_args=())
def mystery(t: torch.Tensor) -> torch.Tensor:
    return t.clone()


@mystery.register_fake
def _(t):
    return torch.empty_like(t)


class Unknown(nn.Module):
    """A chain with an operator that no rule counts."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.second(torch.ops.dovetail_laws.mystery(self.first(x)))


MODELS = {
    "attention": (Attention, torch.zeros(2, 5, dtype=torch.long)),
    "convolutions": (Convolutions, torch.zeros(2, 3, 6, 6)),
    "unknown": (Unknown, torch.zeros(2, 4)),
}


@cache
def graph_of(name: str) -> Graph:
    model, x = MODELS[name]
    return trace(model().eval(), (x,))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("cost", COSTS)
def test_a_cost_keeps_every_law(cost, model):
    check_cost(cost, graph_of(model), batch=3)


def test_a_broken_law_is_found(monkeypatch):
    monkeypatch.setitem(COSTS, "params", COSTS["memory_density"])
    law = next(law for law in COST_LAWS if law.__name__ == "law_more_is_never_cheaper")
    monkeypatch.setattr("dovetail.testing.costs._BIT_AVERAGES", ("params",))
    check_cost("params", graph_of("unknown"))
    monkeypatch.setitem(COSTS, "params", type(COSTS["params"])(**{**_fields(COSTS["params"]), "direction": "minimize"}))
    with pytest.raises(AssertionError, match="with more"):
        check_cost("params", graph_of("unknown"))
    assert law in COST_LAWS


def _fields(definition):
    return {name: getattr(definition, name) for name in definition.__slots__}
