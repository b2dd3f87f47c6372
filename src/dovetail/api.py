"""What the commands do, for Python: every run that a TOML file can state, these functions can state with objects.

config = RunConfig(
    model=ModelConfig(module=my_module),
    data=DataConfig(dataset=my_dataset),
    space=SpaceConfig(precision=(PrecisionRule(operations="linear", weight=("fixed(8,4)", "fixed(4,2)")),)),
    search=SearchConfig(metrics={"accuracy": MetricConfig(), "average_bitwidth": MetricConfig()}),
)
result = search(config, out="runs/mine")
print(result.best.top.plan.to_toml())
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dovetail.config import load_config, to_toml
from dovetail.costs import COSTS, Cost
from dovetail.errors import CheckpointError, ConfigError, EvaluationError
from dovetail.evaluation import CacheStatistics, MetricSet, Outcome, Score
from dovetail.evaluation.sizing import place
from dovetail.evaluation.train_evaluator import score_model
from dovetail.evaluation.training import EpochReport, TrainResult, check_outputs, train_model
from dovetail.models import load_checkpoint, save_checkpoint
from dovetail.plan import Plan
from dovetail.plan_file import read_plan
from dovetail.record import Trial
from dovetail.report import RunFiles, format_duration, write_atomically, write_results
from dovetail.runs import continue_run
from dovetail.search.best import Best, find_best, find_front
from dovetail.search.certificate import Certificate, certify, count_wanted
from dovetail.search.feasible import achievable, find_feasible
from dovetail.search.problem import Problem
from dovetail.search.run import Progress, SearchRun, run_search
from dovetail.search.space import Space
from dovetail.search.strategies import check_strategy, make_strategy
from dovetail.session import Session
from dovetail.settings import RunConfig
from dovetail.study import BatchWriter, StudyHeader

__all__ = ["SearchResult", "Trained", "Transformed", "load", "search", "train", "transform"]

DEFAULT_TRIALS = 100
"""Trials of a strategy that could go on for ever, where the config says nothing."""

_BYTES_PER_TRIAL = 400  # of the study's file, a plan's bits per sample apart


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found, and where it is written.

    Args:
        files: the run's folder.
        header: objectives, decisions, versions.
        run: the trials, and why the search ended.
        best: the top trial and the cheapest that is not significantly worse; None where none keeps the constraints.
        front: the Pareto front.
        certificate: how much of the space was evaluated.
        cache: what the memory of shared values did; None where plans are trained, raced or run by the model's own code.
    """

    files: RunFiles
    header: StudyHeader
    run: SearchRun
    best: Best | None
    front: tuple[Trial, ...]
    certificate: Certificate
    cache: CacheStatistics | None


def search(
    config: RunConfig,
    *,
    space: Space | None = None,
    out: str | Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_forecast: Callable[[str], None] = lambda text: None,
    on_start: Callable[[Session, int, int | None], None] = lambda session, known, total: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> SearchResult:
    """Search, keep every trial, and write the results.

    A folder that holds trials of the same search is gone on with, and no trial is repeated. Ctrl-C ends the search as
    a budget does, with
    everything evaluated kept.

    Args:
        config: the run; `model.module` and `data.dataset` take Python objects.
        space: what to search; None: what the config's rules span.
        out: the run's folder; None: the config's, or `runs/search`.
        on_stage: told what is being done, in words.
        on_forecast: told before the first trial how many there are to be, and what they will take on disk.
        on_start: told the session, how many trials are known already, and how many there are to be in the end, where
            that is known.
        on_progress: told after each new trial.

    Raises:
        ConfigError: The config is not valid, or the folder holds a search of another one; the message names the
        differing key.
        StudyError: The folder or the storage cannot be written. What was stored stays; the same call goes on from
        there.
        DataError, CheckpointError, TraceError: As the parts say.
    """
    check_strategy(config.search.strategy)
    session = Session(config, space=space, on_stage=on_stage)
    problem = session.problem
    budget = config.search.trials
    if budget is None and config.search.strategy != "brute-force":
        budget = DEFAULT_TRIALS
    strategy = make_strategy(config.search.strategy, problem, budget)  # what it cannot do is told before any writing
    wanted = count_wanted(problem)
    _check_feasible(problem, wanted)
    files = RunFiles(Path(out or config.out or "runs/search"))
    study = continue_run(files, session.header, storage=config.storage, config_text=to_toml(config))
    with study:
        known = study.trials()
        total = min((n for n in (budget, wanted) if n is not None), default=None)
        evaluator = session.evaluator
        on_forecast(_forecast(session, total, len(known)))
        on_start(session, len(known), total)
        with BatchWriter(study.append) as writer:
            run = run_search(
                problem,
                strategy,
                evaluator,
                trials=budget,
                timeout_s=config.search.timeout_s,
                known=known,
                store=writer.put,
                measure=session.measure if session.measures_latency else None,
                seed_of=session.seed_of,
                batch=session.batch,
                total=total,
                on_progress=on_progress,
            )
        header = study.header
    best = find_best(run.trials, header.objectives, header.constraints, summed=header.weighted_sum)
    write_results(files, header, run.trials, best)
    if best is not None:
        _save_best_model(session, best, files, on_stage)
    front = tuple(find_front(run.trials, header.objectives, header.constraints))
    return SearchResult(
        files=files,
        header=header,
        run=run,
        best=best,
        front=front,
        certificate=certify(problem, run.trials, wanted),
        cache=session.cache,
    )


def _save_best_model(session: Session, best: Best, files: RunFiles, on_stage: Callable[[str], None]) -> None:
    """Write the best plan's model, which may have to be trained again; Ctrl-C leaves that out, and nothing else."""
    on_stage("saving the best model")
    try:
        save_checkpoint(session.trained(best.cheapest.plan), files.best_model)
    except KeyboardInterrupt:
        on_stage("the best model is not saved: the same command does it later")


def _check_feasible(problem: Problem, wanted: int | None) -> None:
    """Require that some plan keeps the constraints on costs; where none does, say what is achievable."""
    if wanted == 0 or (wanted is None and find_feasible(problem) is None):
        best = "; ".join(str(found) for found in achievable(problem))
        raise ConfigError(f"search.constraints: no plan of the space keeps them. Of each alone, {best}.")


def _forecast(session: Session, total: int | None, known: int) -> str:
    """What a search is going to be, in words."""
    space = session.space
    size = f"a space of {space.size:,} plans"
    if total is None:
        return f"{size}, {known:,} evaluated already"
    bits = len(session.split) / 8
    mebibytes = total * (_BYTES_PER_TRIAL + 12 * len(space.decisions) + bits) / 2**20
    already = f", {known:,} of them evaluated already" if known else ""
    return (
        f"{size}; {total:,} trials in all{already}; their records take about {mebibytes:.1f} MiB"
        f"{_forecast_evaluation(session, max(total - known, 0))}"
    )


def _forecast_evaluation(session: Session, trials: int) -> str:
    """What evaluating plans is going to take at most, judged by the model as it is; nothing where they are trained."""
    if session.cache is None:
        return ""
    (outcome,) = session.evaluator.evaluate([Plan()])
    limit = session.cache.budget / 2**20
    longest = format_duration(trials * outcome.duration_s)
    return (
        f"; one pass over the {len(session.split):,} samples took {format_duration(outcome.duration_s)}, so about "
        f"{longest} if nothing were shared; shared values are kept in at most {limit:,.0f} MiB"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained base model.

    Args:
        model: the model.
        result: its training, epoch by epoch.
        scores: (split, score) of the validation and the test split.
        checkpoint: where its weights are.
    """

    model: nn.Module
    result: TrainResult
    scores: tuple[tuple[str, Score], ...]
    checkpoint: Path


def train(
    config: RunConfig,
    *,
    out: str | Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
) -> Trained:
    """Train the base model and write its weights and scores.

    Args:
        config: the run; training starts from initial weights, `model.checkpoint` names where the trained ones go.
        out: a folder for `model.safetensors` instead.

    Raises:
        ConfigError, DataError: As the parts say; the model does not fit the data.
        EvaluationError: The loss became NaN.
        CheckpointError: The weights cannot be written.
    """
    if config.model.checkpoint is not None and config.model.module is None:
        initial = dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint=None))
    else:
        initial = config
    session = Session(initial, on_stage=on_stage)
    checkpoint = _checkpoint_path(config, out)
    device, dataset = session.device, session.dataset
    check_outputs(session.own_model, place(dataset.train, session.own_model, device))
    on_stage(f"training {config.model.name or type(session.model).__name__} on {len(dataset.train):,} samples")
    result = train_model(
        session.own_model,
        place(dataset.train, session.own_model, device),
        place(dataset.validation, session.own_model, device),
        config.train,
        batch_size=config.data.batch_size,
        seed=config.train.seed,
        progress=on_epoch,
    )
    scores = tuple((name, _score(session, result.model, name)) for name in ("validation", "test"))
    save_checkpoint(result.model, checkpoint)
    with write_atomically(checkpoint.with_suffix(".json")) as file:
        json.dump({name: score.to_dict()["metrics"] for name, score in scores}, file, indent=1)
    return Trained(model=result.model, result=result, scores=scores, checkpoint=checkpoint)


def _checkpoint_path(config: RunConfig, out: str | Path | None) -> Path:
    if out is None and config.model.checkpoint is not None:
        path = Path(config.model.checkpoint)
        if path.suffix != ".safetensors":
            raise ConfigError(
                f"model.checkpoint: must end in .safetensors to be written, got {str(path)!r}; or give --out."
            )
        return path
    return Path(out or config.out or "runs/train") / "model.safetensors"


def _score(session: Session, model: nn.Module, split_name: str) -> Score:
    """Accuracy and loss of a built model on a whole split."""
    split = place(session.dataset.split(split_name), model, session.device)
    return score_model(model, split, MetricSet(("accuracy", "loss"), split.targets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformed:
    """A plan applied.

    Args:
        plan: the plan.
        model: the resized and quantised model, trained where the protocol trains.
        before: costs of the model as it is.
        after: costs under the plan.
        base: score of the model as it is.
        outcome: score under the plan, or why there is none.
        weights: where the new model's weights are.
    """

    plan: Plan
    model: nn.Module
    before: dict[str, Cost]
    after: dict[str, Cost]
    base: Outcome
    outcome: Outcome
    weights: Path


def transform(
    config: RunConfig,
    plan: Plan,
    *,
    out: str | Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Transformed:
    """Apply one plan: build its model, price and score it beside the model as it is, and save it.

    Args:
        config: the run; its space is not looked at.
        plan: formats and widths.
        out: the folder for `model.safetensors` and `plan.toml`; None: the config's, or `runs/transform`.

    Raises:
        PlanError: The plan does not fit the model.
        EvaluationError: The model of the plan cannot be scored.
    """
    session = Session(config, on_stage=on_stage)
    session.graph.check(plan)
    before, after = session.costs.price(Plan(), list(COSTS)), session.costs.price(plan, list(COSTS))
    base, outcome = _outcomes(session, plan)
    if outcome.failure is not None:
        raise EvaluationError(f"the plan's model could not be scored: {outcome.failure}")
    model = session.trained(plan)
    files = RunFiles(Path(out or config.out or "runs/transform"))
    weights = files.folder / "model.safetensors"
    save_checkpoint(model, weights)
    with write_atomically(files.folder / "plan.toml") as file:
        file.write(plan.to_toml())
    with write_atomically(files.config) as file:
        file.write(to_toml(config))
    return Transformed(plan=plan, model=model, before=before, after=after, base=base, outcome=outcome, weights=weights)


def _outcomes(session: Session, plan: Plan) -> tuple[Outcome, Outcome]:
    """Of the model as it is, without training, and of the plan."""
    as_is = dataclasses.replace(
        session.config, evaluation=dataclasses.replace(session.config.evaluation, protocol="ptq")
    )
    base_session = session if session.config.evaluation.protocol == "ptq" else session.with_config(as_is)
    (base,) = base_session.evaluator.evaluate([Plan()])
    (outcome,) = session.evaluator.evaluate([plan])
    return base, outcome


def load(folder: str | Path, *, config: RunConfig | None = None) -> nn.Module:
    """The model that a search or `dovetail transform` left in its folder: resized, quantised, with its weights.

    Args:
        folder: the run's folder.
        config: the run, where it had Python objects, which no file can hold; None: the folder's own.

    Raises:
        ConfigError: There is no run.
        CheckpointError: The weights are missing, or of another plan.
    """
    files = RunFiles(Path(folder))
    pairs = ((files.best_plan, files.best_model), (files.folder / "plan.toml", files.folder / "model.safetensors"))
    found = next(((p, w) for p, w in pairs if p.is_file() and w.is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder}: must be the folder of a search or of a transform that has ended.")
    session = Session(load_config(files.config) if config is None else config)
    model = session.built(read_plan(found[0]))
    load_checkpoint(model, found[1])
    return model
