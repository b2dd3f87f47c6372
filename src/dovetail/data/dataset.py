"""What a data set is, once it is ready to use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dovetail.errors import DataError

__all__ = ["Dataset", "Split"]


@dataclass(frozen=True, slots=True)
class Split:
    """Samples and their labels, in an order already shuffled by the split's seed.

    Args:
        inputs: The model's inputs, each [samples, ...]; most models have one.
        targets: Class of each sample, int64 [samples].

    Raises:
        DataError: No sample, or inputs and targets of different lengths.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor

    def __post_init__(self) -> None:
        if not self.inputs or len(self.targets) == 0:
            raise DataError("a split must have at least one input and one sample, got none.")
        for index, tensor in enumerate(self.inputs):
            if len(tensor) != len(self.targets):
                raise DataError(
                    f"input {index}: must have a row for each of {len(self.targets)} labels, got {len(tensor)}."
                )

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, samples: int | None) -> Split:
        """The first so many samples; None or more than there are: all of them."""
        if samples is None or samples >= len(self):
            return self
        return Split(tuple(tensor[:samples] for tensor in self.inputs), self.targets[:samples])

    def to(self, device: torch.device | str) -> Split:
        """The same samples on a device."""
        return Split(tuple(tensor.to(device) for tensor in self.inputs), self.targets.to(device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits of one data set.

    Args:
        name: As the configuration names it.
        train: To train on.
        validation: To choose among candidates by.
        test: To report on, once.
        num_classes: Labels are 0 to `num_classes - 1`.
        input_shape: Shape of one sample of the first input.
        description: Where it comes from and how it was split and scaled.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, ...]
    description: str

    def split(self, name: str) -> Split:
        """The split called `train`, `validation` or `test`.

        Raises:
            DataError: There is no such split.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise DataError(f"split: must be one of {', '.join(splits)}, got {name!r}.")
        return splits[name]
