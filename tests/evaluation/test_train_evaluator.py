"""A plan's trained score follows from the plan and the seed alone."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor, nn

from dovetail.data import Dataset, Split
from dovetail.errors import ConfigError
from dovetail.evaluation.score import Measured, Score
from dovetail.evaluation.train_evaluator import TrainEvaluator, combine, plan_seed, score_model
from dovetail.evaluation.training import train_model
from dovetail.formats import parse
from dovetail.graph import trace
from dovetail.plan import Plan, Site, SiteKind
from dovetail.settings import TrainConfig

METRICS = ("accuracy", "loss")


def make_dataset() -> Dataset:
    def split(samples: int, seed: int) -> Split:
        x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed))
        return Split((x,), (x[:, 0] * x[:, 1] > 0).long())

    return Dataset("xor", split(200, 0), split(60, 1), split(60, 2), 2, (4,), "signs")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


def make_evaluator(model: nn.Module, *, repeats: int = 1, **options: object) -> TrainEvaluator:
    graph = trace(model, (torch.zeros(2, 4),))
    config = TrainConfig(epochs=2, learning_rate=1e-2, repeats=repeats)
    dataset = make_dataset()
    return TrainEvaluator(graph, model, dataset, config, METRICS, batch_size=32, **options)  # type: ignore[arg-type]


def plans() -> list[Plan]:
    formats = {Site("0", SiteKind.WEIGHT): parse("fixed(4,2)"), Site("2", SiteKind.DATA_IN): parse("fixed(8,4)")}
    return [Plan.of(), Plan.of({}, {"0": 12}), Plan.of(formats), Plan.of(formats, {"0": 4})]


def test_neither_order_nor_company_changes_a_score(model: nn.Module) -> None:
    evaluator = make_evaluator(model)
    forward = {o.plan: o.score for o in evaluator.evaluate(plans())}
    backward = {o.plan: o.score for o in make_evaluator(model).evaluate(plans()[::-1])}
    alone = next(iter(make_evaluator(model).evaluate([plans()[2]])))
    assert forward == backward
    assert alone.score == forward[plans()[2]]
    assert None not in forward.values()


def test_the_users_model_is_bit_identical_after(model: nn.Module) -> None:
    before = [t.clone() for t in model.state_dict().values()]
    list(make_evaluator(model).evaluate(plans()))
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


def test_the_score_is_that_of_the_trained_model(model: nn.Module) -> None:
    evaluator = make_evaluator(model, split="test", samples=50)
    plan = plans()[1]
    outcome = next(iter(evaluator.evaluate([plan])))
    trained = evaluator.train(plan).model
    split = make_dataset().test.take(50)
    with torch.no_grad():
        right = (trained(split.inputs[0]).argmax(1) == split.targets).sum().item()
    assert outcome.score is not None
    assert outcome.score.value("accuracy") == right / 50
    assert dict(outcome.details)["epochs"] == 2


def test_a_plans_seed_follows_from_the_seed_and_the_plan(model: nn.Module) -> None:
    seeds = {plan_seed(seed, plan) for seed in (0, 1) for plan in plans()}
    assert len(seeds) == 8
    assert plan_seed(0, plans()[1]) == plan_seed(0, Plan.of({}, {"0": 12}))


class BreaksWhenWide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.a.weight.shape[0] == 16:
            raise RuntimeError("no more than 8\nchannels")
        return self.b(torch.relu(self.a(x)))


def test_a_candidate_that_fails_is_recorded_with_its_reason_and_the_rest_go_on() -> None:
    outcomes = list(make_evaluator(BreaksWhenWide().eval()).evaluate([Plan.of({}, {"a": 16}), Plan.of({}, {"a": 4})]))
    assert outcomes[0].failure == "RuntimeError: no more than 8"
    assert outcomes[1].score is not None


def test_an_interrupt_is_not_taken_for_a_failure(model: nn.Module) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(make_evaluator(model, stop=interrupt).evaluate(plans()))


def test_stopping_reports_only_what_was_finished(model: nn.Module) -> None:
    asked: list[int] = []
    evaluator = make_evaluator(model, stop=lambda: asked.append(1) is not None or len(asked) > 9)
    found = list(evaluator.evaluate(plans()))
    assert 0 < len(found) < 4
    whole = {o.plan: o.score for o in make_evaluator(model).evaluate(plans())}
    assert all(whole[o.plan] == o.score for o in found)


def test_a_format_that_is_read_off_data_is_calibrated_on_the_base_model(model: nn.Module) -> None:
    plan = Plan.of({Site("2", SiteKind.DATA_IN): parse("fixed(8,auto)"), Site("2", SiteKind.WEIGHT): parse("int(8)")})
    outcome = next(iter(make_evaluator(model).evaluate([plan])))
    assert outcome.failure is None


@pytest.mark.parametrize("workers", [1, 2])
def test_stacks_and_workers_give_the_scores_of_one_by_one_in_the_plans_order(model: nn.Module, workers: int) -> None:
    asked = [Plan.of({}, {"0": width}) for width in (4, 8, 12)] + plans()[2:]
    alone = list(make_evaluator(model).evaluate(asked))
    config = TrainConfig(epochs=2, learning_rate=1e-2, stacked=True)
    graph = trace(model, (torch.zeros(2, 4),))
    evaluator = TrainEvaluator(graph, model, make_dataset(), config, METRICS, batch_size=32, workers=workers)
    together = list(evaluator.evaluate(asked))
    assert len(together) == len(asked)
    by_plan = {outcome.plan: outcome for outcome in together}
    for one in alone:
        other = by_plan[one.plan]
        assert one.score is not None
        assert other.score is not None
        assert one.score.value("loss") == pytest.approx(other.score.value("loss"), rel=1e-3)


def test_a_repeated_training_scores_the_mean_and_counts_how_far_runs_lie_apart(model: nn.Module) -> None:
    evaluator, plan = make_evaluator(model, repeats=3), plans()[1]
    runs = []
    for repeat in range(3):
        seed = plan_seed(0, plan, repeat)
        own = evaluator.build(plan, repeat)
        result = train_model(
            own, evaluator.train_split, evaluator.validation, evaluator.config, batch_size=32, seed=seed
        )
        runs.append(score_model(result.model, evaluator.scored, evaluator.metrics))
    (outcome,) = evaluator.evaluate([plan])
    assert outcome.score is not None
    assert dict(outcome.details)["repeats"] == 3
    for name in METRICS:
        values = [run.value(name) for run in runs]
        assert len(set(values)) > 1, "runs of different seeds differ, or nothing is tested"
        found, first = outcome.score.measured(name), runs[0].measured(name)
        assert found.value == pytest.approx(statistics.mean(values), rel=1e-12)
        assert found.samples == first.samples
        apart = 4.302652729696 * statistics.stdev(values) / 3**0.5  # t at 97.5 %, 2 degrees of freedom
        below = statistics.mean(run.value(name) - run.measured(name).low for run in runs)
        assert found.low == pytest.approx(max(found.value - (below**2 + apart**2) ** 0.5, 0.0), rel=1e-9)
        assert found.high > found.value


def test_a_repeated_training_follows_from_its_plan_alone_and_its_first_is_the_only_one_of_no_repeats(
    model: nn.Module,
) -> None:
    alone = {o.plan: o.score for plan in plans() for o in make_evaluator(model, repeats=2).evaluate([plan])}
    together = {o.plan: o.score for o in make_evaluator(model, repeats=2, workers=2).evaluate(plans()[::-1])}
    assert alone == together
    assert plan_seed(3, plans()[0]) == plan_seed(3, plans()[0], 0) != plan_seed(3, plans()[0], 1)


def test_one_failed_training_fails_the_plan() -> None:
    good = (Score((("loss", Measured(1.0, 10, 0.5, 1.5)),)), None, ())
    score, failure, _ = combine([good, (None, "loss is nan", ())])
    assert score is None
    assert failure == "training 2 of 2: loss is nan"


def test_repeats_do_not_go_with_halving() -> None:
    with pytest.raises(ConfigError, match="repeats"):
        TrainConfig(repeats=2, halving=2)
