"""Arrays as files and users bring them, and the checks they must pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import DataError

__all__ = ["Arrays", "Part", "arrays_from_named", "check_inputs", "check_labels", "part_from_loader"]

Part = tuple[NDArray[Any], NDArray[Any]]
_SAMPLES = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
_ALIASES = {"x_validation": "x_val", "y_validation": "y_val"}
_ALIASES |= {"X": "x", "X_train": "x_train", "X_val": "x_val", "X_test": "x_test"}


@dataclass(frozen=True, slots=True)
class Arrays:
    """Samples and labels of the splits that the source brings; what is None is cut from `train`."""

    train: Part
    validation: Part | None = None
    test: Part | None = None
    class_names: tuple[str, ...] = field(default=())


def arrays_from_named(named: Mapping[str, Any], where: str) -> Arrays:
    """Arrays under the names `x_train, y_train, x_test, y_test[, x_val, y_val]`, or `x, y` for all that is to be split.

    Raises:
        DataError: A name is missing; the message lists those that came.
    """
    arrays = {_ALIASES.get(name, name): np.asarray(array) for name, array in named.items()}
    if "x" in arrays and "y" in arrays:
        return Arrays((arrays["x"], arrays["y"]))
    for name in ("x_train", "y_train"):
        if name not in arrays:
            wanted = ", ".join(_SAMPLES[:2] + _SAMPLES[4:])
            raise DataError(f"{where}: must hold {wanted} (or x, y), got {', '.join(named) or 'none'}.")
    for split in ("val", "test"):
        if (f"x_{split}" in arrays) != (f"y_{split}" in arrays):
            raise DataError(f"{where}: x_{split} and y_{split} must come together, got {', '.join(named)}.")
    validation = (arrays["x_val"], arrays["y_val"]) if "x_val" in arrays else None
    test = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
    return Arrays((arrays["x_train"], arrays["y_train"]), validation, test)


def part_from_loader(loader: Iterable[Any], where: str) -> Part:
    """All batches (inputs, labels) of a loader, one after another.

    Raises:
        DataError: The loader is empty, or a batch is no pair.
    """
    inputs, labels = [], []
    for index, batch in enumerate(loader):
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise DataError(f"{where}: batch {index}: must be a pair (inputs, labels), got {type(batch).__name__}.")
        inputs.append(torch.as_tensor(batch[0]).detach().cpu())
        labels.append(torch.as_tensor(batch[1]).detach().cpu())
    if not inputs:
        raise DataError(f"{where}: must give at least one batch, got none.")
    return torch.cat(inputs).numpy(), torch.cat(labels).numpy()


def check_inputs(x: NDArray[Any], where: str, *, as_indices: bool = False) -> Tensor:
    """Samples as a float32 tensor [samples, ...]; 8-bit images become 0 to 1, channels first.

    Args:
        x: as they came.
        where: for messages.
        as_indices: whether they are indices, such as token ids: an int64 tensor of the same shape.

    Raises:
        DataError: Not numbers, too few dimensions, empty, NaN or infinite, or indices that are no whole numbers from 0:
            the message names the first place.
    """
    if x.dtype.kind not in "fiub":
        raise DataError(f"{where}: must be numbers, got an array of {x.dtype}.")
    if x.ndim < 2:
        raise DataError(f"{where}: must have shape (samples, features) or (samples, ...), got {x.shape}.")
    if x.shape[0] == 0:
        raise DataError(f"{where}: must have at least one sample, got shape {x.shape}.")
    _refuse(x, ~np.isfinite(x), "must be finite", where, "Drop or fill them.")
    if as_indices:
        _refuse(x, (x < 0) | (x != np.floor(x)), "must be a whole number from 0 (data.dtype is int64)", where)
        return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64))
    is_image = x.ndim in (3, 4) and x.dtype == np.uint8
    if x.ndim == 4 and is_image and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        x = np.transpose(x, (0, 3, 1, 2))
    if x.ndim == 3:
        x = x[:, None]
    values = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return values / 255 if is_image else values


def _refuse(x: NDArray[Any], wrong: NDArray[np.bool_], rule: str, where: str, advice: str = "") -> None:
    if wrong.any():
        places = np.argwhere(wrong)
        place = ", ".join(str(int(i)) for i in places[0])
        raise DataError(
            f"{where}[{place}]: {rule}, got {x[tuple(places[0])]}; {len(places)} such values. {advice}".strip()
        )


def check_labels(y: NDArray[Any], samples: int, where: str, num_classes: int | None = None) -> Tensor:
    """Labels as int64 [samples], from 0 to `num_classes - 1`.

    Raises:
        DataError: Wrong shape, no whole numbers, or out of range: the message names the first place.
    """
    if y.shape != (samples,):
        hint = " One-hot labels: take their argmax." if y.ndim == 2 and len(y) == samples and y.shape[1] > 1 else ""
        raise DataError(f"{where}: must have shape ({samples},), one label for each sample, got {y.shape}.{hint}")
    if y.dtype.kind not in "fiub":
        raise DataError(f"{where}: must be class numbers from 0, got an array of {y.dtype}.")
    wrong = (
        np.flatnonzero(~np.isfinite(y) | (y != np.floor(y)) | (y < 0)) if y.dtype.kind == "f" else np.flatnonzero(y < 0)
    )
    if len(wrong) == 0 and num_classes is not None:
        wrong = np.flatnonzero(y >= num_classes)
    if len(wrong):
        top = "" if num_classes is None else f" to {num_classes - 1}, the classes of the training data"
        raise DataError(f"{where}[{wrong[0]}]: must be a class number from 0{top}, got {y[wrong[0]]}.")
    return torch.from_numpy(y.astype(np.int64))
