"""Reference models, and any `nn.Module` of the user's by name.

`MODELS` is the one table of built-ins: name -> factory. A factory takes the data's `input_shape` and `classes`, and the
keyword arguments of `[model] args`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from dovetail.data import Dataset, load_data
from dovetail.errors import ConfigError, DovetailError, unknown_name
from dovetail.loading import is_callable_name, load_callable, raised
from dovetail.models.checkpoint import load_checkpoint, save_checkpoint
from dovetail.models.jsc import FEATURES, JscThreeLinear, JscTiny
from dovetail.models.mlp import mlp
from dovetail.models.resnet import ResNet20, SmallResNet
from dovetail.settings import ModelConfig, RunConfig

__all__ = [
    "MODELS",
    "build_model",
    "load_checkpoint",
    "load_model_and_data",
    "mlp",
    "needed_shape",
    "save_checkpoint",
]

ModelFactory = Callable[..., nn.Module]


def _jsc(kind: type[JscTiny] | type[JscThreeLinear]) -> ModelFactory:
    def build(*, input_shape: tuple[int, ...], classes: int, **args: Any) -> nn.Module:
        if input_shape != (FEATURES,):
            raise ConfigError(
                f"model: a jsc network needs samples of {FEATURES} features, the data's have shape {input_shape}. "
                f"Data sets with {FEATURES} features: digits-4x4, jsc-openml, jsc-cernbox; model 'mlp' takes any."
            )
        return kind(**{"classes": classes, **args})

    build.__signature__ = _signature(kind)  # type: ignore[attr-defined]
    return build


def _resnet20(*, input_shape: tuple[int, ...], classes: int, **args: Any) -> nn.Module:
    if len(input_shape) != 3:
        raise ConfigError(
            f"model 'resnet20': samples must be images (channels, height, width), got shape {input_shape}."
        )
    return ResNet20(**{"classes": classes, "channels": input_shape[0], **args})


def _signature(kind: type[nn.Module]) -> inspect.Signature:
    """What a factory takes: the class's own arguments and the data's shape."""
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(kind).parameters.values() if p.name != "classes"]
    shape = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("input_shape", "classes")]
    return inspect.Signature([*shape, *own])


MODELS: Mapping[str, ModelFactory] = {
    "jsc-tiny": _jsc(JscTiny),
    "jsc-three-linear": _jsc(JscThreeLinear),
    "mlp": mlp,
    "small-resnet": SmallResNet,
    "resnet20": _resnet20,
}


def load_model_and_data(config: RunConfig) -> tuple[nn.Module, Dataset]:
    """The model and the data of a run; `digits` comes in the shape that the model needs.

    Raises:
        ConfigError: As `build_model`.
        CheckpointError: As `build_model`.
        DataError: As `load_data`.
    """
    dataset = load_data(config.data, shape=needed_shape(config.model))
    return build_model(config.model, dataset), dataset


def needed_shape(config: ModelConfig) -> tuple[int, ...] | None:
    """The shape of a sample that a built-in model needs; None where it follows the data or is the user's."""
    return (FEATURES,) if config.module is None and config.name in ("jsc-tiny", "jsc-three-linear") else None


def build_model(config: ModelConfig, dataset: Dataset) -> nn.Module:
    """The model that a config names, in eval mode, with its checkpoint loaded; the global random state is left as it
    was.

    A user's callable gets `config.args`, and `input_shape` and `classes` where its signature has them. An `nn.Module`
    given as an object is used as it is.

    Raises:
        ConfigError: Unknown name, an argument that the model does not take, or data of a shape that it cannot have.
        CheckpointError: The checkpoint is missing, corrupt or of another model.
    """
    if isinstance(config.module, nn.Module):
        if config.checkpoint is not None:
            raise ConfigError(
                "model.checkpoint: an nn.Module given as an object keeps its own weights; load them into it."
            )
        return config.module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _call(config, _factory(config), dataset)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: {config.name!r} must return an nn.Module, got {type(model).__name__}.")
    if config.checkpoint is not None:
        load_checkpoint(model, config.checkpoint)
    return model.eval()


def _factory(config: ModelConfig) -> ModelFactory:
    if config.module is not None:
        return config.module  # type: ignore[no-any-return]
    if is_callable_name(config.name):
        return load_callable(config.name, where="model.name")
    if config.name not in MODELS:
        raise ConfigError(
            f"model.name: {unknown_name('model', config.name, MODELS)} Or give 'package.module:callable' or "
            "'file.py:callable'."
        )
    return MODELS[config.name]


def _parameters(factory: ModelFactory) -> Mapping[str, inspect.Parameter]:
    """What a factory takes; a builtin without a signature is given the config's arguments unchecked."""
    try:
        return inspect.signature(factory).parameters
    except ValueError:
        return {"args": inspect.Parameter("args", inspect.Parameter.VAR_KEYWORD)}


def _call(config: ModelConfig, factory: ModelFactory, dataset: Dataset) -> object:
    takes = _parameters(factory)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    offered = {"input_shape": dataset.input_shape, "classes": dataset.num_classes}
    given = {name: value for name, value in offered.items() if name in takes} | config.args
    if unknown := sorted(set(config.args) - set(takes)) if not takes_any else []:
        raise ConfigError(f"model.args: {unknown_name('argument', unknown[0], set(takes) - set(offered))}")
    try:
        return factory(**given)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"model.args: {config.name or 'the model'} cannot be built with {given}: {error}") from error
    except Exception as error:  # the user's code may raise anything
        if isinstance(error, DovetailError):
            raise
        raise ConfigError(
            f"model.name: {config.name or 'the model'} must give a model, but raised {raised(error)}"
        ) from error
