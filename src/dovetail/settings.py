"""What a run is told, as frozen values; every default stands here and nowhere else.

A TOML file is decoded into these (`load_config`); Python code builds them directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from dovetail.errors import ConfigError
from dovetail.quantities import Limit, parse_bytes, parse_duration_s, parse_limit

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "MetricConfig",
    "ModelConfig",
    "PrecisionRule",
    "RunConfig",
    "SearchConfig",
    "SpaceConfig",
    "TrainConfig",
    "WidthRule",
]

PYTHON_ONLY = {"toml": False}  # a field that takes a Python object; a TOML file cannot give it and none is written


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network.

    Args:
        name: A built-in model, `"package.module:callable"` or `"file.py:callable"`.
        args: Keyword arguments of the built-in or callable.
        checkpoint: Weights to start from (.safetensors, .pt, .ckpt); None leaves them as they are initialised.
        seed: Seed of the initial weights.
        module: Python only: an `nn.Module`, used as it is, or a callable that builds one from `args`.
    """

    name: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    seed: int = 0
    module: Any = field(default=None, metadata=PYTHON_ONLY, compare=False)

    def __post_init__(self) -> None:
        _require(bool(self.name) or self.module is not None, "name", "must name a model", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which data, and how it is split.

    Args:
        name: A built-in data set, a .npz, .csv, .parquet or .h5 file, or `"package.module:callable"`.
        args: Keyword arguments of the built-in or callable.
        batch_size: Samples per step of training.
        seed: Seed of the splits.
        validation_fraction: Share of the training data that becomes the validation split where the data brings none.
        test_fraction: Share of all data that becomes the test split where the data brings none.
        standardise: Shift and scale each feature to mean 0 and deviation 1, fitted on the training split.
            None: yes for tables of features, no for images.
        dtype: What samples are: "float32", or "int64" for indices such as token ids, which are left as they are.
        target: Column (.csv, .parquet) or array (.h5) that holds the labels; None: `y`, `label`, `target` or `class`.
        dataset: Python only: a `dovetail.data.Dataset`, used as it is, or a callable that builds one from `args`.
    """

    name: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 512
    seed: int = 0
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    standardise: bool | None = None
    dtype: Literal["float32", "int64"] = "float32"
    target: str | None = None
    dataset: Any = field(default=None, metadata=PYTHON_ONLY, compare=False)

    def __post_init__(self) -> None:
        _require(bool(self.name) or self.dataset is not None, "name", "must name a data set or a file", self.name)
        _at_least(self, 1, "batch_size")
        for key in ("validation_fraction", "test_fraction"):
            value = getattr(self, key)
            _require(0 < value < 1, key, "must lie between 0 and 1", value)
        whole = "must be 'float32', or standardise false: indices have no mean"
        _require(self.dtype == "float32" or not self.standardise, "dtype", whole, self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a network is trained: the base model by `dovetail train`, each candidate under `protocol = "train"`.

    Args:
        epochs: Passes over the training split.
        optimizer: `adamw`, `adam`, `sgd` or `rmsprop`.
        learning_rate: At the start of training.
        weight_decay: The optimizer's own.
        momentum: Of `sgd` and `rmsprop`.
        schedule: `constant`, or `cosine` from `learning_rate` down to 0 over all steps.
        patience: Stop after this many epochs without a better validation loss; None: never early.
        halving: Successive halving: keep one candidate in so many at each rung, that is after 1, `halving`,
            `halving`**2, ... epochs; None: every candidate trains for all epochs.
        stacked: Train small candidates side by side where the model allows it: faster, and equal to one by one to float
            rounding, so that a score may differ by a sample with the plans that are evaluated together.
        repeats: Train each candidate so many times, from seeds of their own; its score is the mean, and its interval
            counts how far the runs lie apart. Not together with `halving`.
        seed: Seed of the base model's training; a candidate's follows from `search.seed` and its plan.
    """

    epochs: int = 10
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: Literal["constant", "cosine"] = "constant"
    patience: int | None = None
    halving: int | None = None
    stacked: bool = False
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "patience", "repeats")
        _require(
            self.repeats == 1 or self.halving is None,
            "repeats",
            "must be 1 where halving is set, which stops some runs of a candidate before others",
            self.repeats,
        )
        _at_least(self, 2, "halving")
        _at_least(self, 0.0, "weight_decay", "momentum")
        _require(0 < self.learning_rate < float("inf"), "learning_rate", "must be > 0", self.learning_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a candidate is scored.

    Args:
        protocol: `ptq`: quantise and evaluate; `train`: resize, train (quantisation-aware where quantised), evaluate.
        split: `validation`, `test` or `train`.
        samples: The first so many of the split; None: all of it.
        weights: Where a resized candidate's weights come from: `inherit` the model's, or `initialise` anew.
        importance: Which channels a group that shrinks keeps, where weights are inherited: those that this ranking
            finds most important. `l1`, `l2`, `bn_scale`, `random`, an installed package's, or a callable as
            `"module:callable"` or `"file.py:callable"`.
        memory: Bound on the evaluation's cache, such as `"2 GiB"`; None: a quarter of the free memory.
        racing_confidence: Stop candidates that cannot reach the front any more at this confidence; None: off.
        cost_batch: Batch size for which costs that count a batch (MACs, FLOPs, activations, latency) are stated.
    """

    protocol: Literal["ptq", "train"] = "ptq"
    split: Literal["train", "validation", "test"] = "validation"
    samples: int | None = None
    weights: Literal["inherit", "initialise"] = "inherit"
    importance: str = "l1"
    memory: str | int | None = None
    racing_confidence: float | None = None
    cost_batch: int = 1

    def __post_init__(self) -> None:
        _at_least(self, 1, "samples", "cost_batch")
        _named("memory", lambda: self.memory_bytes)
        racing = self.racing_confidence
        _require(racing is None or 0.5 < racing < 1, "racing_confidence", "must lie between 0.5 and 1", racing)

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRule:
    """Formats to choose from for the sites of some operations; of several rules the first that matches wins.

    Args:
        operations: An operation's type, its name, or a glob of names.
        together: One decision for all that match; False: one for each operation.
        data_in: Formats for activations that come in; empty leaves them alone.
        weight: Formats for weights.
        bias: Formats for biases.
    """

    operations: str
    together: bool = False
    data_in: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()
    bias: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(self.operations), "operations", "must name a type, an operation or a glob", self.operations)
        for key in ("data_in", "weight", "bias"):
            _distinct(key, getattr(self, key))
        if not (self.data_in or self.weight or self.bias):
            raise ConfigError("data_in: at least one of data_in, weight and bias must list a format, got none.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthRule:
    """Multipliers to choose from for the width of some groups.

    Args:
        groups: A width group's name or a glob of names.
        multipliers: Factors on the base width: numbers, or fractions as text (`"1/3"`).
        together: One multiplier for all that match; False: one for each group.
        round_to: Widths are rounded to the nearest multiple of this, and are at least this.
    """

    groups: str
    multipliers: tuple[int | float | str, ...]
    together: bool = False
    round_to: int = 1

    def __post_init__(self) -> None:
        _require(bool(self.groups), "groups", "must name a width group or a glob", self.groups)
        _require(bool(self.multipliers), "multipliers", "must list at least one multiplier", [])
        _at_least(self, 1, "round_to")
        _distinct("multipliers", self.fractions)

    @property
    def fractions(self) -> tuple[Fraction, ...]:
        """The multipliers, exactly: 0.1 is one tenth.

        Raises:
            ConfigError: One is not a number above 0.
        """
        return tuple(_multiplier(index, value) for index, value in enumerate(self.multipliers))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceConfig:
    """What is searched: number formats and widths."""

    precision: tuple[PrecisionRule, ...] = ()
    width: tuple[WidthRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricConfig:
    """One metric of a search.

    Args:
        direction: `maximize` or `minimize`; None: the metric's own.
        scale: Its weight in a weighted sum, and in the column `scaled_metrics`.
    """

    direction: Literal["maximize", "minimize"] | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How the space is searched, and for what.

    Args:
        strategy: How the next plan is chosen: `pareto`, `brute-force`, `integer-program`, `grid`, `random`, `tpe`,
            `gp`, `nsga2`, `nsga3`, `qmc` or `cma-es`.
        trials: How many plans are evaluated; None: the whole space for `brute-force`, else 100.
        seed: Of the strategy and of each candidate's training.
        objective: `pareto`, or `weighted-sum`: the sum of scale x metric.
        timeout: Stop after this long (`"10 min"`, or seconds); None: no limit.
        direction: Of a weighted sum. None: the sum is maximised, with metrics that are minimised counted negatively;
            given: the plain sum of scale x metric goes that way.
        metrics: What is sought, by name.
        constraints: Limits by metric name, such as `"<= 4 KiB"`; a plan beyond one is not evaluated, or not kept.
    """

    strategy: str = "pareto"
    trials: int | None = None
    seed: int = 0
    objective: Literal["pareto", "weighted-sum"] = "pareto"
    timeout: str | float | None = None
    direction: Literal["maximize", "minimize"] | None = None
    metrics: dict[str, MetricConfig] = field(default_factory=dict)
    constraints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least(self, 1, "trials")
        _named("timeout", lambda: self.timeout_s)
        _ = self.limits  # raises for a limit that cannot be read

    @property
    def timeout_s(self) -> float | None:
        """`timeout` in seconds."""
        return None if self.timeout is None else parse_duration_s(self.timeout)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The constraints as numbers in each metric's own unit."""
        return tuple(parse_limit(metric, text) for metric, text in self.constraints.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run.

    Args:
        model: Which network.
        data: Which data.
        train: How networks are trained.
        evaluation: How candidates are scored.
        space: What is searched.
        search: How it is searched.
        out: The run's folder; None: the command's choice.
        storage: Where trials are kept: an SQLAlchemy URL or a path; None: an SQLite file in the run's folder.
        workers: Processes that train candidates, one core each. Only where protocol is `train`, on a CPU under Linux;
            elsewhere one process trains all, and says so.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
    """

    model: ModelConfig
    data: DataConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    out: str | None = None
    storage: str | None = None
    workers: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        _at_least(self, 1, "workers")


def _require(holds: bool, key: str, rule: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"{key}: {rule}, got {value!r}.")


def _at_least(config: object, least: float, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        _require(value is None or value >= least, key, f"must be at least {least}", value)


def _distinct(key: str, choices: Sequence[object]) -> None:
    for index, choice in enumerate(choices):
        if choice in choices[:index]:
            raise ConfigError(f"{key}[{index}]: each choice must be listed once, {str(choice)!r} came twice.")


def _named(key: str, derive: Any) -> None:
    try:
        derive()
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _multiplier(index: int, value: float | str) -> Fraction:
    try:
        exact = Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"multipliers[{index}]: a multiplier must be a number or a fraction such as '1/3', got {value!r}."
        ) from error
    if exact <= 0 or isinstance(value, bool):
        raise ConfigError(f"multipliers[{index}]: a multiplier must be > 0, got {value}.")
    return exact
