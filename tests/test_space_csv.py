"""A priced space as CSV: byte for byte what the obvious writer makes of it."""

from __future__ import annotations

import csv
import io
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dovetail import space_csv
from dovetail.costs import COSTS, CostModel
from dovetail.errors import StudyError
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.search.space import Decision, PrecisionRule, Space, WidthRule, build_space
from dovetail.space_csv import find_extremes, merge_extremes, write_priced_space


def write_obviously(space: Space, costs: CostModel) -> bytes:
    """The slow obvious writer: plan by plan, cell by cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(d.name for d in space.decisions), *COSTS])
    for i in range(space.size):
        row = space.row_at(i)
        figures = [float(cost.value) for cost in costs.price(space.plan(row), list(COSTS)).values()]
        cells = [int(x) if x.is_integer() else repr(x) for x in figures]
        writer.writerow([*(label for _, label in space.labels(row)), *cells])
    return text.getvalue().encode()


@pytest.fixture(scope="module")
def graph() -> Graph:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 5)
    )
    return trace(network, (torch.zeros(2, 3, 8, 8),))


@pytest.fixture(scope="module")
def joint(graph: Graph) -> Space:
    """288 plans: formats, with and without commas and shared scales, and widths."""
    formats = tuple(parse(text) for text in ("fixed(4,2)", "float32", "E4M3FN"))
    return build_space(
        graph,
        precision=[
            PrecisionRule(operations="conv2d", data_in=formats, weight=formats[:2], together=True),
            PrecisionRule(operations="linear", weight=(parse("mxfp4"), *formats, parse("int(3)")), bias=formats[:1]),
        ],
        width=[WidthRule(groups="*", multipliers=(Fraction(1, 2), Fraction(1), Fraction(5, 2)), optional=True)],
    )


@pytest.mark.parametrize("block", [1, 2, 3, 10, 50, 1 << 15])
def test_the_file_is_the_obvious_writers_to_the_byte_however_it_is_cut(
    graph: Graph, joint: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(space_csv, "_BLOCK", block)
    costs = CostModel(graph, 4)
    write_priced_space(joint, costs, tmp_path / "space.csv")
    assert (tmp_path / "space.csv").read_bytes() == write_obviously(joint, costs)


def test_every_label_and_every_figure_reads_back(graph: Graph, joint: Space, tmp_path: Path) -> None:
    costs = CostModel(graph, 4)
    write_priced_space(joint, costs, tmp_path / "space.csv")
    with (tmp_path / "space.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    prices = joint.price(costs, joint.rows())
    assert [tuple(row[d.name] for d in joint.decisions) for row in rows] == [
        tuple(label for _, label in joint.labels(joint.row_at(i))) for i in range(joint.size)
    ]
    for name in COSTS:
        assert [float(row[name]) for row in rows] == prices[name].tolist()


def test_extremes_are_the_least_and_most_of_the_columns(graph: Graph, joint: Space, tmp_path: Path) -> None:
    costs = CostModel(graph, 4)
    found = write_priced_space(joint, costs, tmp_path / "space.csv")
    prices = joint.price(costs, joint.rows())
    assert found == {name: (float(prices[name].min()), float(prices[name].max())) for name in COSTS}


def test_extremes_pass_over_what_has_no_value() -> None:
    some = find_extremes({"a": np.array([math.nan, 3.0]), "b": np.array([math.nan])})
    both = merge_extremes(some, find_extremes({"a": np.array([1.0]), "b": np.array([math.nan])}))
    assert both["a"] == (1.0, 3.0)
    assert all(map(math.isnan, both["b"]))


def test_a_label_with_quotes_and_accents_is_quoted_as_csv_does(graph: Graph, tmp_path: Path) -> None:
    labels = ('"half"', "à peine, 8", "plain")
    widths = ((4,), (8,), (12,))
    decision = Decision(name="w,1", kind="width", labels=labels, groups=("0",), widths=widths)
    space = Space((decision,), base_widths=tuple((g.name, g.base) for g in graph.groups))
    costs = CostModel(graph, 1)
    write_priced_space(space, costs, tmp_path / "space.csv")
    assert (tmp_path / "space.csv").read_bytes() == write_obviously(space, costs)


def test_a_space_without_decisions_is_the_model_as_it_is(graph: Graph, tmp_path: Path) -> None:
    costs = CostModel(graph, 1)
    write_priced_space(Space(()), costs, tmp_path / "space.csv")
    assert (tmp_path / "space.csv").read_bytes() == write_obviously(Space(()), costs)


def test_a_cost_without_a_value_is_written_as_nan(tmp_path: Path) -> None:
    graph = trace(nn.Sequential(nn.ReLU()), (torch.zeros(2, 3),))
    write_priced_space(Space(()), CostModel(graph, 1), tmp_path / "space.csv")
    with (tmp_path / "space.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["average_bitwidth"] == "nan"


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    graph: Graph, joint: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "space.csv"
    path.write_text("old")
    monkeypatch.setattr(space_csv, "_BLOCK", 16)
    write, calls = space_csv._Blocks.write, []

    def full_disk(blocks: space_csv._Blocks, start: int) -> space_csv.Written:
        calls.append(start)
        if start >= 48:
            raise OSError(28, "No space left on device")
        return write(blocks, start)

    monkeypatch.setattr(space_csv._Blocks, "write", full_disk)
    with pytest.raises(StudyError, match="No space left on device"):
        write_priced_space(joint, CostModel(graph, 1), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert len(calls) < joint.size // 16
