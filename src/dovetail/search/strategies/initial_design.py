"""Which plans to evaluate before a model can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dovetail.search.space import Row, Rows

__all__ = ["spread_along_costs"]

NEAR = 24  # rows of about the wanted cost among which the most remote is taken


def spread_along_costs(
    rows: Rows,
    axis: NDArray[np.float64],
    distances: Sequence[NDArray[np.float64]],
    count: int,
    rng: np.random.Generator,
) -> list[Row]:
    """The two ends of a cost axis, then rows at even distances along it, each as far as can be from those before.

    Costs are known, so the ends of the front can be asked for outright, and none of the first evaluations need crowd
    where random plans do: in the middle.

    Args:
        rows: candidates [n, decisions].
        axis: a cost per row.
        distances: between choices, per decision: [choices, choices].
        count: rows wanted; fewer come back where there are fewer.
        rng: chooses among equals.
    """
    low, high = float(axis.min()), float(axis.max())
    chosen = list(dict.fromkeys([int(axis.argmax()), int(axis.argmin())]))
    inner = max(count - 2, 0)
    for target in low + (high - low) * (1 + np.arange(inner)) / (inner + 1):
        near = np.argsort(np.abs(axis - target), kind="stable")[: max(2 * NEAR, len(rows) // 50)]
        near = np.setdiff1d(near, chosen)
        if len(near):
            near = rng.choice(near, min(NEAR, len(near)), replace=False)
            apart = sum(table[rows[near, d][:, None], rows[chosen, d][None]] for d, table in enumerate(distances))
            chosen.append(int(near[np.argmax(np.min(apart, axis=1))]))
    return [tuple(rows[i].tolist()) for i in chosen[:count]]
