"""Laws of tracing chains, convolutions, residuals, concatenation and flatten."""

from __future__ import annotations

import contextlib
import copy
import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dovetail.errors import PlanError, TraceError, UnknownSiteError
from dovetail.formats import parse
from dovetail.graph import Call, CallMode, Graph, trace
from dovetail.plan import Plan, Site, SiteKind


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


class Residual(nn.Module):
    def __init__(self, a: int = 8, b: int = 6) -> None:
        super().__init__()
        self.c0, self.b0 = nn.Conv2d(3, a, 3, padding=1), nn.BatchNorm2d(a)
        self.c1 = nn.Conv2d(a, b, 3, padding=1)
        self.c2 = nn.Conv2d(b, a, 3, padding=1)
        self.fc = nn.Linear((a + b) * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b0(self.c0(x)))
        y = F.relu(self.c1(x), inplace=True)
        x = torch.relu(x + self.c2(y))
        x = torch.cat([x, y], 1)
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def chain() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))


@pytest.fixture(scope="module")
def chain_graph(chain: nn.Module) -> Graph:
    return trace(chain, (torch.randn(8, 16),))


@pytest.fixture(scope="module")
def residual_graph() -> Graph:
    return trace(Residual(), (torch.randn(1, 3, 8, 8),))


def test_operations_of_leaf_modules_go_by_their_module_path(chain_graph: Graph) -> None:
    assert [(o.name, o.type) for o in chain_graph.operations] == [
        ("0", "batch_norm"),
        ("1", "relu"),
        ("2", "linear"),
        ("3", "relu"),
        ("4", "linear"),
    ]


def test_sites_are_the_tensors_that_an_operation_reads(chain_graph: Graph) -> None:
    linear, relu = chain_graph.operation("2"), chain_graph.operation("1")
    assert linear.sites == (SiteKind.DATA_IN, SiteKind.WEIGHT, SiteKind.BIAS)
    assert (linear.weight, linear.bias) == ("2.weight", "2.bias")
    assert relu.sites == (SiteKind.DATA_IN,)
    assert relu.call == Call("1", "relu", 0)
    assert Site("2", SiteKind.WEIGHT) in chain_graph.sites


def test_a_hidden_width_is_a_group_named_after_its_producer(chain_graph: Graph) -> None:
    group = chain_graph.group("2")
    assert (group.base, group.frozen) == (32, None)
    assert [(m.parameter, m.dim) for m in group.members] == [("2.weight", 0), ("2.bias", 0), ("4.weight", 1)]


def test_a_group_that_reaches_the_output_is_frozen_with_that_reason(chain_graph: Graph) -> None:
    assert chain_graph.group("4").frozen == "its channels are the model's output"


def test_functional_calls_are_operations_with_calls(residual_graph: Graph) -> None:
    (add,) = residual_graph.select("add")
    assert add.call == Call("", "add", 0)
    assert add.sites == (SiteKind.DATA_IN,)
    assert [o.call for o in residual_graph.select("relu")] == [Call("", "relu", i) for i in range(3)]


def test_a_residual_makes_its_branches_one_group_and_a_concatenation_adds_them(residual_graph: Graph) -> None:
    a, b = residual_graph.group("c0"), residual_graph.group("c1")
    assert {(m.parameter, m.dim) for m in a.members} >= {("c0.weight", 0), ("c2.weight", 0), ("b0.running_mean", 0)}
    assert residual_graph.tensor_shape("fc.weight")[1] == 4 * a.symbol + 4 * b.symbol


def test_the_graph_computes_what_the_model_computes(chain: nn.Module, chain_graph: Graph) -> None:
    x = torch.randn(5, 16)
    assert torch.equal(chain_graph.run(tensors(chain), x), copy.deepcopy(chain).eval()(x))


def test_the_graph_runs_with_tensors_of_other_widths(residual_graph: Graph) -> None:
    x, wider = torch.randn(3, 3, 8, 8), Residual(10, 5).eval()
    assert torch.equal(residual_graph.run(tensors(wider), x), wider(x))


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = Residual()
    before = {name: t.clone() for name, t in tensors(model).items()}
    trace(model, (torch.randn(2, 3, 8, 8),))
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in tensors(model).items())


def test_a_name_that_is_not_there_lists_near_ones(residual_graph: Graph) -> None:
    with pytest.raises(UnknownSiteError, match="Did you mean 'c0'"):
        residual_graph.operation("c00")


def test_a_plan_that_changes_a_frozen_group_is_refused_with_the_reason(chain_graph: Graph) -> None:
    with pytest.raises(PlanError, match="must keep its 5 channels, got 7: its channels are the model's output"):
        chain_graph.check(Plan.of(widths={"4": 7}))


def test_a_plan_with_a_site_that_an_operation_lacks_is_refused(chain_graph: Graph) -> None:
    with pytest.raises(UnknownSiteError, match="has no weight; it has data_in"):
        chain_graph.check(Plan.of({Site("1", SiteKind.WEIGHT): parse("fixed(8,4)")}))


def test_widths_of_a_plan_replace_the_base_widths(chain_graph: Graph) -> None:
    symbol = chain_graph.group("2").symbol
    assert chain_graph.widths(Plan.of(widths={"2": 48}))[symbol] == 48
    assert chain_graph.widths()[symbol] == 32


def test_calls_are_numbered_alike_in_train_and_eval_mode() -> None:
    model, seen = Residual(), {}
    for mode in (True, False):
        calls: list[Call] = []

        def note(call, function, args, kwargs, calls=calls):  # type: ignore[no-untyped-def]
            calls.append(call)
            return function(*args, **kwargs)

        with CallMode(model.train(mode), note):
            model(torch.randn(2, 3, 8, 8))
        seen[mode] = [c for c in calls if c.function in ("relu", "conv2d", "batch_norm", "linear", "cat") or not c.path]
    assert seen[True] == seen[False]
    assert Call("", "add", 0) in seen[False]


class DependsOnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_the_exporter_prints_nothing_of_a_model_that_it_does_not_follow(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(TraceError):
        trace(DependsOnValues(), (torch.randn(2, 4),))
    assert capfd.readouterr().err == ""


def test_an_export_that_takes_more_than_a_second_is_told() -> None:
    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            time.sleep(1.1)
            return self.linear(x)

    told: list[str] = []
    trace(Slow(), (torch.zeros(2, 4),), progress=told.append)
    assert told == ["exporting the graph of Slow"]
