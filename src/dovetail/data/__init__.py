"""Data sets: built-in, from files, or the user's own arrays, loaders and callables.

`DATASETS` is the one table of built-ins: name -> function (config, seed) -> Dataset.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dovetail.data.arrays import Arrays, arrays_from_named, part_from_loader
from dovetail.data.builtin import cifar10, digits_4x4, digits_8x8, digits_64, jsc_cernbox, jsc_openml
from dovetail.data.dataset import Dataset, Split
from dovetail.data.files import is_data_file, read_file
from dovetail.data.prepare import prepare
from dovetail.errors import DataError, DovetailError, unknown_name
from dovetail.loading import is_callable_name, load_callable, raised
from dovetail.settings import DataConfig

__all__ = ["DATASETS", "Dataset", "Split", "load_data"]

DATASETS: Mapping[str, Callable[[DataConfig, int], Dataset]] = {
    "digits": digits_64,
    "digits-4x4": digits_4x4,
    "digits-8x8": digits_8x8,
    "jsc-openml": jsc_openml,
    "jsc-cernbox": jsc_cernbox,
    "cifar10": cifar10,
}
_LOADERS = ("train", "validation", "test")


_DIGITS = {(16,): digits_4x4, (64,): digits_64, (1, 8, 8): digits_8x8}


def load_data(config: DataConfig, *, seed: int | None = None, shape: tuple[int, ...] | None = None) -> Dataset:
    """The data set that a config names, split and scaled.

    Args:
        config: What to load.
        seed: Of the splits; None: the config's own.
        shape: Of one sample, as the model needs it; `digits` comes in that shape where it can, other data as it is.

    Raises:
        DataError: The data is missing, or fails a check: the message names the place.
        ConfigError: A callable's module or name cannot be found.
    """
    used = config.seed if seed is None else seed
    if config.dataset is not None:
        return _from_object(_called(config.dataset, config), config, used, "the given data")
    if config.name == "digits" and shape in _DIGITS:
        return _DIGITS[shape](config, used)
    if config.name in DATASETS:
        return DATASETS[config.name](config, used)
    if is_data_file(config.name):
        return _from_file(config, used)
    if is_callable_name(config.name):
        return _from_object(_called(load_callable(config.name, where="data.name"), config), config, used, config.name)
    raise DataError(
        f"data.name: {unknown_name('data set', config.name, DATASETS)} Or give a .npz, .csv, .parquet or .h5 file, or "
        "'package.module:callable'."
    )


def _from_file(config: DataConfig, seed: int) -> Dataset:
    if unknown := sorted(set(config.args) - {"mean", "std"}):
        raise DataError(f"data.args: {unknown_name('argument', unknown[0], ['mean', 'std'])}")
    arrays = read_file(config.name, config.target)
    return prepare(arrays, config, seed=seed, origin=config.name, **config.args)


def _called(source: Any, config: DataConfig) -> object:
    """What a callable returns for `config.args`; anything else is itself."""
    if not callable(source) or isinstance(source, Mapping | Dataset):
        return source
    try:
        inspect.signature(source).bind(**config.args)
    except TypeError as error:
        raise DataError(f"data.args: {config.name or 'the callable'} does not take {config.args}: {error}.") from error
    try:
        return source(**config.args)
    except Exception as error:  # the user's code may raise anything
        if isinstance(error, DovetailError):
            raise
        raise DataError(
            f"data.name: {config.name or 'the callable'} must give data, but raised {raised(error)}"
        ) from error


def _from_object(found: object, config: DataConfig, seed: int, origin: str) -> Dataset:
    """A Dataset; arrays by name; loaders by split; (x, y) or (x_train, y_train, x_test, y_test)."""
    if isinstance(found, Dataset):
        return found
    if isinstance(found, Mapping) and "train" in found:
        return prepare(_from_loaders(found, origin), config, seed=seed, origin=origin)
    if isinstance(found, Mapping):
        return prepare(arrays_from_named(found, origin), config, seed=seed, origin=origin)
    if isinstance(found, tuple) and len(found) in (2, 4):
        names = ("x", "y") if len(found) == 2 else ("x_train", "y_train", "x_test", "y_test")
        return prepare(
            arrays_from_named(dict(zip(names, found, strict=True)), origin), config, seed=seed, origin=origin
        )
    raise DataError(
        f"{origin}: must give a Dataset, arrays by name (x_train, y_train, x_test, y_test), loaders by split (train, "
        "validation, "
        f"test), or a tuple (x, y) or (x_train, y_train, x_test, y_test), got {type(found).__name__}."
    )


def _from_loaders(loaders: Mapping[str, Iterable[Any]], origin: str) -> Arrays:
    if unknown := sorted(set(loaders) - set(_LOADERS)):
        raise DataError(f"{origin}: {unknown_name('split', unknown[0], _LOADERS)}")
    parts = {name: part_from_loader(loader, f"{origin}: {name}") for name, loader in loaders.items()}
    return Arrays(parts["train"], parts.get("validation"), parts.get("test"))
