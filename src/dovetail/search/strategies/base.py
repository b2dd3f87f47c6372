"""What a strategy is, and the ledger that keeps all of them inside the space, feasible and free of repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from dovetail.search.problem import Problem
from dovetail.search.space import Row, Rows

__all__ = ["ENUMERABLE", "Ledger", "Strategy", "feasible_chunks"]

ENUMERABLE = 1 << 22
"""Spaces of up to this many rows are listed and priced whole; larger ones are sampled."""

CHUNK = 1 << 16
DRAWS = 32  # samples without a new row among them before drawing gives up
WALKS = 12  # rounds of random walks that spread a sample where few uniform draws are feasible
REPAIR_STEPS = 200


class Strategy(Protocol):
    """How the next plan is chosen.

    A strategy suggests canonical rows that keep every constraint on costs, none twice, and never a row that it has
    been told about. What it suggests follows from the problem (its seed included), the sequence of calls and nothing
    else.
    """

    def ask(self, n: int) -> list[Row]:
        """Up to `n` rows to evaluate next, fewer only where fewer are left; [] means that nothing is."""

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        """Learn what a row scored.

        Any row of the space may be told, asked for or not: a study that is continued tells its past first.

        Args:
            row: choice indices.
            values: all objectives in the problem's order, costs included; None, or any value that is not finite, for
                a trial that failed.
        """


class Ledger:
    """Which plans of a problem may still be suggested.

    Args:
        problem: what is searched.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._seen: set[Row] = set()
        self._shuffled: Iterator[int] | None = None

    def __len__(self) -> int:
        return len(self._seen)

    def canonical(self, row: Row) -> Row:
        """The first row of the space that spells the same plan."""
        return self.problem.space.canonical(row)

    def is_new(self, row: Row) -> bool:
        """Whether the plan that a row spells has been neither suggested nor told."""
        return self.canonical(row) not in self._seen

    def may_suggest(self, row: Row) -> bool:
        """Whether the plan that a row spells is new and feasible."""
        return self.is_new(row) and bool(self.problem.is_feasible(np.asarray([row]))[0])

    def mark(self, row: Row) -> Row:
        """Take a plan out; returns its canonical row."""
        if row not in self._seen:
            row = self.canonical(self.problem.space.check(row))
            self._seen.add(row)
        return row

    def draw(self, rng: np.random.Generator) -> Row | None:
        """A random plan that may be suggested, or None where none is left (in a space too large to list: where none
        is found)."""
        if self.problem.space.size > ENUMERABLE:
            return self._draw_sampled(rng)
        if self._shuffled is None:
            listed = [index for index, _ in feasible_chunks(self.problem)]
            self._shuffled = iter(rng.permutation(np.concatenate(listed)).tolist() if listed else ())
        for index in self._shuffled:
            row = self.problem.space.row_at(index)
            if row not in self._seen:
                return row
        return None

    def sample(self, rng: np.random.Generator, count: int) -> Rows:
        """Up to `count` distinct random rows, canonical and feasible, seen or not.

        Uniform draws where enough of them are feasible; else random walks from those that are, or from a repaired row.
        """
        space = self.problem.space
        rows = self._feasible(rng.integers(0, space.shape, (count, len(space.shape))))
        if 4 * len(rows) >= count:
            return rows
        if not len(rows) and (found := self._repair(rng)) is not None:
            rows = np.array([found])
        for _ in range(WALKS if len(rows) else 0):
            moved = rows[rng.integers(0, len(rows), count)]
            for _ in range(2):
                column = rng.integers(0, len(space.shape), count)
                moved[np.arange(count), column] = rng.integers(0, np.asarray(space.shape)[column])
            rows = distinct(np.concatenate([rows, self._feasible(moved)]))
            rows = rows[rng.permutation(len(rows))[:count]]
        return rows

    def _feasible(self, rows: Rows) -> Rows:
        rows = distinct(_canonical(self.problem, rows))
        return rows[self.problem.is_feasible(rows)]

    def _draw_sampled(self, rng: np.random.Generator) -> Row | None:
        for _ in range(DRAWS):
            rows = self.sample(rng, 64)
            for row in map(tuple, rows[rng.permutation(len(rows))].tolist()):
                if row not in self._seen:
                    return row
            if not len(rows):
                return None
        return self._repair(rng)

    def _repair(self, rng: np.random.Generator) -> Row | None:
        """Walk from a random row, one decision at a time, to ever smaller violation of the constraints on costs."""
        space = self.problem.space
        row = np.array([rng.integers(n) for n in space.shape])
        for _ in range(REPAIR_STEPS):
            near = _canonical(self.problem, neighbours(row, space.shape))
            excess = violation(self.problem, near)
            new = [i for i in np.flatnonzero(excess <= 0) if tuple(near[i].tolist()) not in self._seen]
            if new:
                return tuple(near[rng.choice(new)].tolist())
            best = np.flatnonzero(excess == excess.min())
            row = near[rng.choice(best)]
        return None


def feasible_chunks(problem: Problem, start: int = 0) -> Iterator[tuple[np.ndarray, Rows]]:
    """The space from `start` on in chunks: positions and rows of what is canonical and feasible."""
    for first in range(start, problem.space.size, CHUNK):
        rows = problem.space.rows(first, first + CHUNK)
        index = np.flatnonzero(problem.space.is_canonical(rows))
        index = index[problem.is_feasible(rows[index])]
        if len(index):
            yield first + index, rows[index]


def distinct(rows: Rows) -> Rows:
    """Rows without repeats, in an order of their own: by a 64-bit hash, ten times as fast as sorting them whole."""
    weights = np.random.default_rng(0).integers(1, 1 << 62, rows.shape[1]) | 1
    return rows[np.unique(rows @ weights, return_index=True)[1]]


def neighbours(row: Rows, shape: tuple[int, ...]) -> Rows:
    """All rows that differ in one decision."""
    changed = []
    for d, count in enumerate(shape):
        others = np.repeat(row[None], count - 1, axis=0)
        others[:, d] = [c for c in range(count) if c != row[d]]
        changed.append(others)
    return np.concatenate(changed) if changed else np.empty((0, 0), dtype=np.int64)


def violation(problem: Problem, rows: Rows) -> np.ndarray:
    """By how much rows break the constraints on costs, as a share of each limit, summed: 0 where feasible."""
    prices = problem.price(rows)
    total = np.zeros(len(rows))
    for c in problem.cost_constraints:
        beyond = prices[c.metric] - c.limit if c.op == "<=" else c.limit - prices[c.metric]
        total += np.maximum(beyond, 0) / max(abs(c.limit), 1e-12)
    return total


def _canonical(problem: Problem, rows: Rows) -> Rows:
    return np.stack([np.asarray(d.first_equal)[rows[:, i]] for i, d in enumerate(problem.space.decisions)], axis=1)
