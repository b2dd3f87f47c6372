"""Sensitivities, then an integer program: for spaces too large to enumerate.

Every decision's effect on quality is measured once, alone, from the sharpest plan that keeps the constraints; choices
that would break a constraint are extrapolated. Under the assumption that small effects add up, a solver picks the best
plan for each of a ladder of budgets, and these plans are evaluated for real. Where what was measured departs from what
was predicted, the pair of decisions most likely at fault is measured together and enters the model as a second-order
term. (HAWQ-V3, Yao et al. 2021, arXiv:2011.10680, for the integer program; the ladder and the measured pairs are ours.)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from dovetail.search.feasible import bounds, cost_sums, sharpest
from dovetail.search.pairwise import Bound, PairwiseSum, minimise
from dovetail.search.problem import Problem
from dovetail.search.space import Row

__all__ = ["IntegerProgram"]

_RUNGS = 8
_GOLDEN = (5**0.5 - 1) / 2
_TIGHTENINGS = 4
_SUSPECTS = 6  # moves of a badly predicted row whose pairs are measured
_GAP = 1e-3  # of predicted harm, which is known less well than that
_TIME_LIMIT_S = 2.0


class IntegerProgram:
    """A strategy: one-at-a-time sensitivities, then the optima of an integer program under a ladder of budgets.

    Args:
        problem: what to search.
        budget: how many evaluations there will be, or None; unused beyond the order of proposals.
    """

    def __init__(self, problem: Problem, budget: int | None = None) -> None:
        self._problem = problem
        self._shape = problem.space.shape
        self._costs = cost_sums(problem)
        self._asked: set[Row] = set()
        self._harm: dict[Row, float] = {}
        self._bars_lifted = False
        self._origin = self._sharpest_feasible()
        self._queue: deque[Row] = deque(self._probes() if problem.quality_objectives else [])
        self._round = 0

    def ask(self, n: int) -> list[Row]:
        """Up to n rows that were not asked before; none where nothing is left to propose."""
        rows: list[Row] = []
        while len(rows) < n:
            if not self._queue:
                if rows:  # what is told of these makes the next proposals better
                    break
                self._queue.extend(self._propose())
                if not self._queue:
                    break
            row = self._queue.popleft()
            if row not in self._asked:
                self._asked.add(row)
                rows.append(row)
        return rows

    def tell(self, row: Sequence[int], values: Sequence[float] | None) -> None:
        """Take in what an evaluation found: all objectives in order, or None where it failed."""
        known = self._problem.space.canonical(row)
        self._asked.add(known)
        harm = math.inf
        if values is not None:
            terms = ((self._problem.objectives[i], values[i]) for i in self._problem.quality_objectives)
            harm = -math.fsum(o.sign * o.scale * v for o, v in terms)
        self._harm[known] = harm if math.isfinite(harm) else math.inf

    def _sharpest_feasible(self) -> Row:
        """The row with the most precision and width that keeps the constraints; the sharpest where none does."""
        row = sharpest(self._problem)
        if self._is_feasible(row):
            return row
        dullness = [-np.log(np.asarray(d.sizes)) for d in self._problem.space.decisions]
        return self._solve(PairwiseSum(0.0, tuple(dullness)), [], set()) or row

    def _probes(self) -> list[Row]:
        """The origin, then each other choice alone, the sharper ones first; those that keep the constraints."""
        rows = [self._origin]
        for d, decision in enumerate(self._problem.space.decisions):
            choices = sorted(range(decision.num_choices), key=lambda c: -decision.sizes[c])
            rows += [self._moved((d, choice)) for choice in choices]
        feasible = self._problem.is_feasible(np.array(rows, dtype=np.int64))
        return [row for row, may in zip(rows, feasible, strict=True) if may]

    def _is_feasible(self, row: Row) -> bool:
        return bool(self._problem.is_feasible(np.array([row], dtype=np.int64))[0])

    def _moved(self, *moves: tuple[int, int]) -> Row:
        row = list(self._origin)
        for d, choice in moves:
            row[d] = choice
        return self._problem.space.canonical(row)

    def _propose(self) -> list[Row]:
        """The next lot of rows: measured pairs that the model needs, and the optima of the ladder."""
        model = self._model()
        rows = list(dict.fromkeys([*self._pairs_at_fault(model), *self._climb(model)]))
        self._round += 1
        if not rows and not self._bars_lifted:  # all else is asked: what failed alone may do in company
            self._bars_lifted = True
            return self._propose()
        return rows

    def _model(self) -> PairwiseSum:
        """Predicted harm to quality: single effects as measured, and rank-one terms for the measured pairs."""
        base = self._harm.get(self._origin, math.inf)
        if not math.isfinite(base):  # without a reference: prefer precision
            base = 0.0
        finite = [h - base for h in self._harm.values() if math.isfinite(h)]
        worst = 10 * max([abs(h) for h in finite], default=1.0) + 1.0
        singles = tuple(self._single_effects(d, base, worst) for d in range(len(self._shape)))
        model = PairwiseSum(base, singles)
        pairs: dict[tuple[int, int], NDArray[np.float64]] = {}
        for row, harm in self._harm.items():
            moved = [d for d, (c, o) in enumerate(zip(row, self._origin, strict=True)) if c != o]
            if len(moved) == 2 and math.isfinite(harm):
                d, e = moved
                a, b = singles[d][row[d]], singles[e][row[e]]
                if a > 0 and b > 0:
                    interaction = harm - base - a - b
                    shape_d, shape_e = np.clip(singles[d] / a, 0, 2), np.clip(singles[e] / b, 0, 2)
                    pairs[d, e] = interaction * np.outer(shape_d, shape_e)
        return PairwiseSum(model.constant, singles, pairs)

    def _single_effects(self, d: int, base: float, worst: float) -> NDArray[np.float64]:
        """Harm of each choice of a decision: as measured; `worst` where it failed; extrapolated where it is unknown.

        Unknown choices follow the noise of rounding, whose power is 4 ** -bits, or for widths one over the channels,
        fitted to the measured choices by least squares.
        """
        decision = self._problem.space.decisions[d]
        sizes = np.asarray(decision.sizes)
        noise = 4.0**-sizes if decision.kind == "precision" else 1 / sizes
        noise = (noise - noise[self._origin[d]]) / max(float(np.ptp(noise)), 1e-300)
        rows = [self._moved((d, c)) for c in range(self._shape[d])]
        effects = np.array([self._harm.get(row, math.nan) - base for row in rows])
        effects[np.isposinf(effects)] = worst
        known = np.flatnonzero(~np.isnan(effects) & (effects != worst))
        power = float(noise[known] @ noise[known]) if len(known) else 0.0
        slope = max(float(noise[known] @ effects[known]) / power, 0.0) if power > 0 else 1e-3
        unknown = np.isnan(effects)
        effects[unknown] = slope * noise[unknown]
        return effects

    def _barred(self) -> list[Bound]:
        """No answer holds a choice that failed when it was probed alone, as long as others are left."""
        if self._bars_lifted:
            return []
        failed = [row for row, harm in self._harm.items() if math.isinf(harm) and row != self._origin]
        singles = tuple(np.zeros(n) for n in self._shape)
        for row in failed:
            moved = [d for d, (c, o) in enumerate(zip(row, self._origin, strict=True)) if c != o]
            if len(moved) == 1:
                singles[moved[0]][row[moved[0]]] = 1.0
        return [Bound(PairwiseSum(0.0, singles), high=0.5)] if any(table.any() for table in singles) else []

    def _pairs_at_fault(self, model: PairwiseSum) -> list[Row]:
        """For the rows that were predicted worst, the pair of their moves with the largest effects not measured yet."""
        if not self._harm:
            return []
        rows = [row for row, harm in self._harm.items() if math.isfinite(harm)]
        if not rows:
            return []
        actual = np.array([self._harm[row] for row in rows])
        errors = np.abs(actual - model(np.array(rows, dtype=np.int64)))
        spread = float(actual.max() - actual.min())
        found: dict[Row, None] = {}
        for i in np.argsort(-errors, kind="stable")[:_RUNGS]:
            if errors[i] <= 0.05 * spread:
                break
            moves = [(d, c) for d, (c, o) in enumerate(zip(rows[i], self._origin, strict=True)) if c != o]
            moves.sort(key=lambda move: -model.singles[move[0]][move[1]])
            pairs = (self._moved(*pair) for pair in combinations(moves[:_SUSPECTS], 2))
            fresh = (row for row in pairs if row not in self._asked and row not in found and self._is_feasible(row))
            found.update(dict.fromkeys(islice(fresh, 1)))
        return list(found)

    def _climb(self, model: PairwiseSum) -> Iterator[Row]:
        """One row per rung: the best not asked yet within the rung's budget."""
        taken = set(self._asked)
        for rung in self._ladder(model):
            row = self._solve(rung[0], rung[1], taken)
            if row is not None:
                taken.add(row)
                yield row

    def _ladder(self, model: PairwiseSum) -> Iterator[tuple[PairwiseSum, list[Bound]]]:
        """(what to minimise, within which bounds) per rung."""
        problem = self._problem
        if problem.weighted_sum:
            total = model
            for i in problem.cost_objectives:
                objective = problem.objectives[i]
                total = total + self._costs[objective.name].scaled(-objective.sign * objective.scale)
            for _ in range(_RUNGS):
                yield total, []
            return
        if not problem.cost_objectives:
            for _ in range(_RUNGS):
                yield model, []
            return
        for i in problem.cost_objectives:
            objective = problem.objectives[i]
            cost = self._costs[objective.name].scaled(-objective.sign)
            ends = self._ends(cost)
            if ends is None:
                return
            low, high = ends
            tie = 1e-6 / max(high - low, 1e-300)  # of equal quality, the cheaper
            for limit in _budgets(low, high, self._round):
                yield model + cost.scaled(tie), [Bound(cost, high=limit + 1e-9 * abs(limit))]

    def _ends(self, cost: PairwiseSum) -> tuple[float, float] | None:
        """The cheapest and the dearest value of a cost that the constraints allow; None where they allow nothing."""
        within = [*bounds(self._problem, self._costs), *self._barred()]
        rows = [minimise(cost.scaled(sign), within) for sign in (1.0, -1.0)]
        if rows[0] is None or rows[1] is None:
            return None
        low, high = cost(np.array(rows, dtype=np.int64))
        return float(low), float(high)

    def _solve(self, objective: PairwiseSum, budget: list[Bound], taken: set[Row]) -> Row | None:
        """The optimum that is not taken and keeps the constraints exactly.

        Expansions of costs can be off where three decisions multiply; a row that breaks a constraint in truth is
        excluded and the program solved again.
        """
        excluded = set(taken)
        for _ in range(_TIGHTENINGS):
            within = [*bounds(self._problem, self._costs), *self._barred(), *budget]
            row = minimise(objective, within, sorted(excluded), gap=_GAP, time_limit_s=_TIME_LIMIT_S)
            if row is None:
                return None
            canonical = self._problem.space.canonical(row)
            if canonical not in taken and self._is_feasible(canonical):
                return canonical
            excluded |= {row, canonical}
        return None


def _budgets(low: float, high: float, turn: int) -> list[float]:
    """Budgets from low to high, evenly spaced in their logarithm where all are positive.

    Both ends come first; later turns fall between the rungs of earlier ones (golden-ratio shifts) and keep the high
    end, within which every row lies.
    """
    shares = np.linspace(0, 1, _RUNGS)
    if turn:
        shares = np.append((np.arange(_RUNGS - 1) + turn * _GOLDEN % 1) / (_RUNGS - 1), 1.0)
    if low > 0:
        return [float(low * (high / low) ** share) for share in shares]
    return [float(low + (high - low) * share) for share in shares]
