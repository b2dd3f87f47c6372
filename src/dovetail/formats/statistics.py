"""What a site's values look like: gathered batch by batch, the same whatever the order of the batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dovetail.errors import FormatError

__all__ = ["Statistics"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Counts of the observed values in the bins of bfloat16, with exact extremes.

    A bin holds the float32 values that share sign, exponent and the seven upper mantissa bits, so its width is 1/128 of
    its size. The bins do not depend on the data and counts are integers: merging is exact, associative and
    commutative, hence independent of how samples were batched and in which order.

    Args:
        bins: sorted bin numbers, channel * 65536 + bin, as int64; only bins that hold something.
        counts: how many values each holds, as int64.
        minimum: smallest value of each channel (one channel for a whole tensor), as float64; +Inf where none.
        maximum: largest value of each channel; -Inf where none.
        axis: the dimension of channels, or None where the tensor is taken as a whole.
        non_finite: how many values were NaN or infinite; they are in no bin.

    Example:
        >>> a, b = Statistics.of(torch.tensor([1.0, 2.0])), Statistics.of(torch.tensor([-3.0]))
        >>> (a + b).minimum, (a + b).count
        (array([-3.]), 3)
    """

    bins: NDArray[np.int64]
    counts: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    axis: int | None = None
    non_finite: int = 0

    @staticmethod
    def of(x: Tensor, axis: int | None = None) -> Statistics:
        """The statistics of one tensor.

        Args:
            x: any shape, any float dtype.
            axis: the dimension whose positions are channels with statistics of their own; None for one of all.
        """
        values = x.detach().to(device="cpu", dtype=torch.float32)
        rows = values.reshape(1, -1) if axis is None else values.movedim(axis, 0).unsqueeze(-1).flatten(1)
        finite = rows.isfinite()
        non_finite = rows.numel() - int(finite.sum())
        channels = rows.shape[0]
        if rows.numel() == 0:
            empty = np.full(channels, np.inf)
            return Statistics(np.empty(0, np.int64), np.empty(0, np.int64), empty, -empty, axis)
        low = rows if non_finite == 0 else torch.where(finite, rows, torch.inf)
        high = rows if non_finite == 0 else torch.where(finite, rows, -torch.inf)
        keys = _bin_numbers(rows)[finite]
        if channels == 1:
            dense = torch.bincount(keys, minlength=1 << 16)
            bins = dense.nonzero().flatten()
            counts = dense[bins]
        else:
            bins, counts = torch.unique(keys, return_counts=True)
        return Statistics(
            bins.numpy(),
            counts.numpy(),
            low.amin(1).double().numpy(),
            high.amax(1).double().numpy(),
            axis,
            non_finite,
        )

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of both samples together."""
        if self.axis != other.axis or len(self.minimum) != len(other.minimum):
            raise FormatError(
                f"statistics: only those of one axis and number of channels can be added, "
                f"got axis {self.axis} with {len(self.minimum)} and axis {other.axis} with {len(other.minimum)}."
            )
        bins, place = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Statistics(
            bins,
            counts,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.axis,
            self.non_finite + other.non_finite,
        )

    @property
    def count(self) -> int:
        """How many finite values were observed."""
        return int(self.counts.sum())

    @property
    def num_channels(self) -> int:
        """How many channels have statistics of their own; 1 for a whole tensor."""
        return len(self.minimum)

    def channel(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """One channel's histogram: middle values of bins, ascending, inside the exact extremes; and their counts."""
        first, last = np.searchsorted(self.bins, [index << 16, (index + 1) << 16])
        middles = _middles(self.bins[first:last] & 0xFFFF).clip(self.minimum[index], self.maximum[index])
        order = np.argsort(middles, kind="stable")
        return middles[order], self.counts[first:last][order]

    def whole(self) -> Statistics:
        """The statistics of the tensor without its division into channels."""
        if self.axis is None:
            return self
        bins, place = np.unique(self.bins & 0xFFFF, return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, place, self.counts)
        low, high = self.minimum.min(keepdims=True), self.maximum.max(keepdims=True)
        return Statistics(bins, counts, low, high, None, self.non_finite)

    def check(self, what: str) -> None:
        """Raises FormatError unless there are values and all were finite: a scale read off NaN would be one too."""
        if self.non_finite:
            raise FormatError(f"{what}: calibration values must be finite, got {self.non_finite} that are NaN or Inf.")
        if not self.count:
            raise FormatError(f"{what}: calibration needs at least one value, got none.")


def _bin_numbers(rows: Tensor) -> Tensor:
    """Channel * 65536 + the upper 16 bits of each float32."""
    upper = (rows.contiguous().view(torch.int32) >> 16) & 0xFFFF
    return upper.long() + (torch.arange(rows.shape[0])[:, None] << 16)


def _middles(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value in the middle of each bin."""
    middle = ((bins << 16) | 0x8000).astype(np.uint32).view(np.float32).astype(np.float64)
    return np.where((bins & 0x7FFF) == 0, 0.0, middle)
