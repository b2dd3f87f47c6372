"""How far apart the choices of a decision lie: the gaps between neighbouring places on an axis.

Legend: C choices of a decision, G gaps between the places where they stand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dovetail.search.problem import RoundingNoise
from dovetail.search.space import Decision

__all__ = ["decision_gaps"]

Floats = NDArray[np.float64]

RANK_SHARE = 0.3  # of the way from the smallest size to the largest, each gap takes an equal part of this
NOISE_RANK_SHARE = 0.1  # the same, where it is known what each choice does
TIE_DISTANCE = 0.25  # between choices of equal size that differ


def decision_gaps(decisions: Sequence[Decision], rounding_noise: RoundingNoise = ()) -> tuple[Floats, ...]:
    """The gaps of each decision: [G, C, C], the width of a gap where it lies between two choices, else 0.

    Precision: a choice stands at the noise-to-signal ratio of its rounding, where that is known; choices of equal
    ratio do the same and are not apart. Else the error of rounding halves with each bit, so a choice of b bits stands
    at 1 - 2^-(b - fewest bits). Width: each doubling counts the same, so a choice stands at log(width). From one end to
    the other is a distance of 1, of which a share goes by rank alone. Choices of equal size that differ (say in
    frac_width, or integer against float) are a quarter apart, whichever they are; that is one gap more.

    Args:
        decisions: of the space.
        rounding_noise: per decision, the ratio of each choice, or None; empty where none is known.
    """
    ratios = rounding_noise or (None,) * len(decisions)
    return tuple(
        _size_gaps(decision) if its is None else _gaps(np.asarray(its), NOISE_RANK_SHARE)
        for decision, its in zip(decisions, ratios, strict=True)
    )


def _size_gaps(decision: Decision) -> Floats:
    size_C = np.asarray(decision.sizes, dtype=np.float64)
    place_C = 1 - 2.0 ** -(size_C - size_C.min()) if decision.kind == "precision" else np.log(size_C / size_C.min())
    gaps = _gaps(place_C, RANK_SHARE)
    effect_C = np.asarray(decision.first_equal)
    if len(np.unique(size_C)) < len(np.unique(effect_C)):
        gaps = np.concatenate([gaps, TIE_DISTANCE * (effect_C[:, None] != effect_C[None])[None]])
    return gaps


def _gaps(place_C: Floats, rank_share: float) -> Floats:
    """The gaps between the places where choices stand: [G, C, C]."""
    places, rank_C = np.unique(place_C, return_inverse=True)
    if len(places) > 1:
        even = np.linspace(0, 1, len(places))
        places = (1 - rank_share) * (places - places[0]) / (places[-1] - places[0]) + rank_share * even
    above_GC = rank_C[None] > np.arange(len(places) - 1)[:, None]
    return np.asarray(np.diff(places)[:, None, None] * (above_GC[:, :, None] != above_GC[:, None, :]), dtype=np.float64)
