"""Laws of graphs of one run: of models that cannot be exported but do run."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.costs import CostModel
from dovetail.data import Split
from dovetail.errors import EvaluationError, FormatError, PlanError, TraceError
from dovetail.evaluation import Calibration, PtqEvaluator, ReferenceEvaluator
from dovetail.formats import parse
from dovetail.formats.statistics import Statistics
from dovetail.graph import Graph, trace
from dovetail.graph.encode import decode_graph, encode_graph
from dovetail.plan import Plan, Site, SiteKind
from dovetail.transforms import apply


class Branching(nn.Module):
    """Two heads; the sum of the input says which."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.left, self.right = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.fc(x))
        if x.sum() > 0:  # the line at fault
            return self.left(y) * 2
        return self.right(y)


class Scaled(nn.Module):
    """Reads a value out of a tensor and computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("runs", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        self.runs += 1
        return y / max(1.0, y.abs().max().item())


class Looping(nn.Module):
    """The number of its calls follows the input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        for _ in range(int(x.abs().max().item()) + 1):
            y = torch.tanh(y)
        return torch.sigmoid(y)


POSITIVE = torch.full((2, 4), 0.5)


@pytest.fixture(scope="module")
def branching() -> Branching:
    torch.manual_seed(0)
    return Branching()


@pytest.fixture(scope="module")
def graph(branching: Branching) -> Graph:
    return trace(branching, (POSITIVE,))


def test_a_model_with_control_flow_on_values_has_the_graph_of_a_run_that_names_the_line_and_the_way_out(
    branching: Branching, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dovetail"):
        graph = trace(branching, (POSITIVE,))
    assert not graph.is_replayable
    assert graph.obstacle is not None
    for part in ("test_record.py:", "if x.sum() > 0", "torch.where"):
        assert part in graph.obstacle
        assert part in caplog.text
    assert "example inputs" in graph.notes[0]
    # The model's own `* 2` is a call of one branch alone, so the n-th `mul` may be another elsewhere.
    assert [o.name for o in graph.operations if o.sites] == ["fc", "relu", "sum_1", "left"]


def test_an_exported_graph_has_no_obstacle_and_no_notes() -> None:
    graph = trace(nn.Linear(4, 2), (POSITIVE,))
    assert graph.is_replayable
    assert graph.notes == ()


def test_the_path_recorded_is_the_one_that_the_example_takes(branching: Branching) -> None:
    names = [operation.name for operation in trace(branching, (-POSITIVE,)).operations]
    assert "right" in names
    assert "left" not in names


def test_every_width_is_frozen_with_the_line_at_fault(graph: Graph) -> None:
    assert [(group.name, group.base) for group in graph.groups] == [("fc", 8), ("left", 3)]
    for group in graph.groups:
        assert group.frozen is not None
        assert "the model cannot be exported" in group.frozen
        assert "if x.sum() > 0" in group.frozen
    with pytest.raises(PlanError, match=r"test_record\.py:\d+: if x\.sum\(\) > 0"):
        graph.check(Plan.of(widths={"fc": 16}))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_quantised_model_takes_the_branch_that_its_data_takes(branching: Branching, graph: Graph, sign: int) -> None:
    fmt = parse("fixed(6,3)")
    quantised = apply(graph, branching, Plan.of({s: fmt for s in graph.sites if s.operation in ("fc", "left")}))
    x = sign * torch.tensor([[0.3, 1.7, -0.2, 0.9], [1.1, 0.4, 0.6, -0.1]])
    q = fmt.quantise
    y = torch.relu(F.linear(q(x), q(branching.fc.weight), q(branching.fc.bias)))
    left, right = branching.left, branching.right
    # The branch that was not taken in the example has no formats.
    expected = F.linear(q(y), q(left.weight), q(left.bias)) * 2 if sign > 0 else F.linear(y, right.weight, right.bias)
    assert torch.equal(quantised(x), expected)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_costs_are_those_of_the_path_at_any_batch(graph: Graph, batch: int) -> None:
    costs = CostModel(graph, batch).price(Plan())
    assert costs["macs"].value == batch * (4 * 8 + 8 * 3)
    assert costs["params"].value == 4 * 8 + 8 + 2 * (8 * 3 + 3)


def test_a_model_that_reads_a_value_can_be_quantised_and_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(5, 4)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    graph = trace(model, (x,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "it reads a value out of a tensor" in str(graph.obstacle) or "depends on the values" in str(graph.obstacle)
    assert ".item()" in str(graph.obstacle)
    fmt = parse("fixed(5,3)")
    y = F.linear(x, fmt.quantise(model.fc.weight), model.fc.bias)
    expected = y / max(1.0, y.abs().max().item())
    assert torch.equal(apply(graph, model, Plan.of({Site("fc", SiteKind.WEIGHT): fmt}))(x), expected)


def test_calls_that_are_not_made_alike_on_other_inputs_have_no_sites() -> None:
    graph = trace(Looping(), (torch.full((2, 4), 1.5),))
    by_type = {operation.type: operation for operation in graph.operations}
    assert by_type["tanh"].sites == ()
    assert by_type["tanh"].no_sites == "the model's code does not make this call alike on other inputs"
    assert by_type["linear"].sites == (SiteKind.DATA_IN, SiteKind.WEIGHT, SiteKind.BIAS)
    assert by_type["sigmoid"].sites == (SiteKind.DATA_IN,)


def test_a_recorded_graph_must_not_be_run_nor_stand_in_for_the_model(branching: Branching, graph: Graph) -> None:
    with pytest.raises(TraceError, match=r"run the model itself.*test_record\.py"):
        graph.run(dict(branching.named_parameters()), POSITIVE)
    split = Split((POSITIVE,), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(EvaluationError, match="ReferenceEvaluator"):
        PtqEvaluator(graph, branching, split)


def test_the_reference_scores_whatever_branch_is_taken(branching: Branching, graph: Graph) -> None:
    torch.manual_seed(1)
    x = torch.cat([torch.rand(4, 4), -torch.rand(4, 4)])
    targets = torch.cat([branching.left(F.relu(branching.fc(x[:4]))), branching.right(F.relu(branching.fc(x[4:])))])
    split = Split((x,), targets.argmax(1))
    (outcome,) = ReferenceEvaluator(graph, branching, split, batch_size=4).evaluate([Plan()])
    assert outcome.score is not None
    assert outcome.score.value("accuracy") == 1.0


def test_ranges_are_read_off_what_the_models_own_code_computes(branching: Branching, graph: Graph) -> None:
    torch.manual_seed(2)
    x, fmt, site = -torch.rand(6, 4), parse("fixed(8,auto)"), Site("fc", SiteKind.DATA_IN)
    calibration = Calibration(graph, branching, Split((x,), torch.zeros(6)), weights="inherit", seed=0)
    assert calibration.resolve(Plan.of({site: fmt})).format(site) == fmt.calibrate(Statistics.of(x))
    with pytest.raises(FormatError, match="left:data_in.*never came by it"):
        calibration.resolve(Plan.of({Site("left", SiteKind.DATA_IN): fmt}))


def test_a_recorded_graph_is_written_whole_but_never_cached_for_it_follows_from_values(
    branching: Branching, graph: Graph, tmp_path: Path
) -> None:
    again = decode_graph(json.loads(json.dumps(encode_graph(graph))))
    assert again.obstacle == graph.obstacle
    assert again.operations == graph.operations
    trace(branching, (POSITIVE,), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_run_on_the_example_either_is_an_error() -> None:
    with pytest.raises(TraceError, match="cannot be exported as a graph"):
        trace(Branching(), (torch.zeros(2, 5),))
