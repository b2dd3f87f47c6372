"""Seeded, disjoint, stratified splits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dovetail.errors import DataError

__all__ = ["split_indices"]


def split_indices(
    labels: NDArray[np.int64], fraction: float, seed: int, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of (the rest, the part cut off), each class in the same share, each part shuffled.

    Of a class with n samples, round(n x fraction) are cut off, but at least one and not all where it has two or more.

    Args:
        labels: Class of each sample.
        fraction: Share to cut off.
        seed: The same seed cuts the same samples.
        where: What is split, for messages.

    Raises:
        DataError: One part would be empty.
    """
    rng = np.random.default_rng(seed)
    kept, cut = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        cut.append(members[:count])
        kept.append(members[count:])
    rest, part = (rng.permutation(np.concatenate(indices)).astype(np.int64) for indices in (kept, cut))
    if len(rest) == 0 or len(part) == 0:
        raise DataError(
            f"{where}: {len(labels)} samples of {len(kept)} classes cannot be split {1 - fraction:g} to {fraction:g} "
            "with neither "
            "part empty. Give more samples."
        )
    return rest, part
