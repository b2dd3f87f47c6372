"""Arrays -> Dataset: checked, split, standardised on the training split, in their final dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dovetail.data.arrays import Arrays, Part, check_inputs, check_labels
from dovetail.data.dataset import Dataset, Split
from dovetail.data.splits import split_indices
from dovetail.errors import DataError
from dovetail.settings import DataConfig

__all__ = ["prepare"]

Pair = tuple[Tensor, Tensor]


def prepare(
    arrays: Arrays,
    config: DataConfig,
    *,
    seed: int,
    origin: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """The data set that arrays make.

    Args:
        arrays: As they came.
        config: Name, fractions and whether to standardise.
        seed: Of the splits.
        origin: Where they came from, for messages and the description.
        mean: Per channel of an image, to subtract instead of standardising.
        std: Per channel of an image, to divide by.

    Raises:
        DataError: The arrays fail a check, or a split would be empty.
    """
    as_indices = config.dtype == "int64"
    if as_indices and (mean is not None or std is not None):
        raise DataError("data.args: mean and std are for float32 samples; data.dtype is int64.")

    def checked(part: Part, split: str, classes: int | None) -> Pair:
        x = check_inputs(part[0], f"{origin}: x_{split}", as_indices=as_indices)
        return x, check_labels(part[1], len(x), f"{origin}: y_{split}", classes)

    train = checked(arrays.train, "train", None)
    classes = max(int(train[1].max()) + 1, len(arrays.class_names))
    test = None if arrays.test is None else checked(arrays.test, "test", classes)
    validation = None if arrays.validation is None else checked(arrays.validation, "val", classes)
    notes = []
    if test is None:
        train, test = _cut(train, config.test_fraction, seed, f"{origin}: test split")
        notes.append(f"test {config.test_fraction:g} cut off")
    if validation is None:
        train, validation = _cut(train, config.validation_fraction, seed + 1, f"{origin}: validation split")
        notes.append(f"validation {config.validation_fraction:g} cut from train")
    parts = (_shuffled(train, seed + 2), _shuffled(validation, seed + 3), _shuffled(test, seed + 4))
    shapes = {tuple(x.shape[1:]) for x, _ in parts}
    if len(shapes) > 1:
        raise DataError(f"{origin}: samples must have one shape in all splits, got {sorted(shapes)}.")
    shape = shapes.pop()
    if mean is not None or std is not None:
        shift, scale = _given(mean, 0.0, shape, "mean"), _given(std, 1.0, shape, "std")
        notes.append("normalised by the given mean and std")
    elif not as_indices and (config.standardise if config.standardise is not None else len(shape) == 1):
        shift, scale = _fitted(parts[0][0])
        notes.append("standardised on train")
    else:
        shift, scale = torch.zeros(()), torch.ones(())
    splits = tuple(Split((x if as_indices else (x - shift) / scale,), y) for x, y in parts)
    description = f"{origin}; {', '.join([*notes, f'seed {seed}'])}"
    return Dataset(config.name or origin, splits[0], splits[1], splits[2], classes, shape, description)


def _cut(part: Pair, fraction: float, seed: int, where: str) -> tuple[Pair, Pair]:
    rest, cut = (torch.from_numpy(i) for i in split_indices(part[1].numpy(), fraction, seed, where))
    return (part[0][rest], part[1][rest]), (part[0][cut], part[1][cut])


def _shuffled(part: Pair, seed: int) -> Pair:
    order = torch.randperm(len(part[1]), generator=torch.Generator().manual_seed(seed))
    return part[0][order], part[1][order]


def _fitted(x: Tensor) -> Pair:
    """Mean and deviation of each feature, in float64; a constant feature keeps its scale."""
    deviation = x.double().std(dim=0, correction=0)
    return x.double().mean(dim=0).float(), torch.where(deviation > 1e-12, deviation, 1.0).float()


def _given(values: Sequence[float] | None, default: float, shape: tuple[int, ...], name: str) -> Tensor:
    if values is None:
        return torch.tensor(default)
    if len(values) != shape[0]:
        raise DataError(f"data.args.{name}: must have one value for each of {shape[0]} channels, got {len(values)}.")
    return torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * (len(shape) - 1))
