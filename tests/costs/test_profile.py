"""The profile is the costs, laid out by operation."""

import pytest
import torch
from torch import nn

from dovetail.costs import profile
from dovetail.graph import trace
from dovetail.plan import Plan


@pytest.fixture(scope="module")
def graph():
    return trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.zeros(2, 4),))


def test_rows_follow_the_graph_after_its_inputs_and_before_the_total(graph):
    rows = profile(graph, batch=3)
    assert [(row.operation, row.type) for row in rows[1:]] == [
        ("0", "linear"),
        ("1", "relu"),
        ("2", "linear"),
        ("total", ""),
    ]
    assert rows[0].type == "tensor"
    assert rows[0].activation_bytes == 3 * 4 * 4


def test_rows_add_up_to_the_total(graph):
    *rows, total = profile(graph, batch=3)
    assert (total.params, total.macs, total.flops) == (58, 3 * 48, 3 * (96 + 8))
    for field in ("params", "macs", "flops", "activation_bytes"):
        assert sum(getattr(row, field) for row in rows) == getattr(total, field)
    assert sum(row.share for row in rows) == pytest.approx(1.0)


def test_a_plan_changes_sizes_and_figures(graph):
    hidden = profile(graph, batch=3, plan=Plan.of(widths={"0": 16}))[1]
    assert (hidden.output, hidden.params, hidden.macs) == ((3, 16), 80, 3 * 64)
