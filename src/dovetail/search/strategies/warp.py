"""A scale on which a quality is easier to model.

A share (accuracy) is modelled by its log odds: there the scatter that plans have about any smooth law is about as wide
near perfection as near chance, so the model is not too sure of itself at one end and too timid at the other. Any other
quality is modelled halfway between its value and its rank among what was seen: scores crowd, and there the model spends
its resolution where they are. Both scales are piecewise linear, so that expectations through them stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IDENTITY", "LOG_ODDS", "Warp"]

Floats = NDArray[np.float64]

PIECES = 8
RANK_SHARE = 0.5
ODDS = 4.4  # knots of the log odds reach from minus to plus this: shares of about 1 % to 99 %
ODDS_PIECES = 16
SHRINK = 0.005  # added to right and wrong alike: a perfect score on some hundred samples has finite odds


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """An increasing piecewise linear map; beyond its knots it goes on as in the first and the last piece.

    Args:
        values: of the quality at the knots, increasing; two at least.
        places: where they lie on the scale, increasing.
    """

    values: tuple[float, ...]
    places: tuple[float, ...]

    @classmethod
    def of(cls, seen: Floats) -> Warp:
        """The scale for a quality, larger better, of which these values were seen.

        All between 0 and 1: `LOG_ODDS`. Else place = (value - lowest) / (highest - lowest) / 2 + rank / 2, with knots
        at evenly spaced ranks of the distinct values. The identity where all are equal.
        """
        distinct = np.unique(seen)
        if len(distinct) < 2:
            return IDENTITY
        if distinct[0] >= 0 and distinct[-1] <= 1:
            return LOG_ODDS
        ranks = np.unique(np.linspace(0, len(distinct) - 1, PIECES + 1).astype(np.int64))
        values = distinct[ranks]
        share = (values - values[0]) / (values[-1] - values[0])
        places = (1 - RANK_SHARE) * share + RANK_SHARE * ranks / ranks[-1]
        return cls(values=tuple(values.tolist()), places=tuple(places.tolist()))

    def __call__(self, values: Floats) -> Floats:
        """Places of values, of any shape."""
        known, places = np.asarray(self.values), np.asarray(self.places)
        piece = np.clip(np.searchsorted(known, values) - 1, 0, len(known) - 2)
        return np.asarray(places[piece] + (values - known[piece]) / self.slopes[piece])

    @property
    def slopes(self) -> Floats:
        """By how much the value grows per place, of each piece."""
        return np.asarray(np.diff(self.values) / np.diff(self.places))

    def steepest_above(self, places: Floats) -> Floats:
        """The largest slope at any place as high or higher."""
        highest = np.maximum.accumulate(self.slopes[::-1])[::-1]
        return np.asarray(highest[np.clip(np.searchsorted(self.places, places, side="right") - 1, 0, len(highest) - 1)])

    def split(self, lower: Floats, upper: Floats) -> tuple[Floats, Floats, Floats]:
        """Boxes [B, figures] cut at the knots along the first figure: corners, and the slope in each part.

        A volume in values is the sum over the parts of slope x volume in places.
        """
        edges = np.array([-np.inf, *self.places[1:-1], np.inf])
        low = np.maximum(lower[:, None, 0], edges[:-1])
        high = np.minimum(upper[:, None, 0], edges[1:])
        box, piece = np.nonzero(high > low)
        lower, upper = lower[box], upper[box]
        lower[:, 0], upper[:, 0] = low[box, piece], high[box, piece]
        return lower, upper, self.slopes[piece]


def _log_odds() -> Warp:
    """place = log((value + s) / (1 - value + s)), s = `SHRINK`."""
    places = np.linspace(-ODDS, ODDS, ODDS_PIECES + 1)
    odds = np.exp(places)
    values = (odds * (1 + SHRINK) - SHRINK) / (1 + odds)
    return Warp(values=tuple(values.tolist()), places=tuple(places.tolist()))


IDENTITY = Warp(values=(0.0, 1.0), places=(0.0, 1.0))
LOG_ODDS = _log_odds()
