"""Non-dominated sets, hypervolume, and the boxes of what is not dominated yet.

Everything here maximises: flip the sign of what is to be small. Point a dominates b when a is at least b in every
figure and more in one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["free_boxes", "hypervolume", "non_dominated"]

Points = NDArray[np.float64]  # [n, figures]


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates; equal points do not dominate each other, a point with NaN is never kept.

    Args:
        points: [n, figures], larger is better.

    Returns:
        [n] bools. Two figures take O(n log n), more take O(n x size of the front).

    Example:
        >>> non_dominated([[1, 3], [2, 2], [1, 2]]).tolist()
        [True, True, False]
    """
    points_NK = _points(points)
    keep = np.zeros(len(points_NK), dtype=np.bool_)
    valid = np.flatnonzero(~np.isnan(points_NK).any(axis=1))
    if points_NK.shape[1] == 2:
        keep[valid[_non_dominated_pairs(points_NK[valid])]] = True
        return keep
    order = valid[
        np.argsort(-points_NK[valid].sum(axis=1), kind="stable")
    ]  # what dominates has the larger sum: it comes first
    while len(order):
        head, rest = order[0], order[1:]
        keep[head] = True
        better = (points_NK[rest] > points_NK[head]).any(axis=1) | (points_NK[rest] == points_NK[head]).all(axis=1)
        order = rest[better]
    return keep


def _non_dominated_pairs(points_NK: Points) -> NDArray[np.bool_]:
    keep = np.zeros(len(points_NK), dtype=np.bool_)
    if not len(points_NK):
        return keep
    first, inverse = np.unique(-points_NK[:, 0], return_inverse=True)
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, inverse, points_NK[:, 1])
    before = np.concatenate(([-np.inf], np.maximum.accumulate(best)[:-1]))
    here = points_NK[:, 1]
    keep[:] = (here == best[inverse]) & ((here > before[inverse]) | (np.isneginf(here) & (inverse == 0)))
    return keep


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume of what the points dominate above a reference: measure of the union of the boxes [reference, point].

    Points that are not above the reference in every figure add nothing. Exact, by slices along the last figure:
    O(n log n) for two figures, O(n^(figures - 1) log n) beyond.

    Args:
        points: [n, figures], larger is better.
        reference: [figures].

    Example:
        >>> hypervolume([[1, 3], [2, 2]], [0, 0])
        5.0
    """
    reference_K = np.asarray(reference, dtype=np.float64)
    points_NK = _points(points, len(reference_K))
    points_NK = points_NK[(points_NK > reference_K).all(axis=1)]
    return _volume(points_NK[non_dominated(points_NK)] - reference_K) if len(points_NK) else 0.0


def _volume(points_NK: Points) -> float:
    if points_NK.shape[1] == 1:
        return float(points_NK.max(initial=0.0))
    points_NK = points_NK[np.argsort(-points_NK[:, -1], kind="stable")]
    heights = points_NK[:, -1] - np.append(points_NK[1:, -1], 0.0)
    if points_NK.shape[1] == 2:
        return float(heights @ np.maximum.accumulate(points_NK[:, 0]))
    total = 0.0
    for i in np.flatnonzero(heights > 0):
        slab = points_NK[: i + 1, :-1]
        total += float(heights[i]) * _volume(slab[non_dominated(slab)])
    return total


def free_boxes(points: ArrayLike, reference: ArrayLike) -> tuple[Points, Points]:
    """Disjoint boxes that cover exactly what lies above a reference and is not dominated by the points.

    The improvement in hypervolume by a new point z is the sum over boxes of prod_k (min(upper, z) - lower)+. Upper
    corners may be infinite; along the first figure they always are. Boxes of neighbouring slices are merged where
    they continue.

    Args:
        points: [n, figures], larger is better.
        reference: [figures].

    Returns:
        Lower and upper corners, [boxes, figures] each; n + 1 boxes at most for two figures.
    """
    reference_K = np.asarray(reference, dtype=np.float64)
    points_NK = _points(points, len(reference_K))
    points_NK = points_NK[(points_NK > reference_K).all(axis=1)]
    boxes = _boxes(points_NK[non_dominated(points_NK)], tuple(map(float, reference_K)))
    lower = np.array([[low for low, _ in box] for box in boxes]).reshape(-1, len(reference_K))
    upper = np.array([[high for _, high in box] for box in boxes]).reshape(-1, len(reference_K))
    return lower, upper


Box = tuple[tuple[float, float], ...]  # (low, high) per figure


def _boxes(points_NK: Points, reference: tuple[float, ...]) -> list[Box]:
    if len(reference) == 1:
        return [((float(points_NK[:, 0].max(initial=reference[0])), np.inf),)]
    levels = np.unique(points_NK[:, -1])[::-1]
    done: list[Box] = []
    open_boxes: dict[Box, float] = dict.fromkeys(_boxes(points_NK[:0, :-1], reference[:-1]), np.inf)
    for level in map(float, levels):  # downwards: below a level its point dominates too
        slab = points_NK[points_NK[:, -1] >= level][:, :-1]
        if len(reference) > 2:  # of one figure the largest is all that counts
            slab = slab[non_dominated(slab)]
        below = _boxes(slab, reference[:-1])
        kept = {box: open_boxes.get(box, level) for box in below}
        done += [(*box, (level, top)) for box, top in open_boxes.items() if box not in kept]
        open_boxes = kept
    return done + [(*box, (reference[-1], top)) for box, top in open_boxes.items()]


def _points(points: ArrayLike, figures: int | None = None) -> Points:
    array = np.asarray(points, dtype=np.float64)
    return array.reshape(-1, figures) if figures is not None and not array.size else np.atleast_2d(array)
