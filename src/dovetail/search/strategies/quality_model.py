"""The model of quality that a strategy keeps: one Gaussian process per metric, told results one by one and refitted
now and then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dovetail.search.space import Row, Rows
from dovetail.search.strategies.gaussian_process import LIKELIHOOD_ROWS, Hyperparameters, Posterior, fit
from dovetail.search.strategies.warp import IDENTITY, Warp

__all__ = ["QualityModel"]

Floats = NDArray[np.float64]

REFITS = 12  # refit when the observations have grown by one part in this many
OUTLIER = 6.0  # values further below the best than this many times the median's distance are told apart no more


class QualityModel:
    """Independent Gaussian processes over plans, larger is better.

    Args:
        gaps: between the choices of each decision, from `decision_gaps`.
        qualities: how many metrics are modelled.
        warped: whether on scales chosen anew at each fit (`warps`), rather than as they are.
    """

    def __init__(self, gaps: Sequence[Floats], qualities: int, *, warped: bool = False) -> None:
        self._warped = warped
        self._warps = [IDENTITY] * qualities
        self._gaps = gaps
        self._hyper = [Hyperparameters.initial(self._gaps) for _ in range(qualities)]
        self._rows: list[Row] = []
        self._told: list[Floats | None] = []
        self._posteriors: list[Posterior] = []
        self._states = [posterior.state() for posterior in self._posteriors]
        self._believed: list[Row] = []
        self._held = 0
        self._fit_at = 0

    def tell(self, row: Row, qualities: Floats | None) -> None:
        """Learn a row's qualities; None for a trial that failed."""
        self._rows.append(row)
        self._told.append(qualities)

    @property
    def rows(self) -> list[Row]:
        """Rows told."""
        return self._rows

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Which told rows have qualities."""
        return np.array([told is not None for told in self._told], dtype=np.bool_)

    @property
    def warps(self) -> list[Warp]:
        """From each quality to the scale on which it is modelled."""
        return self._warps

    @property
    def needs_fit(self) -> bool:
        """Whether enough was told since the hyper-parameters were fitted that they should be again."""
        return len(self._rows) >= self._fit_at

    def values(self) -> Floats:
        """Qualities told [n, Q], not warped: a failure counts as the worst seen, far outliers below are drawn in."""
        known = [told for told in self._told if told is not None]
        if not known:
            return np.zeros((len(self._told), len(self._hyper)))
        worst = np.min(known, axis=0)
        values = np.array([worst if told is None else told for told in self._told]).reshape(
            len(self._told), -1 if self._hyper else 0
        )
        best, median = values.max(axis=0), np.median(values, axis=0)
        floor = np.where(best > median, best - OUTLIER * (best - median), -np.inf)
        return np.asarray(np.maximum(values, floor))

    def fit(self) -> None:
        """Choose scales and hyper-parameters anew; they hold from the next `watch` on."""
        rows, count = np.array(self._rows), len(self._rows)
        if self._warped:
            self._warps = [Warp.of(seen) for seen in self.values().T]
        values = self._places()
        iterations = 30 if count < 100 else 10 if count < LIKELIHOOD_ROWS else 5  # later fits start near the optimum
        for q, hyper in enumerate(self._hyper):
            self._hyper[q] = fit(self._gaps, rows, values[:, q], hyper, iterations=iterations)
        self._fit_at = count + max(1, count // REFITS)

    def watch(self, pool: Rows) -> None:
        """Model all that was told, at a pool's rows."""
        rows, values = np.array(self._rows), self._places()
        self._posteriors = [Posterior(self._gaps, h, rows, values[:, q], pool) for q, h in enumerate(self._hyper)]
        self._settle()

    def update(self, pending: Iterable[Row]) -> None:
        """Add what was told since, and believe the mean at rows whose results are still out (kriging believer)."""
        if len(self._rows) > self._held:
            for posterior, state in zip(self._posteriors, self._states, strict=True):
                posterior.restore(state)
            values = self._places()
            for i in range(self._held, len(self._rows)):
                for q, posterior in enumerate(self._posteriors):
                    posterior.add(np.array(self._rows[i]), float(values[i, q]))
            self._settle()
        for row in pending:
            if row not in self._believed:
                self._believed.append(row)
                for posterior in self._posteriors:
                    posterior.add(np.array(row), None)

    def _places(self) -> Floats:
        """Qualities told, on the scales on which they are modelled: [n, Q]."""
        values = self.values()
        return np.stack([warp(values[:, q]) for q, warp in enumerate(self._warps)], axis=1) if self._warps else values

    def _settle(self) -> None:
        self._held = len(self._rows)
        self._states = [posterior.state() for posterior in self._posteriors]
        self._believed = []

    def pool(self) -> tuple[Floats, Floats]:
        """Means and deviations over the pool that was fitted, on the warped scales: [P, Q] each."""
        return _columns([posterior.pool() for posterior in self._posteriors])

    def everywhere(self) -> tuple[Floats, Floats]:
        """Means, and no less than the deviations, at every row of the space in the order of enumeration, on the warped
        scales: [size, Q] each."""
        return _columns([posterior.everywhere() for posterior in self._posteriors])

    def at(self, rows: Rows) -> tuple[Floats, Floats]:
        """Means and deviations at any rows, on the warped scales: [n, Q] each."""
        if not self._hyper:
            return np.empty((len(rows), 0)), np.empty((len(rows), 0))
        return _columns([posterior.at(rows) for posterior in self._posteriors])


def _columns(moments: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[Floats, Floats]:
    means, deviations = zip(*moments, strict=True)
    return np.stack(means, axis=1).astype(np.float64), np.stack(deviations, axis=1).astype(np.float64)
