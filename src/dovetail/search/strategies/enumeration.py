"""Exhaustive search: every feasible plan once, in bulk, in the order that shares most work or in a shuffled one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from dovetail.search.problem import Problem
from dovetail.search.space import Row, Space
from dovetail.search.strategies.base import Ledger

__all__ = ["BruteForceStrategy", "GridStrategy"]

CHUNK = 1 << 14


class BruteForceStrategy:
    """Every feasible canonical plan, neighbours in the enumeration sharing the longest prefix of the network.

    Decisions on width change the model's shape and vary slowest; formats follow in the order of the graph, the last
    one varying fastest, so that evaluators that remember values of earlier layers compute little more than the last
    layer for most plans. What has been told is not
    suggested: a search that was stopped goes on where it was.

    Args:
        problem: what is searched.
        budget: not used.
    """

    def __init__(self, problem: Problem, budget: int | None = None) -> None:
        self._ledger = Ledger(problem)
        self._rows = _in_sharing_order(problem)

    def ask(self, n: int) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < n and (row := next(self._rows, None)) is not None:
            if self._ledger.is_new(row):
                rows.append(self._ledger.mark(row))
        return rows

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        self._ledger.mark(row)


def _in_sharing_order(problem: Problem) -> Iterator[Row]:
    decisions = problem.space.decisions
    order = sorted(range(len(decisions)), key=lambda d: decisions[d].kind != "width")
    turned = Space(tuple(decisions[d] for d in order))
    back = np.argsort(order)
    for start in range(0, turned.size, CHUNK):
        rows = turned.rows(start, start + CHUNK)[:, back]
        rows = rows[problem.space.is_canonical(rows)]
        rows = rows[problem.is_feasible(rows)]
        yield from map(tuple, rows.tolist())


class GridStrategy:
    """Every feasible canonical plan in a random order that follows from the seed, without listing the space.

    Optuna's GridSampler does the same at 20 ms a trial, growing with their number; this takes microseconds.

    Args:
        problem: what is searched.
        budget: not used.
    """

    def __init__(self, problem: Problem, budget: int | None = None) -> None:
        self._problem = problem
        self._ledger = Ledger(problem)
        self._indices = shuffled_range(problem.space.size, problem.seed)

    def ask(self, n: int) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < n and (index := next(self._indices, None)) is not None:
            row = self._problem.space.row_at(index)
            if self._ledger.canonical(row) == row and self._ledger.may_suggest(row):
                rows.append(self._ledger.mark(row))
        return rows

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        self._ledger.mark(row)


def shuffled_range(size: int, seed: int) -> Iterator[int]:
    """0..size-1 in a random order, in constant memory.

    A four-round Feistel network over the next even power of two; its values beyond the range are skipped.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1

    def mix(value: int, turn: int) -> int:
        digest = hashlib.blake2b(f"{seed}:{turn}:{value}".encode(), digest_size=max(half // 8 + 1, 8)).digest()
        return int.from_bytes(digest, "big") & mask

    for index in range(1 << (2 * half)):
        left, right = index >> half, index & mask
        for turn in range(4):
            left, right = right, left ^ mix(right, turn)
        value = left << half | right
        if value < size:
            yield value
