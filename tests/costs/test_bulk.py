"""Bulk prices equal prices one by one, to the last bit."""

import numpy as np
import pytest
import torch
from torch import nn

from dovetail.costs import COSTS, CostModel
from dovetail.errors import PlanError, PricingError, UnknownSiteError
from dovetail.formats import FLOAT32, Format, parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind


class Mixed(nn.Module):
    """A tied embedding, a shared layer, a skipped connection, a concatenation and a product of activations."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.wide = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 8)
        self.back, self.head = nn.Linear(14, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.body(torch.relu(self.body(x)))
        x = self.back(torch.cat([self.wide(x), x], -1))
        return self.head(torch.softmax(x @ x.transpose(1, 2), -1) @ x)


@pytest.fixture(scope="module")
def mixed():
    return CostModel(trace(Mixed(), (torch.zeros(2, 5, dtype=torch.long),)), batch=3)


def arrays(graph, options, count, seed=0):
    rng = np.random.default_rng(seed)
    widths = {
        group.name: group.multiple_of * rng.integers(1, 40, count) for group in graph.groups if group.frozen is None
    }
    formats = {site: (options, rng.integers(0, len(options), count)) for site in graph.sites}
    return widths, formats


def plan_at(widths, formats, i):
    chosen = {site: options[index[i]] for site, (options, index) in formats.items() if options[index[i]] is not None}
    return Plan.of(chosen, {name: int(values[i]) for name, values in widths.items()})


ELEMENTWISE = (None, FLOAT32, parse("fixed(8,4)"), parse("fixed(4,2)"), parse("fixed(16,8)"))


def assert_bulk_equals_one_by_one(costs, widths, formats, count):
    bulk = costs.price_arrays(widths, formats, count)
    assert list(bulk) == list(COSTS)
    for i in range(count):
        for name, cost in costs.price(plan_at(widths, formats, i)).items():
            np.testing.assert_equal(bulk[name][i], float(cost.value), err_msg=f"{name} of plan {i}")


def test_bulk_equals_one_by_one_for_elementwise_formats(mixed):
    widths, formats = arrays(mixed.graph, ELEMENTWISE, 40)
    assert_bulk_equals_one_by_one(mixed, widths, formats, 40)


class Blocks(Format):
    """A test format: 4 bits an element and 8 per block of 5 along the last dimension, partial blocks too."""

    element_bits, maximum, minimum, step, block_size = 4, 1.0, -1.0, 0.25, 5

    def storage_bits(self, shape):
        rows = 1
        for size in shape[:-1]:
            rows = rows * size
        return rows * (4 * shape[-1] + 8 * -(-shape[-1] // 5))

    def quantise(self, x):
        return x


def test_bulk_equals_one_by_one_for_block_formats(mixed):
    widths, formats = arrays(mixed.graph, (*ELEMENTWISE, Blocks()), 40)
    assert_bulk_equals_one_by_one(mixed, widths, formats, 40)


def test_bulk_equals_one_by_one_for_one_decision_over_all_sites(mixed):
    index = np.arange(5, dtype=np.int64)
    formats = dict.fromkeys(mixed.graph.sites, (ELEMENTWISE, index))
    assert_bulk_equals_one_by_one(mixed, {}, formats, 5)


def test_prices_do_not_depend_on_where_chunks_end(mixed, monkeypatch):
    widths, formats = arrays(mixed.graph, (*ELEMENTWISE, Blocks()), 30)
    whole = mixed.price_arrays(widths, formats, 30)
    monkeypatch.setattr("dovetail.costs.bulk.CHUNK", 7)
    for name, values in mixed.price_arrays(widths, formats, 30).items():
        np.testing.assert_array_equal(values, whole[name])


@pytest.mark.parametrize("options", [ELEMENTWISE, (*ELEMENTWISE, Blocks())], ids=["elementwise", "blocks"])
def test_a_grid_of_plans_costs_what_each_of_them_does(mixed, options):
    widths, formats = arrays(mixed.graph, options, 3)
    axis_of = {key: i % 4 for i, key in enumerate([*widths, *formats])}

    def along(key, values):
        return values.reshape([-1 if axis == axis_of[key] else 1 for axis in range(4)])

    grid = mixed.price_arrays(
        {name: along(name, values) for name, values in widths.items()},
        {site: (options, along(site, index)) for site, (_, index) in formats.items()},
        None,
    )
    rows = np.indices((3,) * 4).reshape(4, -1)
    one_by_one = mixed.price_arrays(
        {name: values[rows[axis_of[name]]] for name, values in widths.items()},
        {site: (options, index[rows[axis_of[site]]]) for site, (_, index) in formats.items()},
        81,
    )
    for name, values in grid.items():
        np.testing.assert_array_equal(np.broadcast_to(values, (3,) * 4).ravel(), one_by_one[name])
    assert grid["params"].size < 81, "it hangs on some of the axes alone"


def test_whole_numbers_stay_exact_beyond_32_bits(mixed):
    group = next(g for g in mixed.graph.groups if g.frozen is None)
    widths = {group.name: np.array([group.base, 30_001 * group.multiple_of])}
    bulk = mixed.price_arrays(widths, {}, 2, ["bops"])["bops"]
    one = mixed.price(Plan.of(widths={group.name: int(widths[group.name][1])}), ["bops"])["bops"].value
    assert 2**32 < one < 2**53
    assert int(bulk[1]) == one


def test_nothing_to_vary_gives_the_same_price_for_each(mixed):
    assert (
        mixed.price_arrays({}, {}, 3, ["params"])["params"].tolist()
        == [
            mixed.price(Plan())["params"].value,
        ]
        * 3
    )
    assert mixed.price_arrays({}, {}, 0, ["params"])["params"].shape == (0,)


def test_arrays_that_do_not_fit_are_errors_that_name_the_place(mixed):
    ids = np.zeros(2, dtype=np.int64)
    body = Site("body", SiteKind.WEIGHT)
    free = next(g for g in mixed.graph.groups if g.frozen is None)
    with pytest.raises(UnknownSiteError, match="nowhere"):
        mixed.price_arrays({"nowhere": ids + 1}, {}, 2)
    with pytest.raises(PlanError, match="positive multiple of"):
        mixed.price_arrays({free.name: ids}, {}, 2)
    with pytest.raises(PlanError, match="must be 3 numbers"):
        mixed.price_arrays({free.name: ids + 1}, {}, 3)
    with pytest.raises(PlanError, match="places in 1 formats, got 1"):
        mixed.price_arrays({}, {body: ((None,), ids + 1)}, 2)
    with pytest.raises(UnknownSiteError, match="no bias"):
        mixed.price_arrays({}, {Site("head", SiteKind.BIAS): ((None,), ids)}, 2)
    with pytest.raises(PricingError, match="Did you mean 'params'"):
        mixed.price_arrays({}, {}, 2, ["param"])
