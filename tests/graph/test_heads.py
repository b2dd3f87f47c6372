"""Heads of attention, found where modules keep their number and width as Python numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from dovetail.graph.heads import find_heads


class Configured(nn.Module):
    """Projections of an attention that keeps the width of its heads, and leaves their number to a configuration."""

    def __init__(self, stream: int, width: int, queries: int, keys: int, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.head_dim = config, width
        self.q, self.k = nn.Linear(stream, queries * width), nn.Linear(stream, keys * width)
        self.v, self.o = nn.Linear(stream, keys * width), nn.Linear(queries * width, stream)


class Fused(nn.Module):
    """Queries, keys and values of one projection."""

    def __init__(self, stream: int, width: int, queries: int, keys: int, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.head_dim = config, width
        self.qkv, self.o = nn.Linear(stream, (queries + 2 * keys) * width), nn.Linear(queries * width, stream)


def of(queries: int, keys: int) -> SimpleNamespace:
    return SimpleNamespace(num_attention_heads=queries, num_key_value_heads=keys)


@pytest.mark.parametrize("made", [Configured, Fused])
@pytest.mark.parametrize(
    ("stream", "width", "queries", "keys", "configured"),
    [
        (32, 8, 4, 2, of(4, 2)),
        (64, 16, 8, 4, of(4, 2)),  # twice the heads, and a stream as wide as half of the queries
        (64, 16, 8, 8, of(4, 4)),
        (20, 6, 3, 3, of(4, 4)),
        (128, 16, 16, 8, of(4, 2)),
    ],
)
def test_a_number_that_only_a_configuration_holds_is_read_off_the_projections(
    made: type[nn.Module], stream: int, width: int, queries: int, keys: int, configured: SimpleNamespace
) -> None:
    (heads,) = find_heads(made(stream, width, queries, keys, configured))
    assert (heads.number, heads.width, heads.repeats) == (keys, width, queries // keys)
    assert heads.attributes == (("head_dim", "width"),)


def test_a_number_that_the_module_holds_is_taken_as_it_is() -> None:
    module = Configured(64, 16, 8, 8, of(4, 4))
    module.num_heads = 8
    (heads,) = find_heads(module)
    assert (heads.number, heads.repeats) == (8, 1)


def test_one_head_is_none() -> None:
    assert find_heads(Configured(32, 8, 1, 1, of(4, 4))) == ()
