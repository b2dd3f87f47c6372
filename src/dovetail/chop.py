"""Configurations of MASE's `chop`: recognised by their layout and translated to ours.

A chop file puts the model and data at the top level and the search under `search.search_space` and `search.strategy`.
The translation is a table in our own layout, so it is checked like any other file. What it cannot carry
over is named in a warning.

Source: MASE (github.com/DeepWok/mase), `chop/actions/search`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dovetail.errors import ConfigError, FormatError

__all__ = ["is_chop", "translate"]

Table = Mapping[str, Any]
Warn = Callable[[str], None]

_MODELS = {"jsc-threeLinear": "jsc-three-linear", "jsc-three-linear-layers": "jsc-three-linear", "toy": "mlp"}
_SPACES = ("graph/quantize/mixed_precision_ptq", "graph/channel_multiplier", "graph/software/channel_multiplier")
_SAMPLERS = {
    "random": "random", "grid": "grid", "tpe": "tpe", "nsgaii": "nsga2", "nsgaiii": "nsga3", "qmc": "qmc",
    "bruteforce": "brute-force", "brute": "brute-force",
}  # fmt: skip
_LOADERS = {"train_dataloader": "train", "val_dataloader": "validation", "test_dataloader": "test"}
_METRICS = {"latency": "latency_ms"}
_TYPES = {"batch_norm1d": "batch_norm", "batch_norm2d": "batch_norm"}  # chop's name of a type -> ours
_TYPE_NAMES = frozenset({
    "add", "batch_norm", "batch_norm1d", "batch_norm2d", "bmm", "conv1d", "conv2d", "embedding", "gelu", "layer_norm",
    "linear", "matmul", "mul", "relu", "softmax", "sub",
})  # fmt: skip
_KINDS = ("data_in", "weight", "bias")
_WIDTH_NAMES = ("output_only", "both", "input_only")
_LEAVE_ALONE = "NA"


def is_chop(table: Table) -> bool:
    """Whether a table has chop's layout: `model` is a text, or `search` has a `search_space` or a `strategy` table."""
    search = table.get("search")
    has_space = isinstance(search, Mapping) and (
        "search_space" in search or isinstance(search.get("strategy"), Mapping)
    )
    return has_space or isinstance(table.get("model"), str)


def translate(table: Table, *, where: str = "config") -> tuple[dict[str, Any], tuple[str, ...]]:
    """A chop table in our own layout, and what of it cannot be honoured.

    Args:
        table: The decoded TOML file.
        where: Its name, for messages.

    Returns:
        The table that `decode_config` takes, and warnings that start with the dotted path they are about.

    Raises:
        ConfigError: A key has a value that chop would not take either.

    Example:
        >>> ours, warnings = translate({"model": "jsc-tiny", "dataset": "digits-4x4", "seed": 1, "max_epochs": 5})
        >>> ours["train"]["epochs"], ours["search"]["seed"], warnings
        (5, 1, ())
    """
    warnings: list[str] = []
    try:
        ours = _Reader(warnings).run(table)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return ours, tuple(f"{where}: {warning}" for warning in warnings)


class _Reader:
    """Reads a chop table key by key; each reader says in a warning what it cannot carry over."""

    def __init__(self, warnings: list[str]) -> None:
        self.warn: Warn = warnings.append

    def run(self, table: Table) -> dict[str, Any]:
        top = dict(table)
        search = _table(top.pop("search", {}), "search")
        model, data, train, search_ours = self._top(top)
        evaluation: dict[str, Any] = {}
        space = self._space(_table(search.get("search_space", {}), "search.search_space"))
        workers = self._strategy(_table(search.get("strategy", {}), "search.strategy"), search_ours, evaluation)
        self._unused(set(search) - {"search_space", "strategy"}, "search.")
        if space.get("width") and evaluation.get("protocol") != "train":
            evaluation["protocol"] = "train"
            self.warn(
                "search.strategy.eval_mode: chop scores widened layers untrained; here each candidate inherits the "
                f"model's weights and trains for max_epochs = {train.get('epochs', 'the default')}."
            )
        ours: dict[str, Any] = {"model": model, "data": data, "train": train, "evaluation": evaluation}
        ours |= {"space": space, "search": search_ours}
        ours |= {"out": f"runs/{re.sub(r'[^A-Za-z0-9._-]+', '-', str(table['project']))}"} if "project" in table else {}
        return ours | ({"workers": workers} if workers else {}) | self._device(table)

    def _top(self, top: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        for key in ("model", "dataset"):
            if not isinstance(top.get(key), str):
                raise ConfigError(
                    f"{key}: must name a {'model' if key == 'model' else 'data set'}, got {top.get(key)!r}."
                )
        name = top.pop("model")
        model: dict[str, Any] = {"name": _MODELS.get(name, name)}
        data: dict[str, Any] = {"name": self._dataset(top.pop("dataset"))}
        train: dict[str, Any] = {}
        search: dict[str, Any] = {}
        if (task := top.pop("task", "cls")) not in ("cls", "classification"):
            self.warn(f"task: {task!r} is not honoured; models are scored as classifiers.")
        _move(top, "batch_size", data, "batch_size")
        _move(top, "max_epochs", train, "epochs")
        _move(top, "learning_rate", train, "learning_rate", float)
        _move(top, "weight_decay", train, "weight_decay", float)
        for key in ("optimizer", "training_optimizer"):
            _move(top, key, train, "optimizer")
        if "seed" in top:
            for part in (model, data, train, search):
                part["seed"] = top["seed"]
        self._checkpoint(top.pop("load_name", None), top.pop("load_type", None), model)
        if top.pop("passes", None) is not None:
            self.warn("passes: belongs to chop's transform action; a search does not use it.")
        self._unused(set(top) - {"seed", "project", "accelerator"}, "")
        return model, data, train, search

    def _dataset(self, name: str) -> str:
        if name == "jsc":
            self.warn(
                "dataset: 'jsc' is read as 'jsc-openml'; chop downloads the older CERNBox version, about one point of "
                "accuracy apart. For that one write [data] name = 'jsc-cernbox' in a file of our layout."
            )
            return "jsc-openml"
        return name

    def _checkpoint(self, name: object, kind: object, model: dict[str, Any]) -> None:
        if not name:
            return
        if kind in (None, "pl", "pt"):
            model["checkpoint"] = name
        else:
            self.warn(
                f"load_name: load_type = {kind!r} is not honoured, so {name!r} is not loaded; give a .ckpt, .pt or "
                ".safetensors."
            )

    def _device(self, table: Table) -> dict[str, Any]:
        accelerator = str(table.get("accelerator", "auto"))
        if accelerator in ("auto", "cpu"):
            return {"device": accelerator}
        if accelerator not in ("gpu", "cuda"):
            self.warn(f"accelerator: {accelerator!r} is not honoured; CUDA is used where there is one, else the CPU.")
        return {"device": "auto"}

    def _space(self, space: Table) -> dict[str, Any]:
        where = "search.search_space"
        if (name := space.get("name", _SPACES[0])) not in _SPACES:
            self.warn(f"{where}.name: {name!r} is not honoured; the seed below it is read as {_SPACES[0]!r}.")
        setup = _table(space.get("setup", {}), f"{where}.setup")
        by = setup.get("by", "name")
        if by not in ("name", "type"):
            raise ConfigError(f"{where}.setup.by: must be 'name' or 'type', got {by!r}.")
        self._unused(set(setup) - {"by"}, f"{where}.setup.")
        self._unused(set(space) - {"name", "setup", "seed"}, f"{where}.")
        seed = {
            key: _table(value, f"{where}.seed.{key}")
            for key, value in _table(space.get("seed", {}), f"{where}.seed").items()
        }
        default = seed.pop("default", {})
        named = [(key, entry) for key, entry in seed.items() if self._is_looked_up(key, by, f"{where}.seed.{key}")]
        fallback = self._precision("*", default, f"{where}.seed.default")
        precision: list[dict[str, Any]] = []
        width: list[dict[str, Any]] = []
        for key, entry in named:
            if _names(entry) & set(_WIDTH_NAMES):
                width += self._width(key, entry, f"{where}.seed.{key}")
            else:
                rules = self._precision(_TYPES.get(key, key) if by == "type" else key, entry, f"{where}.seed.{key}")
                precision += rules or ([_left_alone(key)] if fallback else [])
        return {"precision": precision + fallback, "width": width}

    def _is_looked_up(self, key: str, by: object, where: str) -> bool:
        is_type = key in _TYPE_NAMES
        if by == "name" and is_type:
            self.warn(f"{where}: names a type, and with by = 'name' chop looks up node names alone; it has no effect.")
        if by == "type" and not is_type:
            self.warn(
                f"{where}: is no type that chop knows, and with by = 'type' it looks up types alone; it has no effect."
            )
        return is_type == (by == "type")

    def _precision(self, operations: str, entry: Table, where: str) -> list[dict[str, Any]]:
        """At most one rule: each operation decides for itself, and for each of its tensors, as in chop."""
        config = _table(entry.get("config", entry), f"{where}.config")
        names = _list(config.get("name", _LEAVE_ALONE))
        sites: dict[str, list[str]] = {kind: [] for kind in _KINDS}
        read: set[str] = {"name"}
        for name in names:
            if name in (_LEAVE_ALONE, None):
                continue
            for kind in _KINDS:
                texts, keys = self._formats(str(name), kind, config, f"{where}.config")
                sites[kind] += texts
                read |= keys
        self._unused(set(config) - read, f"{where}.config.")
        found = {kind: list(dict.fromkeys(texts)) for kind, texts in sites.items() if texts}
        if found and _LEAVE_ALONE in names:
            self.warn(
                f"{where}.config.name: 'NA' beside others becomes float32 as a choice for each tensor on its own, not "
                "for the node as a whole."
            )
            found = {kind: ["float32", *texts] for kind, texts in found.items()}
        return [{"operations": operations, "together": False, **found}] if found else []

    def _formats(self, name: str, kind: str, config: Table, where: str) -> tuple[list[str], set[str]]:
        """Texts of the formats that chop's lists give one tensor under one quantiser name, and the keys read."""
        if name in ("integer", "fixed"):
            width_key, frac_key = f"{kind}_width", f"{kind}_frac_width"
            if width_key not in config:
                return [], set()
            fracs = _list(config.get(frac_key, _LEAVE_ALONE))
            pairs = [(w, w // 2 if f == _LEAVE_ALONE else f) for w in _widths(config, width_key, where) for f in fracs]
            return [f"fixed({width},{frac})" for width, frac in pairs], {width_key, frac_key}
        from dovetail.formats.chop_keys import CHOP_KEYS, formats_from_chop  # torch comes with it, so only where needed

        keys = {key for key in config if key.startswith(f"{kind}_")}
        if name not in CHOP_KEYS:
            if kind == _KINDS[0]:
                self.warn(f"{where}.name: {name!r} is not honoured as a choice.")
            return [], keys
        try:
            texts = [str(fmt) for fmt in formats_from_chop(kind, {**config, "name": [name]})]
        except FormatError as error:
            raise ConfigError(f"{where}: {error}") from error
        return texts, {f"{kind}_{key}" for key in CHOP_KEYS[name]}

    def _width(self, key: str, entry: Table, where: str) -> list[dict[str, Any]]:
        """A width rule for the outputs of a layer; its inputs follow from the layers that feed it."""
        config = _table(entry.get("config", entry), f"{where}.config")
        names = _names(entry)
        self._unused(set(config) - {"name", "channel_multiplier"}, f"{where}.config.")
        if names - set(_WIDTH_NAMES):
            raise ConfigError(
                f"{where}.config.name: must be one of {', '.join(_WIDTH_NAMES)}, got {sorted(names, key=str)}."
            )
        listed = _list(config.get("channel_multiplier", []))
        if names == {"input_only"}:
            return []  # its inputs are the outputs of the layer before, which has a rule of its own
        if not listed:
            raise ConfigError(f"{where}.config.channel_multiplier: must list at least one multiplier.")
        outputs = [value[-1] if isinstance(value, list) else value for value in listed]
        if any(isinstance(value, list) and value[0] != value[-1] for value in listed):
            self.warn(
                f"{where}.config.channel_multiplier: of each pair (input, output) the output is the choice; the input "
                "follows from the layer before, so that every candidate runs."
            )
        return [{"groups": key, "multipliers": list(dict.fromkeys(outputs)), "together": False}]

    def _strategy(self, strategy: Table, search: dict[str, Any], evaluation: dict[str, Any]) -> int | None:
        where = "search.strategy"
        setup = dict(_table(strategy.get("setup", {}), f"{where}.setup"))
        name = str(strategy.get("name", "optuna"))
        sampler = setup.pop("sampler", "tpe" if name in ("optuna", "rl") else name)
        search["strategy"] = self._sampler(name if name not in ("optuna", "rl") else str(sampler), where)
        if name == "rl":
            self.warn(f"{where}.name: 'rl' is not honoured; the sampler is {search['strategy']!r}.")
        for theirs, ours in (("n_trials", "trials"), ("timeout", "timeout")):
            if setup.get(theirs) is not None:
                search[ours] = setup[theirs]
            setup.pop(theirs, None)
        direction = setup.pop("direction", None)
        if setup.pop("sum_scaled_metrics", False):
            search["objective"] = "weighted-sum"
            search |= {"direction": direction} if direction else {}
        else:
            search["objective"] = "pareto"
            if direction:
                self.warn(f"{where}.setup.direction: has no effect unless sum_scaled_metrics is true, as in chop.")
        jobs = setup.pop("n_jobs", None)
        self._unused(set(setup), f"{where}.setup.")
        search["metrics"] = {
            _METRICS.get(metric, metric): dict(_table(options, f"{where}.metrics.{metric}"))
            for metric, options in _table(strategy.get("metrics", {}), f"{where}.metrics").items()
        }
        evaluation["protocol"] = "ptq" if strategy.get("eval_mode", True) else "train"
        self._runners(strategy, evaluation)
        self._unused(set(strategy) - {"name", "eval_mode", "sw_runner", "hw_runner", "setup", "metrics"}, f"{where}.")
        return int(jobs) if jobs and int(jobs) > 0 else None

    def _sampler(self, name: str, where: str) -> str:
        found = _SAMPLERS.get(re.sub(r"[-_ ]|sampler", "", name.lower()))
        if found is None:
            self.warn(f"{where}.setup.sampler: {name!r} is not honoured; 'tpe' is used.")
        return found or "tpe"

    def _runners(self, strategy: Table, evaluation: dict[str, Any]) -> None:
        where = "search.strategy"
        for runner, options in _table(strategy.get("sw_runner", {}), f"{where}.sw_runner").items():
            settings = dict(_table(options, f"{where}.sw_runner.{runner}"))
            if runner == "basic_train":
                evaluation["protocol"] = "train"
            _move(settings, "num_samples", evaluation, "samples")
            if (loader := settings.pop("data_loader", None)) is not None:
                if loader not in _LOADERS:
                    place = f"{where}.sw_runner.{runner}.data_loader"
                    raise ConfigError(f"{place}: must be one of {', '.join(_LOADERS)}, got {loader!r}.")
                if not (runner == "basic_train" and loader == "train_dataloader"):
                    evaluation["split"] = _LOADERS[loader]
            self._unused(set(settings), f"{where}.sw_runner.{runner}.")
        for runner, options in _table(strategy.get("hw_runner", {}), f"{where}.hw_runner").items():
            settings = dict(_table(options, f"{where}.hw_runner.{runner}"))
            if (reference := settings.pop("compare_to", 32)) != 32:
                self.warn(
                    f"{where}.hw_runner.{runner}.compare_to: {reference!r} is not honoured; memory_density is 32 / "
                    "average_bitwidth."
                )
            self._unused(set(settings), f"{where}.hw_runner.{runner}.")

    def _unused(self, keys: set[str], prefix: str) -> None:
        for key in sorted(keys):
            self.warn(f"{prefix}{key}: is not honoured.")


def _names(entry: Table) -> set[Any]:
    config = entry.get("config", entry)
    return set(_list(config.get("name", _LEAVE_ALONE))) if isinstance(config, Mapping) else set()


def _left_alone(operations: str) -> dict[str, Any]:
    """A rule that keeps operations from falling to the default."""
    return {"operations": operations, **{kind: ["float32"] for kind in _KINDS}}


def _widths(config: Table, key: str, where: str) -> Iterator[int]:
    for value in _list(config[key]):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{where}.{key}: must list integers, got {value!r}.")
        yield value


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _table(value: object, where: str) -> Table:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: must be a table, got {value!r}.")
    return value


def _move(
    source: dict[str, Any], key: str, target: dict[str, Any], name: str, kind: Callable[[Any], Any] | None = None
) -> None:
    if (value := source.pop(key, None)) is not None:
        target[name] = kind(value) if kind else value
