"""Heads of attention, found where modules keep their number and width as Python numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from dovetail.graph.heads import find_heads
from dovetail.plan import Plan
from dovetail.testing.transforms import check_resize
from dovetail.transforms import inheritance_report
from tests.odd_models import made


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


def free(name: str) -> dict[str, int]:
    _, _, graph = made(name)
    return {group.name: group.base for group in graph.groups if group.frozen is None}


def test_heads_that_an_embedding_is_cut_into_are_groups_that_its_whole_stream_follows() -> None:
    heads = {"1.self_attn.num_heads": 2, "1.self_attn.head_dim": 4}
    assert free("encoders") == {**heads, "1.linear1": 12, "2.linear1": 12}


def test_streams_that_meet_in_attention_have_the_same_heads() -> None:
    heads = {"e.self_attn.num_heads": 2, "e.self_attn.head_dim": 4}
    assert free("encoder-decoder") == {**heads, "e.linear1": 12, "d.linear1": 12}


def test_keys_of_another_stream_follow_it_and_outputs_need_not_be_as_wide_as_queries() -> None:
    groups = free("keys-of-another-stream")
    assert groups["j"] == 10
    assert groups["a.num_heads"] == 2
    model, x, graph = made("keys-of-another-stream")
    resized = check_resize(graph, model, (x,), Plan.of(widths={"j": 5, "a.num_heads": 3}), retrace=False)
    assert (resized.a.kdim, resized.a.num_heads, resized.a.embed_dim, resized.a.head_dim) == (5, 3, 12, 4)


@pytest.mark.parametrize("name", ["encoders", "encoder-decoder"])
def test_an_embedding_can_have_more_heads_or_wider_ones(name: str) -> None:
    model, x, graph = made(name)
    width, number = sorted(g.name for g in graph.groups if g.name.endswith(("num_heads", "head_dim")))
    resized = check_resize(graph, model, (x,), Plan.of(widths={number: 3, width: 6}))
    layers = [module for module in resized.modules() if isinstance(module, nn.MultiheadAttention)]
    assert {(layer.embed_dim, layer.num_heads, layer.head_dim) for layer in layers} == {(18, 3, 6)}


def test_twice_the_heads_of_an_embedding_compute_the_same() -> None:
    model, x, graph = made("encoders")
    doubled = Plan.of(widths={"1.self_attn.num_heads": 4, "1.linear1": 24})
    wider = Plan.of(widths={"1.self_attn.head_dim": 8})
    assert all(change.exact for change in inheritance_report(graph, doubled))
    assert [change.exact for change in inheritance_report(graph, wider)] == [False]
    check_resize(graph, model, (x,), doubled, retrace=False)


def test_one_head_is_none() -> None:
    assert find_heads(Configured(32, 8, 1, 1, of(4, 4))) == ()
