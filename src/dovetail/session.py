"""Everything that a configuration names, built on first use: data, model, graph, costs, space, problem."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dovetail.costs import COSTS, CostModel, measure_latency
from dovetail.data import Dataset, Split
from dovetail.errors import ConfigError, DovetailError, FormatError, unknown_name
from dovetail.evaluation import (
    CALIBRATION_SAMPLES,
    METRICS,
    CacheStatistics,
    Calibration,
    Outcome,
    PtqEvaluator,
    RacingEvaluator,
    ReferenceEvaluator,
    default_budget,
)
from dovetail.evaluation.racing import sample_sizes
from dovetail.evaluation.rounding_noise import NOISE_SAMPLES, rounding_noise
from dovetail.evaluation.sizing import place
from dovetail.evaluation.train_evaluator import TrainEvaluator, plan_seed
from dovetail.formats import Format, parse
from dovetail.graph import Graph, default_folder, trace
from dovetail.graph.source import code_digest
from dovetail.identity import config_keys, digest_model, digest_tensors, versions
from dovetail.loading import is_callable_name
from dovetail.models import load_model_and_data
from dovetail.objective import Constraint, Objective
from dovetail.plan import Plan
from dovetail.search.problem import Problem, RoundingNoise
from dovetail.search.run import BATCH, Evaluates
from dovetail.search.space import Decision, PrecisionRule, Rows, Space, WidthRule, build_space
from dovetail.settings import MetricConfig, RunConfig
from dovetail.study import DecisionRecord, StudyHeader
from dovetail.transforms import Inherit, Weights, apply, find_importance

__all__ = ["LATENCY", "Session"]

LATENCY = "latency_ms"
"""The one figure that is measured on the built model."""

_SIDE_BY_SIDE = 8  # plans asked for at once where small ones are trained together: few, as each batch is chosen blindly
_BULK = frozenset({"brute-force", "grid", "random", "qmc"})
"""Strategies that do not learn from what they are told, and so are asked for many plans at once."""

_EXAMPLE_BATCH = 2

_RACE_FIRST, _RACE_GROWTH = 256, 4
"""Samples of a race's first round, and how many times more each next one has."""

_SHARED = ("device", "_loaded", "graph", "own_model")
"""What a session of another configuration may share: it follows from the model and the data alone."""


class Session:
    """A configuration and all that follows from it.

    Args:
        config: the run.
        space: what to search, where it is not what the config's rules span.
        on_stage: told what is being done, in words, before anything that may take long.
    """

    def __init__(
        self, config: RunConfig, *, space: Space | None = None, on_stage: Callable[[str], None] = lambda stage: None
    ) -> None:
        self.config = config
        self._given_space = space
        self._on_stage = on_stage

    def with_config(self, config: RunConfig) -> Session:
        """A session of another configuration on the same model, data and graph."""
        other = Session(config, space=self._given_space, on_stage=self._on_stage)
        other.__dict__.update({name: self.__dict__[name] for name in _SHARED if name in self.__dict__})
        return other

    @cached_property
    def device(self) -> torch.device:
        """Where models run.

        Raises:
            ConfigError: There is no such device.
        """
        name = self.config.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"device: must be auto, cpu or a GPU that is there, got {name!r}: {reason}") from error
        return device

    @cached_property
    def _loaded(self) -> tuple[nn.Module, Dataset]:
        _ = self._weights  # a ranking that is not there is told first
        self._on_stage(f"loading {self.config.data.name or 'the data'}")
        return load_model_and_data(self.config)

    @property
    def model(self) -> nn.Module:
        """The model, in eval mode; read, never changed."""
        return self._loaded[0]

    @property
    def dataset(self) -> Dataset:
        """The data, split and scaled."""
        return self._loaded[1]

    @cached_property
    def split(self) -> Split:
        """The samples that candidates are scored on."""
        return self.dataset.split(self.config.evaluation.split).take(self.config.evaluation.samples)

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace the model with."""
        return tuple(tensor[:_EXAMPLE_BATCH] for tensor in self.split.inputs)

    @cached_property
    def graph(self) -> Graph:
        """The model as a graph."""
        model, example = self.model, self.example
        self._on_stage(f"tracing {self.config.model.name or type(model).__name__}")
        return trace(model, example, cache=default_folder())

    @cached_property
    def costs(self) -> CostModel:
        """The exact costs of every plan."""
        return CostModel(self.graph, self.config.evaluation.cost_batch)

    @cached_property
    def space(self) -> Space:
        """What is searched.

        Raises:
            ConfigError: A rule matches nothing, or a format is none; the message names the rule.
        """
        if self._given_space is not None:
            return self._given_space
        rules = self.config.space
        precision = [_precision_rule(index, rule) for index, rule in enumerate(rules.precision)]
        width = [
            WidthRule(
                groups=rule.groups,
                multipliers=tuple(Fraction(m) for m in rule.fractions),
                together=rule.together,
                round_to=rule.round_to,
                where=f"space.width[{index}]",
            )
            for index, rule in enumerate(rules.width)
        ]
        return build_space(self.graph, precision, width)

    @cached_property
    def metrics(self) -> Mapping[str, MetricConfig]:
        """What is sought, by name.

        Raises:
            ConfigError: None is named, or a name is unknown.
        """
        metrics = self.config.search.metrics
        if not metrics:
            raise ConfigError(
                'search.metrics: must name at least one metric, for instance accuracy = { direction = "maximize" }.'
            )
        for where, name in [("metrics", name) for name in metrics] + [("constraints", n) for n in self._limited]:
            if name not in COSTS and name not in METRICS and name != LATENCY:
                raise ConfigError(f"search.{where}: {unknown_name('metric', name, [*METRICS, *COSTS, LATENCY])}")
        for limit in self.config.search.limits:
            if limit.unit not in ("", _unit(limit.metric)):
                raise ConfigError(
                    f"search.constraints.{limit.metric}: must be a limit in {_unit(limit.metric) or 'bare numbers'}, "
                    f"got one in {limit.unit}: {self.config.search.constraints[limit.metric]!r}."
                )
        return metrics

    @property
    def _limited(self) -> list[str]:
        return [limit.metric for limit in self.config.search.limits]

    @property
    def names(self) -> list[str]:
        """Every figure that a trial is to have: those sought, then those limited."""
        return list(dict.fromkeys([*self.metrics, *self._limited]))

    @property
    def quality_names(self) -> list[str]:
        """Figures of task quality among them; accuracy where none is named."""
        return [name for name in self.names if name in METRICS] or ["accuracy"]

    @property
    def cost_names(self) -> list[str]:
        """Exact costs among them."""
        return [name for name in self.names if name in COSTS]

    @property
    def measures_latency(self) -> bool:
        """Whether every trial's latency is wanted."""
        return LATENCY in self.names

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What is sought, with directions and scales."""
        return tuple(self._objective(name, metric) for name, metric in self.metrics.items())

    def _objective(self, name: str, metric: MetricConfig) -> Objective:
        direction = metric.direction or (
            COSTS[name].direction if name in COSTS else "minimize" if name == LATENCY else METRICS[name].direction
        )
        search = self.config.search
        if search.direction is not None and search.objective == "weighted-sum":
            direction = search.direction  # the sum of scale x metric, taken literally, is made large or small
        return Objective(name=name, direction=direction, scale=metric.scale, is_cost=name in COSTS)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """Bounds on costs and quality."""
        return tuple(
            Constraint(metric=limit.metric, op=limit.op, limit=limit.value, is_cost=limit.metric in COSTS)
            for limit in self.config.search.limits
        )

    @cached_property
    def problem(self) -> Problem:
        """What the search asks."""
        return Problem(
            self.space,
            self.objectives,
            self.price,
            self.constraints,
            weighted_sum=self.config.search.objective == "weighted-sum",
            seed=self.config.search.seed,
            rounding_noise=lambda: self._rounding_noise,
        )

    @cached_property
    def _rounding_noise(self) -> RoundingNoise:
        """What each choice does to the tensors that it rounds; of candidates that are trained nobody knows before."""
        decisions = self.space.decisions
        wanted = {site: d.formats for d in decisions if d.kind == "precision" for site in d.sites}
        if self.config.evaluation.protocol == "train" or not wanted:
            return ()
        self._on_stage("rounding each tensor to each of its formats")
        few = place(self.dataset.train.take(NOISE_SAMPLES), self.own_model, self.device)
        by_site = rounding_noise(self.graph, self.own_model, few, self._calibration, wanted)
        return [_mean_by_choice([by_site[site] for site in d.sites]) for d in decisions]

    def price(self, rows: Rows) -> dict[str, NDArray[np.float64]]:
        """Every cost that the search names, of many rows at once."""
        return self.space.price(self.costs, rows, self.cost_names) if self.cost_names else {}

    @cached_property
    def own_model(self) -> nn.Module:
        """A copy of the model on the session's device."""
        return copy.deepcopy(self.model).to(self.device).eval()

    @cached_property
    def _calibration(self) -> Calibration:
        seen = place(self.dataset.train.take(CALIBRATION_SAMPLES), self.own_model, self.device)
        return Calibration(self.graph, self.own_model, seen, weights=self._weights, seed=self.config.search.seed)

    @cached_property
    def _weights(self) -> Weights:
        """Where the weights of resized candidates come from."""
        if self.config.evaluation.weights == "initialise":
            return "initialise"
        try:
            return Inherit(find_importance(self.config.evaluation.importance))
        except DovetailError as error:
            raise ConfigError(f"evaluation.{error}") from error

    def concrete(self, plan: Plan) -> Plan:
        """The plan with the range of every activation's format read off the training data."""
        return self._calibration.resolve(plan)

    def built(self, plan: Plan) -> nn.Module:
        """The model of a plan before any training, on the session's device, in eval mode."""
        seed = self.config.search.seed
        return apply(self.graph, self.own_model, self.concrete(plan), weights=self._weights, seed=seed).eval()

    def trained(self, plan: Plan) -> nn.Module:
        """The model of a plan as it was scored: trained where the protocol trains."""
        if isinstance(self._scorer, TrainEvaluator):
            return self._scorer.train(plan).model
        return self.built(plan)

    @cached_property
    def _scorer(self) -> PtqEvaluator | ReferenceEvaluator | TrainEvaluator | RacingEvaluator:
        evaluation = self.config.evaluation
        self._on_stage(f"preparing {len(self.split):,} samples of the {evaluation.split} split")
        if evaluation.protocol == "train":
            if evaluation.racing_confidence is not None:
                raise ConfigError(
                    'evaluation.racing_confidence: needs protocol = "ptq"; train.halving stops training early.'
                )
            return TrainEvaluator(
                self.graph,
                self.model,
                self.dataset,
                self.config.train,
                self.quality_names,
                split=evaluation.split,
                samples=evaluation.samples,
                batch_size=self.config.data.batch_size,
                weights=self._weights,
                seed=self.config.search.seed,
                device=self.device,
                workers=self.config.workers,
            )
        if evaluation.racing_confidence is None:
            return self._ptq(len(self.split), self._memory_budget)
        sizes = sample_sizes(len(self.split), _RACE_FIRST, _RACE_GROWTH)
        return RacingEvaluator(
            lambda samples: self._ptq(samples, self._memory_budget // len(sizes)),
            len(self.split),
            self._signed_costs,
            confidence=evaluation.racing_confidence,
            first=_RACE_FIRST,
            growth=_RACE_GROWTH,
        )

    @property
    def _memory_budget(self) -> int:
        memory = self.config.evaluation.memory_bytes
        return default_budget(self.device) if memory is None else memory

    def _ptq(self, samples: int, memory_budget: int) -> PtqEvaluator | ReferenceEvaluator:
        """What scores plans without training on the first so many samples; by the model's own code where its graph is
        no more than the record of a run."""
        seed = self.config.search.seed
        split, calibration = self.split.take(samples), self.dataset.train
        if not self.graph.is_replayable:
            return ReferenceEvaluator(
                self.graph,
                self.model,
                split,
                self.quality_names,
                device=self.device,
                weights=self._weights,
                seed=seed,
                calibration=calibration,
            )
        return PtqEvaluator(
            self.graph,
            self.model,
            split,
            self.quality_names,
            device=self.device,
            memory_budget=memory_budget,
            weights=self._weights,
            seed=seed,
            calibration=calibration,
        )

    def _signed_costs(self, plans: Sequence[Plan]) -> NDArray[np.float64]:
        """Cost objectives of plans [plans, costs], those to be maximised negated."""
        costs = [o for o in self.objectives if o.is_cost]
        prices = [self.costs.price(plan, [o.name for o in costs]) for plan in plans]
        return np.array([[-o.sign * price[o.name].value for o in costs] for price in prices]).reshape(len(plans), -1)

    @property
    def evaluator(self) -> Evaluates:
        """What scores plans, results as they come."""
        return _AsTheyCome(self._scorer) if isinstance(self._scorer, PtqEvaluator) else self._scorer

    @property
    def cache(self) -> CacheStatistics | None:
        """What the memory of values that plans share did so far; None where there is none."""
        return self._scorer.statistics if isinstance(self._scorer, PtqEvaluator) else None

    @property
    def batch(self) -> int:
        """Plans asked for at once: many of a strategy that does not learn, else as many as train side by side."""
        if self.config.search.strategy in _BULK:
            return BATCH
        if self.config.evaluation.protocol != "train":
            return 1
        return max(self.config.workers, _SIDE_BY_SIDE if self.config.train.stacked else 1)

    def seed_of(self, plan: Plan) -> int:
        """What a plan's evaluation draws from: the search's seed, and where it is trained the plan."""
        seed = self.config.search.seed
        return plan_seed(seed, plan) if self.config.evaluation.protocol == "train" else seed

    def measure(self, plan: Plan) -> tuple[tuple[str, float], ...]:
        """Latency of a plan's model on a batch of `evaluation.cost_batch` samples."""
        batch = self.config.evaluation.cost_batch
        chosen = torch.arange(batch) % len(self.split)  # samples come again where there are fewer
        inputs = tuple(tensor[chosen].to(self.device) for tensor in self.split.inputs)
        found = measure_latency(self.built(plan), inputs)
        return (
            (LATENCY, found.median_ms),
            ("latency_p95_ms", found.p95_ms),
            ("latency_std_ms", found.std_ms),
        )

    @cached_property
    def header(self) -> StudyHeader:
        """What is true of the whole search."""
        return StudyHeader(
            decisions=tuple(
                _decision_record(decision, dict(self.space.base_widths)) for decision in self.space.decisions
            ),
            objectives=self.objectives,
            constraints=self.constraints,
            weighted_sum=self.config.search.objective == "weighted-sum",
            seed=self.config.search.seed,
            identity=self.identity,
            versions=versions(),
            unpriced=tuple((name, self.costs.unpriced(name)) for name in self.cost_names),
            units=tuple((name, COSTS[name].unit) for name in self.cost_names),
            created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )

    @cached_property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """(dotted key, value) of everything that the trials follow from: config, weights, samples and space."""
        keys = config_keys(self.config)
        keys["search.batch"] = str(self.batch)  # what a strategy that learns has been told when it is asked
        keys["model.weights"] = digest_model(self.model)
        if isinstance(self._weights, Inherit) and is_callable_name(self.config.evaluation.importance):
            keys["evaluation.importance.code"] = code_digest(self._weights.importance)
        keys["data.samples"] = digest_tensors([*self.split.inputs, self.split.targets])
        decisions = [(d.name, d.labels) for d in self.space.decisions]
        keys["space.decisions"] = hashlib.sha256(repr(decisions).encode()).hexdigest()[:16]
        return tuple(sorted(keys.items()))


@dataclasses.dataclass(frozen=True, slots=True)
class _AsTheyCome:
    """An evaluator's outcomes in the order in which they come, so that none waits unrecorded for another."""

    scorer: PtqEvaluator

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        return (outcome for _, outcome in self.scorer.evaluate_tagged(plans))


def _mean_by_choice(sites: Sequence[tuple[float, ...] | None]) -> list[float] | None:
    """The mean over sites of what each choice does to them; None where it is not known of one, or there is none."""
    known = [ratios for ratios in sites if ratios is not None]
    return np.mean(known, axis=0).tolist() if known and len(known) == len(sites) else None


def _unit(metric: str) -> str:
    """The unit of a figure's value."""
    if metric == LATENCY:
        return "ms"
    return COSTS[metric].unit if metric in COSTS else METRICS[metric].unit


def _precision_rule(index: int, rule: Any) -> PrecisionRule:
    where = f"space.precision[{index}]"

    def read(kind: str) -> tuple[Format, ...]:
        formats = []
        for position, text in enumerate(getattr(rule, kind)):
            try:
                formats.append(parse(text))
            except FormatError as error:
                raise ConfigError(f"{where}.{kind}[{position}]: {error}") from error
        return tuple(formats)

    return PrecisionRule(
        operations=rule.operations,
        data_in=read("data_in"),
        weight=read("weight"),
        bias=read("bias"),
        together=rule.together,
        where=where,
    )


def _decision_record(decision: Decision, base: Mapping[str, int]) -> DecisionRecord:
    """A decision as text; what leaves the model as it is has no effect to name."""
    effects: Sequence[tuple[tuple[str, str | int], ...]]
    if decision.kind == "precision":
        effects = [tuple((str(site), str(fmt)) for site in decision.sites) for fmt in decision.formats]
    else:
        effects = [
            tuple((group, width) for group, width in zip(decision.groups, widths, strict=True) if width != base[group])
            for widths in decision.widths
        ]
    return DecisionRecord(name=decision.name, kind=decision.kind, labels=decision.labels, effects=tuple(effects))
