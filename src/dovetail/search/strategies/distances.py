"""How far apart the choices of a decision lie: the gaps between neighbouring sizes, and their sums.

Legend: C choices of a decision, G gaps between its neighbouring sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dovetail.search.space import Decision

__all__ = ["decision_distances", "decision_gaps"]

Floats = NDArray[np.float64]

RANK_SHARE = 0.3  # of the way from the smallest size to the largest, each gap takes an equal part of this
TIE_DISTANCE = 0.25  # between choices of equal size that differ


def decision_gaps(decisions: Sequence[Decision]) -> tuple[Floats, ...]:
    """The gaps of each decision: [G, C, C], the width of a gap where it lies between two choices, else 0.

    Precision: the error of rounding halves with each bit, so a choice of b bits stands at 1 - 2^-(b - fewest bits).
    Width: each doubling counts the same, so a choice stands at log(width). From the smallest size to the largest is a
    distance of 1, of which a share goes by rank alone. Choices of equal size that differ (say in frac_width, or
    integer against float) are a quarter apart, whichever they are; that is one gap more.
    """
    return tuple(_gaps(decision) for decision in decisions)


def decision_distances(decisions: Sequence[Decision]) -> tuple[Floats, ...]:
    """The sum of the gaps between any two choices: [C, C] per decision, 1 from its smallest to its largest."""
    return tuple(np.asarray(gaps.sum(axis=0)) for gaps in decision_gaps(decisions))


def _gaps(decision: Decision) -> Floats:
    size_C = np.asarray(decision.sizes, dtype=np.float64)
    values, rank_C = np.unique(size_C, return_inverse=True)
    place = 1 - 2.0 ** -(values - values[0]) if decision.kind == "precision" else np.log(values / values[0])
    if len(values) > 1:
        place = (1 - RANK_SHARE) * place / place[-1] + RANK_SHARE * np.linspace(0, 1, len(values))
    above_GC = rank_C[None] > np.arange(len(values) - 1)[:, None]
    gaps = np.diff(place)[:, None, None] * (above_GC[:, :, None] != above_GC[:, None, :])
    effect_C = np.asarray(decision.first_equal)
    if len(values) < len(np.unique(effect_C)):
        gaps = np.concatenate([gaps, TIE_DISTANCE * (effect_C[:, None] != effect_C[None])[None]])
    return np.asarray(gaps, dtype=np.float64)
