"""The paths that run on a GPU, on one that is simulated: no tensor on the wrong device, and the same scores.

`test_on_gpu.py` runs these tests in a process of their own.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from dovetail.api import search
from dovetail.config import (
    DataConfig,
    EvaluationConfig,
    MetricConfig,
    ModelConfig,
    PrecisionRule,
    RunConfig,
    SearchConfig,
    SpaceConfig,
    TrainConfig,
    WidthRule,
)
from dovetail.costs import measure_latency
from dovetail.data import Dataset, Split
from dovetail.evaluation import Calibration, Outcome, PtqEvaluator, RacingEvaluator, ReferenceEvaluator, Score
from dovetail.evaluation.rounding_noise import rounding_noise
from dovetail.evaluation.sizing import place
from dovetail.evaluation.train_evaluator import TrainEvaluator
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind
from tests.simulated_gpu import OnGpu, register, simulated_gpu

from .networks import SHAPES, case, draw_plans


@pytest.fixture(scope="module", autouse=True)
def known() -> None:
    register()


def test_the_simulated_gpu_is_as_strict_as_a_real_one() -> None:
    x = torch.ones(3)
    with simulated_gpu(largest=100) as gpu:
        y = x.to("gpu") * 2 + torch.tensor(1.0)
        assert isinstance(y, OnGpu)
        assert y.device.type == "gpu"
        assert torch.equal(y.cpu(), torch.full((3,), 3.0))
        assert float(y.sum()) == 9
        assert torch.equal(y[torch.tensor([0, 1])].cpu(), torch.full((2,), 3.0))
        with pytest.raises(RuntimeError, match="same device"):
            y + x
        with pytest.raises(RuntimeError, match="numpy"):
            y.numpy()
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(26, device="gpu")
        y.add_(1)
        assert torch.equal(y.cpu(), torch.full((3,), 4.0))
        assert gpu.operators > 0


def said(outcomes: Iterable[Outcome]) -> dict[Plan, tuple[Score | None, str | None]]:
    return {outcome.plan: (outcome.score, outcome.failure) for outcome in outcomes}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("metrics", [("accuracy",), ("accuracy", "loss", "balanced_accuracy", "top5_accuracy")])
def test_scores_are_those_of_the_processor(name: str, metrics: tuple[str, ...]) -> None:
    its = case(name)
    plans = draw_plans(its.graph, 10, 0, widths=True)
    expected = said(PtqEvaluator(its.graph, its.model, its.split, metrics).evaluate(plans))
    for evaluator in (PtqEvaluator, ReferenceEvaluator):
        with simulated_gpu() as gpu:
            found = said(evaluator(its.graph, its.model, its.split, metrics, device="gpu").evaluate(plans))
        assert found == expected
        assert gpu.operators > 100


def test_what_plans_share_stays_on_the_device() -> None:
    its = case("residual")
    plans = draw_plans(its.graph, 11, 0)
    with simulated_gpu() as gpu:
        evaluator = PtqEvaluator(its.graph, its.model, its.split, device="gpu")
        said(evaluator.evaluate(plans[:1]))  # the model's tensors are told apart by content once
        before = gpu.returned
        said(evaluator.evaluate(plans[1:]))
        assert evaluator.statistics.hits > 0
    assert gpu.returned - before <= len(plans[1:]) * len(its.split)  # one byte per answer: right or not


def test_memory_that_runs_out_halves_the_batch_and_the_scores_stay() -> None:
    its = case("residual")
    plans = draw_plans(its.graph, 12, 0)
    expected = said(PtqEvaluator(its.graph, its.model, its.split).evaluate(plans))
    with simulated_gpu() as gpu:
        evaluator = PtqEvaluator(its.graph, its.model, its.split, device="gpu")
        assert evaluator.batch_size == len(its.split)
        gpu.largest = 10 * 4 * 16 * 4  # bytes: ten images of the widest value, four channels of 4 x 4
        before = gpu.emptied
        found = said(evaluator.evaluate(plans))
        assert evaluator.batch_size <= 10
        assert gpu.emptied > before
    for plan, (score, failure) in expected.items():
        assert failure is None
        assert score is not None
        on_gpu, its_failure = found[plan]
        assert its_failure is None
        assert on_gpu is not None
        assert on_gpu.correct == score.correct


def test_one_sample_that_does_not_fit_fails_its_plan_with_the_device_named() -> None:
    its = case("residual")
    with simulated_gpu() as gpu:
        evaluator = PtqEvaluator(its.graph, its.model, its.split, device="gpu")
        gpu.largest = 4 * 16 * 4 - 1
        (outcome,) = evaluator.evaluate([Plan.of()])
    assert outcome.score is None
    assert "out of memory on gpu" in (outcome.failure or "")


def test_widths_whose_tensors_do_not_fit_fail_alone() -> None:
    its = case("mlp")
    with simulated_gpu() as gpu:
        evaluator = PtqEvaluator(its.graph, its.model, its.split, device="gpu")
        gpu.largest = 12 * 8 * 4 * 4  # the first layer's weight is 8 x 12
        found = said(evaluator.evaluate([Plan.of(), Plan.of({}, {"2": 80}), Plan.of({}, {"2": 16})]))
    assert [score is None for score, _ in found.values()].count(True) == 1
    score, failure = found[Plan.of({}, {"2": 80})]
    assert score is None
    assert "out of memory on gpu:0 for the resized tensors" in (failure or "")


def test_free_memory_is_what_the_device_reports() -> None:
    its = case("mlp")
    with simulated_gpu(free=1 << 20):
        assert PtqEvaluator(its.graph, its.model, its.split, device="gpu").statistics.budget == 1 << 18


def test_races_end_as_on_the_processor() -> None:
    its = case("mlp", samples=2000)
    plans = draw_plans(its.graph, 8, 0)

    def race(device: str) -> dict[Plan, tuple[Score | None, str | None]]:
        return said(
            RacingEvaluator(
                lambda samples: PtqEvaluator(its.graph, its.model, its.split.take(samples), device=device),
                len(its.split),
                lambda plans: torch.zeros(len(plans), 1).numpy(),
            ).evaluate(plans)
        )

    expected = race("cpu")
    with simulated_gpu():
        assert race("gpu") == expected


def test_ranges_and_rounding_noise_are_those_of_the_processor() -> None:
    its = case("mixing")
    wanted = {
        Site(o.name, kind): (parse("int(4)"), parse("fixed(6,3)")) for o in its.graph.operations for kind in o.sites
    }

    def noise(device: str) -> dict[Site, tuple[float, ...] | None]:
        model = copy.deepcopy(its.model).to(device).eval()
        split = place(its.split, model, torch.device(device))
        calibration = Calibration(its.graph, model, split, weights="inherit", seed=0)
        return rounding_noise(its.graph, model, split, calibration, wanted)

    expected = noise("cpu")
    with simulated_gpu():
        assert noise("gpu") == expected


CANDIDATES = [
    Plan.of(),
    Plan.of({}, {"0": 12}),
    Plan.of({Site("0", SiteKind.WEIGHT): parse("fixed(4,2)"), Site("3", SiteKind.DATA_IN): parse("int(8)")}),
]


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=2, learning_rate=1e-2),
        TrainConfig(epochs=2, learning_rate=1e-2, stacked=False),
        TrainConfig(epochs=3, learning_rate=1e-2, patience=1),
        TrainConfig(epochs=2, learning_rate=1e-2, repeats=2),
        TrainConfig(epochs=4, learning_rate=1e-2, halving=2),
    ],
    ids=["side by side", "one by one", "early stopping", "repeats", "halving"],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_gives_the_scores_of_the_processor(config: TrainConfig, dropout: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2)).eval()
    graph = trace(model, (torch.zeros(2, 4),))
    inputs = torch.randn(300, 4)
    targets = (inputs[:, 0] * inputs[:, 1] > 0).long()
    parts = [Split((inputs[part],), targets[part]) for part in (slice(200), slice(200, 250), slice(250, 300))]
    dataset = Dataset("xor", *parts, 2, (4,), "signs")

    def train(device: str) -> dict[Plan, tuple[Score | None, str | None]]:
        evaluator = TrainEvaluator(
            graph, model, dataset, config, ("accuracy", "loss"), batch_size=32, device=torch.device(device)
        )
        return said(evaluator.evaluate(CANDIDATES))

    expected = train("cpu")
    with simulated_gpu() as gpu:
        found = train("gpu")
    assert gpu.operators > 1000
    assert found == expected


def test_latency_is_measured_on_the_device_and_says_so() -> None:
    with simulated_gpu():
        model = nn.Linear(4, 2).to("gpu")
        assert measure_latency(model, (torch.zeros(3, 4, device="gpu"),), seconds=0.01).device == "gpu:0"


@pytest.mark.parametrize("protocol", ["ptq", "train"])
def test_a_whole_search_gives_the_trials_of_the_processor(
    protocol: Literal["ptq", "train"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOVETAIL_CACHE", str(tmp_path / "cache"))
    inputs = torch.randn(240, 4)
    targets = torch.arange(240) % 3
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    config = RunConfig(
        model=ModelConfig(module=model),
        data=DataConfig(dataset=(inputs + 1.5 * torch.eye(4)[targets], targets)),
        space=SpaceConfig(
            precision=(
                PrecisionRule(operations="linear", data_in=("int(8)", "int(3)"), weight=("fixed(8,6)", "fixed(3,2)")),
            ),
            width=(WidthRule(groups="0", multipliers=(1, 2)),),
        ),
        search=SearchConfig(
            strategy="pareto", trials=12, metrics={"accuracy": MetricConfig(), "model_bytes": MetricConfig()}
        ),
        evaluation=EvaluationConfig(protocol=protocol),
        train=TrainConfig(epochs=1),
        device="cpu",
    )

    def trials(config: RunConfig, folder: str) -> list[tuple[object, ...]]:
        found = search(config, out=tmp_path / folder)
        return [(t.number, t.plan, t.state, t.reason, t.costs, t.score) for t in found.run.trials]

    expected = trials(config, "cpu")
    assert len(expected) == 12
    with simulated_gpu() as gpu:
        assert trials(dataclasses.replace(config, device="gpu"), "gpu") == expected
        again = search(dataclasses.replace(config, device="gpu"), out=tmp_path / "gpu")
    assert gpu.operators > 500
    assert again.run.new == 0
    assert again.files.best_model.exists()
