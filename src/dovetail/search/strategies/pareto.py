"""The default strategy: costs are known, so only quality is modelled.

A Gaussian process per quality over plans; the next plan has the largest expected gain in hypervolume with its exact
costs plugged in (for a weighted sum: the largest expected improvement, the known part added). Small spaces are scored
whole at every step. Of larger ones a pool is chosen anew with each refit: what promises most of all plans where they
can be listed; else a sample, whose best are improved by changing one decision at a time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dovetail.search.front import non_dominated
from dovetail.search.problem import Problem
from dovetail.search.space import Row, Rows
from dovetail.search.strategies.base import Ledger, neighbours
from dovetail.search.strategies.blas import one_blas_thread
from dovetail.search.strategies.cost_scale import CostScale
from dovetail.search.strategies.distances import decision_gaps
from dovetail.search.strategies.gain import Bound, Gain, HypervolumeGain, SumGain, probability_of_keeping
from dovetail.search.strategies.initial_design import spread_along_costs
from dovetail.search.strategies.pool import Pool, list_pool, sample_pool
from dovetail.search.strategies.quality_model import QualityModel
from dovetail.search.strategies.sweep import Listing, largest
from dovetail.search.strategies.warp import IDENTITY

__all__ = ["ParetoStrategy"]

Floats = NDArray[np.float64]

INITIAL = 6  # evaluations before the model chooses
SWEPT = 1 << 13  # plans of a listing, those that may gain most, whose gain is worked out at each refit
KEPT = 1 << 10  # of them, those that gain most stay candidates until the next one
CHUNK = 1 << 18  # plans of a listing whose bounds are computed at once
CLIMBS = 4  # rows of a sampled pool from which to climb
MARGIN = 0.01  # how far beyond the worst cost the reference of the hypervolume lies, as a share of the range


class ParetoStrategy:
    """Expected hypervolume improvement with known costs; see the module.

    Args:
        problem: what is searched: any number of qualities, costs and constraints, as a front or as a weighted sum.
        budget: not used: there is no schedule.
        initial: plans evaluated before the model chooses: the cheapest, the dearest and others spread along the costs.
    """

    def __init__(self, problem: Problem, budget: int | None = None, *, initial: int = INITIAL) -> None:
        self._problem = problem
        self._initial = initial
        self._rng = np.random.default_rng(problem.seed)
        self._ledger = Ledger(problem)
        qualities = len(problem.quality_objectives)
        warped = qualities == 1 and not problem.weighted_sum  # a sum has no scale but its own; boxes split along one
        self._gaps = decision_gaps(problem.space.decisions, problem.rounding_noise() if qualities else ())
        self._model = QualityModel(self._gaps, qualities, warped=warped)
        self._sums: list[float] = []
        self._pending: dict[Row, None] = {}
        self._pool = list_pool(problem) or sample_pool(problem, self._ledger, self._rng, [])
        self._listing = None if self._pool.complete else Listing.of(problem)
        every = self._pool.costs if self._listing is None else self._listing.costs
        self._scale = CostScale.of([problem.objectives[i] for i in problem.cost_objectives], every)
        self._design = self._initial_design()

    def ask(self, n: int) -> list[Row]:
        rows: list[Row] = []
        with one_blas_thread():
            while len(rows) < n and (row := self._next()) is not None:
                self._pending[self._ledger.mark(row)] = None
                rows.append(row)
        return rows

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        row = self._ledger.mark(row)
        self._pending.pop(row, None)
        if values is None or not np.isfinite(values).all():
            self._model.tell(row, None)
            return
        self._model.tell(
            row, np.array([self._problem.objectives[i].sign * values[i] for i in self._problem.quality_objectives])
        )
        self._sums.append(self._problem.scalar(values))

    def _initial_design(self) -> list[Row]:
        """Rows for the first evaluations, along the mean scaled cost, or along size where no cost is an objective."""
        if not len(self._pool.rows):
            return []
        decisions = self._problem.space.decisions
        axis = (
            self._scale(self._pool.costs).mean(axis=1)
            if self._problem.cost_objectives
            else np.zeros(len(self._pool.rows))
        )
        if not self._problem.cost_objectives:
            for d, decision in enumerate(decisions):
                axis -= np.unique(decision.sizes, return_inverse=True)[1][self._pool.rows[:, d]] / max(
                    decision.num_choices - 1, 1
                )
        distances = [gaps.sum(axis=0) for gaps in self._gaps]
        return spread_along_costs(self._pool.rows, axis, distances, self._initial, self._rng)

    def _next(self) -> Row | None:
        while self._design and len(self._ledger) < self._initial:
            if self._ledger.is_new(row := self._design.pop(0)):
                return row
        if not len(self._pool.rows):
            return None
        if not self._problem.quality_objectives or self._model.succeeded.any():
            if self._model.needs_fit and self._problem.quality_objectives:
                self._model.fit()
                if not self._pool.complete:
                    self._pool = self._choose_pool()
                self._model.watch(self._pool.rows)
            self._model.update(self._pending)
            if (best := self._most_promising()) is not None:
                return best
        return self._ledger.draw(self._rng)

    def _choose_pool(self) -> Pool:
        """The candidates until the next refit: those that gain most among all plans that can be listed, else a sample
        around the front."""
        if self._listing is not None:
            self._model.watch(self._pool.rows[:1])
            gain = self._gain()
            if (promise := self._sweep(self._listing, gain)) is not None:
                rows, costs = self._listing.take(largest(promise, SWEPT))
                best = largest(self._score(gain, *self._model.at(rows), costs), KEPT)
                return Pool(rows[best], costs[best], complete=False)
        front = [self._model.rows[i] for i in self._front()[0]]
        return sample_pool(self._problem, self._ledger, self._rng, front)

    def _sweep(self, listing: Listing, gain: Gain) -> Floats | None:
        """What each plan of a listing may gain at most: [P]; None where there is no cheap bound."""
        mean, deviation = self._model.everywhere()
        promise = []
        for start in range(0, len(listing.index), CHUNK):
            part = slice(start, start + CHUNK)
            index = listing.index[part]
            bound = gain.bound(mean[index], deviation[index], self._known(listing.costs[part]))
            if bound is None:
                return None
            promise.append(bound)
        return np.concatenate(promise)

    def _most_promising(self) -> Row | None:
        """The candidate with the largest expected gain, or None where none gains anything."""
        gain, pool = self._gain(), self._pool
        open_P = np.ones(len(pool.rows), dtype=np.bool_)
        open_P[pool.places([*self._model.rows, *self._pending])] = False
        candidates = np.flatnonzero(open_P)
        if not len(candidates):
            return None
        mean_PQ, deviation_PQ = self._model.pool() if self._problem.quality_objectives else self._model.at(pool.rows)
        scores = self._score(gain, mean_PQ[candidates], deviation_PQ[candidates], pool.costs[candidates])
        if pool.complete or self._listing is not None:  # what may gain is in the pool
            top = int(np.argmax(scores))
            return tuple(pool.rows[candidates[top]].tolist()) if scores[top] > 0 else None
        starts = np.argsort(-scores, kind="stable")[:CLIMBS]
        row, score = max(
            (self._climb(gain, pool.rows[candidates[i]], float(scores[i])) for i in starts), key=lambda found: found[1]
        )
        return row if score > 0 else None

    def _climb(self, gain: Gain, row: Rows, score: float) -> tuple[Row, float]:
        """Change one decision at a time while the gain grows."""
        while True:
            near = neighbours(row, self._problem.space.shape)
            near = near[self._problem.space.is_canonical(near)]
            near = near[self._problem.is_feasible(near)]
            near = near[[self._ledger.is_new(tuple(other)) for other in near.tolist()]] if len(near) else near
            if not len(near):
                return tuple(row.tolist()), score
            scores = self._score(gain, *self._model.at(near), self._problem.costs(near))
            if scores.max() <= score:
                return tuple(row.tolist()), score
            row, score = near[int(np.argmax(scores))], float(scores.max())

    def _score(self, gain: Gain, mean_PQ: Floats, deviation_PQ: Floats, costs: Floats) -> Floats:
        bounds = tuple(replace(b, level=float(self._model.warps[b.quality](np.array(b.level)))) for b in self._bounds())
        chance = probability_of_keeping(bounds, mean_PQ, deviation_PQ)
        return gain.of(mean_PQ, deviation_PQ, self._known(costs)) * chance

    def _known(self, costs: Floats) -> Floats:
        """What the gain needs of costs."""
        if self._problem.weighted_sum:
            return costs * self._weights(self._problem.cost_objectives)
        return self._scale(costs)

    def _weights(self, objectives: tuple[int, ...]) -> Floats:
        return np.array([self._problem.objectives[i].sign * self._problem.objectives[i].scale for i in objectives])

    def _bounds(self) -> tuple[Bound, ...]:
        """Limits on qualities that are also objectives, in larger-is-better units; of other metrics nothing is told."""
        names = {
            self._problem.objectives[i].name: (q, self._problem.objectives[i].sign)
            for q, i in enumerate(self._problem.quality_objectives)
        }
        return tuple(
            Bound(
                quality=names[c.metric][0],
                level=names[c.metric][1] * c.limit,
                above=(c.op == ">=") == (names[c.metric][1] > 0),
            )
            for c in self._problem.quality_constraints
            if c.metric in names
        )

    def _front(self) -> tuple[list[int], Floats]:
        """Told rows on the front that keep the limits on qualities, by number, and their points [n, Q + K]."""
        values = self._model.values()
        points = np.hstack([values, self._scale(self._problem.costs(np.array(self._model.rows)))])
        valid = self._model.succeeded
        for bound in self._bounds():
            valid &= values[:, bound.quality] >= bound.level if bound.above else values[:, bound.quality] <= bound.level
        kept = np.flatnonzero(valid)
        kept = kept[non_dominated(points[kept])]
        return kept.tolist(), points[kept]

    def _gain(self) -> Gain:
        if self._problem.weighted_sum:
            weights = np.abs(self._weights(self._problem.quality_objectives))
            return SumGain(weights=weights, best=max(self._sums))
        _, front = self._front()
        qualities, warps = len(self._problem.quality_objectives), self._model.warps
        seen = front[:, :qualities] if len(front) else self._model.values()
        low, high = seen.min(axis=0), seen.max(axis=0)
        below = low - 0.1 * np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
        for q, warp in enumerate(warps):
            front[:, q], below[q] = warp(front[:, q]), warp(below[q])
        if self._pending:
            rows = np.array(list(self._pending))
            believed = np.hstack([self._model.at(rows)[0], self._scale(self._problem.costs(rows))])
            front = np.vstack([front, believed])
            front = front[non_dominated(front)]
        return HypervolumeGain(
            front=front,
            reference=np.append(below, np.full(len(self._problem.cost_objectives), -MARGIN)),
            warp=warps[0] if warps else IDENTITY,
        )
