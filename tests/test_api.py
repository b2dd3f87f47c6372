from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from dovetail import api
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
from dovetail.errors import ConfigError
from dovetail.formats import parse
from dovetail.record import Trial
from dovetail.search import Space
from dovetail.search.tabulated import tabulate
from dovetail.session import Session


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are cached where the tests can see them, and not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOVETAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def points() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    return torch.randn(240, 4, generator=generator) + 1.5 * torch.eye(4)[y], y


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def config(strategy: str = "brute-force", trials: int | None = None, **changed: object) -> RunConfig:
    """A run of Python objects: two decisions of precision and one of width."""
    return RunConfig(
        model=ModelConfig(module=changed.get("module", network())),
        data=DataConfig(dataset=points()),
        space=SpaceConfig(
            precision=(PrecisionRule(operations="linear", weight=("fixed(8,6)", "fixed(3,2)")),),
            width=(WidthRule(groups="0", multipliers=(1, 2)),),
        ),
        search=SearchConfig(
            strategy=strategy,
            trials=trials,
            metrics={"accuracy": MetricConfig(), "loss": MetricConfig(), "model_bytes": MetricConfig(scale=0.001)},
        ),
    )


def facts(trials: tuple[Trial, ...]) -> dict[tuple[int, ...], tuple[object, ...]]:
    """What must not depend on when or beside what a trial ran, by row."""
    return {t.row: (t.plan, t.state, t.costs, t.score, t.seed) for t in trials}


def test_the_same_trials_come_whatever_ran_before_and_in_whatever_order(tmp_path: Path) -> None:
    whole = facts(api.search(config(), out=tmp_path / "whole").run.trials)
    assert len(whole) == 8
    for strategy in ("random", "pareto"):
        part = facts(api.search(config(strategy, 6), out=tmp_path / strategy).run.trials)
        assert len(part) == 6
        assert part == {row: whole[row] for row in part}
    assert facts(api.search(config(), out=tmp_path / "again").run.trials) == whole


def test_the_users_model_is_bit_identical_after_a_search(tmp_path: Path) -> None:
    module = network().train()
    before = copy.deepcopy(module.state_dict())
    api.search(config(module=module), out=tmp_path / "run")
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_searchs_random_numbers_are_its_own(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    api.search(config("random", 3), out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trials_answers_are_those_of_plain_pytorch_to_the_last_sample(tmp_path: Path) -> None:
    module = network()
    result = api.search(config(module=module), out=tmp_path / "run")
    trial = next(
        t
        for t in result.run.trials
        if dict(t.choices) == {"0:weight": "fixed(3,2)", "2:weight": "fixed(8,6)", "0:width": "x1"}
    )
    split = Session(config(module=module)).split

    def rounded(weight: torch.Tensor, width: int, frac_width: int) -> torch.Tensor:
        scale, limit = 2.0**frac_width, 2 ** (width - 1)
        return torch.clamp(torch.round(weight * scale), -limit, limit - 1) / scale

    first, _, last = module
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        hidden = torch.relu(split.inputs[0] @ rounded(first.weight, 3, 2).T + first.bias)
        outputs = hidden @ rounded(last.weight, 8, 6).T + last.bias
    assert trial.score is not None
    mask = trial.score.correct_mask
    assert mask is not None
    assert mask.tolist() == (outputs.argmax(1) == split.targets).tolist()


def test_a_space_of_the_users_own_is_searched(tmp_path: Path) -> None:
    whole = Session(config()).space
    one = Space(whole.decisions[:1], whole.base_widths)
    result = api.search(config(), space=one, out=tmp_path / "run")
    assert [t.row for t in result.run.trials] == [(0,), (1,)]


def test_a_run_of_objects_is_loaded_with_its_objects(tmp_path: Path) -> None:
    result = api.search(config(), out=tmp_path / "run")
    assert result.best is not None
    model = api.load(tmp_path / "run", config=config())
    split = Session(config()).split
    with torch.no_grad():
        right = (model(*split.inputs).argmax(1) == split.targets).double().mean().item()
    assert right == result.best.cheapest.value("accuracy")


def test_a_folder_that_searched_another_model_is_refused(tmp_path: Path) -> None:
    api.search(config(), out=tmp_path / "run")
    other = network()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ConfigError, match=r"model\.weights is"):
        api.search(config(module=other), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("direction", "expected"), [(None, 1.0 * 0.7 - 0.5 * 2.0), ("maximize", 0.7 + 1.0), ("minimize", -(0.7 + 1.0))]
)
def test_a_weighted_sum_goes_the_way_it_is_told(direction: str | None, expected: float) -> None:
    search = SearchConfig(
        objective="weighted-sum",
        direction=direction,  # type: ignore[arg-type]
        metrics={"accuracy": MetricConfig(scale=1.0), "loss": MetricConfig(scale=0.5)},
    )
    session = Session(RunConfig(model=ModelConfig(module=network()), data=DataConfig(dataset=points()), search=search))
    values = {"accuracy": 0.7, "loss": 2.0}
    assert sum(o.sign * o.scale * values[o.name] for o in session.objectives) == pytest.approx(expected)


def test_a_race_says_on_how_many_samples_each_trial_stands(tmp_path: Path) -> None:
    racing = dataclasses.replace(
        config(),
        evaluation=EvaluationConfig(split="train", racing_confidence=0.9),
        data=DataConfig(dataset=points(), validation_fraction=0.1, test_fraction=0.1),
    )
    whole = Session(racing).split
    result = api.search(racing, out=tmp_path / "run")
    scores = [t.score for t in result.run.trials if t.score is not None]
    assert len(scores) == 8
    assert all(score.samples <= len(whole) for score in scores)
    assert any(score.samples == len(whole) for score in scores)


def test_a_race_of_trained_candidates_is_refused(tmp_path: Path) -> None:
    racing = dataclasses.replace(config(), evaluation=EvaluationConfig(protocol="train", racing_confidence=0.9))
    with pytest.raises(ConfigError, match=r"evaluation\.racing_confidence: needs protocol"):
        api.search(racing, out=tmp_path / "run")


def test_an_infeasible_budget_is_answered_with_the_best_achievable_before_any_evaluation(tmp_path: Path) -> None:
    run = config()
    search = dataclasses.replace(run.search, constraints={"model_bytes": "<= 10"})
    with pytest.raises(ConfigError, match=r"model_bytes <= 10: the best achievable is 51.75"):  # 42 x 3 + 9 x 32 bits
        api.search(dataclasses.replace(run, search=search), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sum_with_a_direction_takes_each_metric_as_it_stands() -> None:
    run = config()
    search = dataclasses.replace(run.search, objective="weighted-sum", direction="maximize")
    objectives = Session(dataclasses.replace(run, search=search)).objectives
    assert [(o.name, o.direction, o.scale) for o in objectives] == [
        ("accuracy", "maximize", 1.0),
        ("loss", "maximize", 1.0),
        ("model_bytes", "maximize", 0.001),
    ]


def test_a_strategy_that_is_none_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(ConfigError, match="Did you mean 'pareto'"):
        api.search(config("paretto"), out=tmp_path / "run", on_stage=stages.append)
    assert stages == []
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_the_best_model_is_saved_loses_that_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "trained", interrupted)
        stopped = api.search(config(), out=tmp_path)
    assert stopped.best is not None
    assert stopped.files.trials.exists()
    assert not stopped.files.best_model.exists()
    again = api.search(config(), out=tmp_path)
    assert again.run.new == 0
    assert again.files.best_model.exists()


def test_what_rounding_does_is_known_where_nothing_is_trained_and_shared_by_the_table_of_an_exhausted_search(
    tmp_path: Path,
) -> None:
    together = SpaceConfig(
        precision=(PrecisionRule(operations="linear", weight=("fixed(8,6)", "fixed(3,2)"), together=True),),
        width=(WidthRule(groups="0", multipliers=(1, 2)),),
    )
    session = Session(dataclasses.replace(config(), space=together))
    formats, width = session.problem.rounding_noise()
    assert width is None
    assert formats is not None
    model = session.model
    for ratio, fmt in zip(formats, map(parse, ("fixed(8,6)", "fixed(3,2)")), strict=True):
        weights = [model[0].weight.detach(), model[2].weight.detach()]
        lost = [float((fmt.quantise(w) - w).square().sum() / w.square().sum()) for w in weights]
        assert ratio == pytest.approx(sum(lost) / 2, rel=1e-3)
    trials = api.search(dataclasses.replace(config(), space=together), out=tmp_path).run.trials
    assert tabulate(session.problem, trials).problem(seed=3).rounding_noise() == session.problem.rounding_noise()
    trained = dataclasses.replace(config(), evaluation=EvaluationConfig(protocol="train"))
    assert not Session(trained).problem.rounding_noise()


def test_small_candidates_that_are_trained_together_are_asked_for_together() -> None:
    asked = {}
    for stacked in (False, True):
        run = dataclasses.replace(
            config("pareto"),
            evaluation=EvaluationConfig(protocol="train"),
            train=TrainConfig(stacked=stacked),
        )
        asked[stacked] = Session(run).batch
    assert asked == {False: run.workers, True: max(run.workers, 8)}


def test_a_group_that_shrinks_keeps_what_the_ranking_of_the_configuration_finds_important(tmp_path: Path) -> None:
    ranking = tmp_path / "ranking.py"
    ranking.write_text("import numpy as np\ndef last(parts, width, generator):\n    return np.arange(width)\n")

    def by(importance: str) -> RunConfig:
        return dataclasses.replace(
            config(),
            space=SpaceConfig(width=(WidthRule(groups="0", multipliers=("1/2", 1)),)),
            evaluation=EvaluationConfig(importance=importance),
        )

    module = network()
    last = Session(dataclasses.replace(by(f"{ranking}:last"), model=ModelConfig(module=module)))
    kept = last.built(last.space.plan((0,)))
    assert torch.equal(kept[0].weight, module[0].weight[-3:])
    scores = {name: api.search(by(name), out=tmp_path / name[:2]).run.trials[0].score for name in ("l1", "random")}
    assert scores["l1"] != scores["random"]

    before = dict(last.identity)
    ranking.write_text(ranking.read_text().replace("np.arange(width)", "-np.arange(width)"))
    after = dict(Session(dataclasses.replace(by(f"{ranking}:last"), model=ModelConfig(module=module))).identity)
    assert {key for key in before if before[key] != after[key]} == {"evaluation.importance.code"}


@pytest.mark.parametrize(
    ("importance", "told"),
    [("l3", "evaluation.importance: unknown ranking 'l3'"), ("nowhere.py:last", "evaluation.importance: nowhere.py")],
)
def test_a_ranking_that_is_none_is_told_before_the_model_is_loaded(tmp_path: Path, importance: str, told: str) -> None:
    wrong = dataclasses.replace(
        config(), evaluation=EvaluationConfig(importance=importance), model=ModelConfig(name="nowhere.models:build")
    )
    with pytest.raises(ConfigError, match=told):
        api.search(wrong, out=tmp_path / "run")
