"""Functions of a plan as sums over single decisions and pairs of them, and the integer programs over such sums.

Costs are of this form exactly, or nearly so: weight bits add up over decisions, BitOPs pair the formats of weight and
data_in, parameters pair the widths of neighbours. Losses are taken to be of this form for small changes (HAWQ-V3, Yao
et al. 2021, arXiv:2011.10680).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from dovetail.search.space import Row, Rows

__all__ = ["Bound", "PairwiseSum", "expand", "minimise"]

Table = NDArray[np.float64]
_CHUNK = 1 << 21  # entries of the rows that are priced at once


@dataclass(frozen=True)
class PairwiseSum:
    """`constant + sum_d singles[d][row[d]] + sum_(d,e) pairs[d, e][row[d], row[e]]`.

    Args:
        constant: the value where all tables are 0.
        singles: per decision, one number per choice.
        pairs: per pair of decisions d < e, one number per pair of choices; pairs that are left out are 0.
    """

    constant: float
    singles: tuple[Table, ...]
    pairs: Mapping[tuple[int, int], Table] = field(default_factory=dict)

    def __call__(self, rows: Rows) -> Table:
        """Values of rows [n, decisions]: [n]."""
        total = np.full(len(rows), self.constant)
        for d, table in enumerate(self.singles):
            total += table[rows[:, d]]
        for (d, e), table in self.pairs.items():
            total += table[rows[:, d], rows[:, e]]
        return total

    def __add__(self, other: PairwiseSum) -> PairwiseSum:
        pairs = dict(self.pairs)
        for key, table in other.pairs.items():
            pairs[key] = pairs[key] + table if key in pairs else table
        singles = tuple(a + b for a, b in zip(self.singles, other.singles, strict=True))
        return PairwiseSum(self.constant + other.constant, singles, pairs)

    def scaled(self, factor: float) -> PairwiseSum:
        """The sum times a number."""
        pairs = {key: factor * table for key, table in self.pairs.items()}
        return PairwiseSum(factor * self.constant, tuple(factor * table for table in self.singles), pairs)


@dataclass(frozen=True)
class Bound:
    """`low <= function(row) <= high`."""

    function: PairwiseSum
    low: float = -np.inf
    high: float = np.inf


def expand(function: Callable[[Rows], Table], shape: Sequence[int], origin: Row) -> PairwiseSum:
    """The second-order expansion of a function around a row, from its values at rows one and two decisions away.

    Exact wherever no three decisions multiply each other.

    Args:
        function: rows [n, decisions] -> values [n].
        shape: choices per decision.
        origin: the row to expand around.
    """
    start = np.asarray([origin], dtype=np.int64)
    constant = float(function(start)[0])
    singles = []
    for d, count in enumerate(shape):
        rows = np.repeat(start, count, axis=0)
        rows[:, d] = np.arange(count)
        singles.append(np.asarray(function(rows), dtype=np.float64) - constant)
    scale = max([abs(constant), *(float(np.abs(s).max()) for s in singles)])
    pairs = {}
    for chunk in _chunks(shape):
        values = function(np.concatenate([_pair_rows(start, shape, d, e) for d, e in chunk])) - constant
        for d, e in chunk:
            count = shape[d] * shape[e]
            table = values[:count].reshape(shape[d], shape[e]) - singles[d][:, None] - singles[e][None, :]
            values = values[count:]
            if np.abs(table).max() > 1e-12 * scale:  # beyond rounding
                pairs[d, e] = table
    return PairwiseSum(constant, tuple(singles), pairs)


def _pair_rows(start: Rows, shape: Sequence[int], d: int, e: int) -> Rows:
    rows = np.repeat(start, shape[d] * shape[e], axis=0)
    rows[:, d] = np.repeat(np.arange(shape[d]), shape[e])
    rows[:, e] = np.tile(np.arange(shape[e]), shape[d])
    return rows


def _chunks(shape: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Pairs of decisions that can still interact, in lots whose rows fit the memory bound."""
    chunk: list[tuple[int, int]] = []
    entries = 0
    for d, e in combinations([d for d, count in enumerate(shape) if count > 1], 2):
        chunk.append((d, e))
        entries += shape[d] * shape[e] * len(shape)
        if entries > _CHUNK:
            yield chunk
            chunk, entries = [], 0
    if chunk:
        yield chunk


def minimise(
    function: PairwiseSum,
    bounds: Sequence[Bound] = (),
    exclude: Iterable[Row] = (),
    *,
    gap: float = 1e-6,
    time_limit_s: float = 10.0,
) -> Row | None:
    """The row with the smallest value within bounds, exactly, by a mixed-integer linear program (HiGHS).

    One binary x[d, c] per choice, summing to 1 per decision; per pair that interacts, z[c, c'] >= 0 with row sums
    x[d, c] and column sums x[e, c'], which makes z the product of the two.

    Args:
        function: what to minimise.
        bounds: what must hold.
        exclude: rows that must not be the answer.
        gap: how far from the optimum the answer may be, as a share of its value.
        time_limit_s: after this long, the best row found so far.

    Returns:
        A row, or None where no row keeps the bounds.
    """
    program = _Program(function, bounds)
    for row in exclude:
        program.exclude(row)
    return program.solve(gap, time_limit_s)


class _Program:
    """The linear program of `minimise`: columns for choices, then for pairs of choices."""

    def __init__(self, function: PairwiseSum, bounds: Sequence[Bound]) -> None:
        self._shape = tuple(len(table) for table in function.singles)
        self._starts = np.concatenate([[0], np.cumsum(self._shape)]).astype(np.int64)
        self._pairs: dict[tuple[int, int], int] = {}
        columns = int(self._starts[-1])
        for key in sorted({key for f in (function, *(b.function for b in bounds)) for key in f.pairs}):
            self._pairs[key] = columns
            columns += self._shape[key[0]] * self._shape[key[1]]
        self._num_columns = columns
        self._objective = self._coefficients(function)
        self._rows: list[tuple[NDArray[np.int64], Table, float, float]] = []
        self._add_products()
        for bound in bounds:
            self._add_bound(bound)

    def _coefficients(self, function: PairwiseSum) -> Table:
        dense = np.zeros(self._num_columns)
        dense[: self._starts[-1]] = np.concatenate([np.asarray(table) for table in function.singles])
        for key, table in function.pairs.items():
            dense[self._pairs[key] : self._pairs[key] + table.size] = table.ravel()
        return dense

    def _add_products(self) -> None:
        for d, count in enumerate(self._shape):
            self._rows.append((np.arange(count) + self._starts[d], np.ones(count), 1.0, 1.0))
        for (d, e), start in self._pairs.items():
            cells = start + np.arange(self._shape[d] * self._shape[e]).reshape(self._shape[d], self._shape[e])
            lines = [(self._starts[d] + c, cells[c]) for c in range(self._shape[d])]
            lines += [(self._starts[e] + c, cells[:, c]) for c in range(self._shape[e])]
            for choice, line in lines:
                self._rows.append((np.append(line, choice), np.append(np.ones(len(line)), -1.0), 0.0, 0.0))

    def _add_bound(self, bound: Bound) -> None:
        dense = self._coefficients(bound.function)
        used = np.flatnonzero(dense)
        scale = float(np.abs(dense).max()) or 1.0  # so that the solver's absolute tolerance means the same everywhere
        low, high = ((side - bound.function.constant) / scale for side in (bound.low, bound.high))
        self._rows.append((used, dense[used] / scale, low, high))

    def exclude(self, row: Row) -> None:
        columns = self._starts[:-1] + np.asarray(row, dtype=np.int64)
        self._rows.append((columns, np.ones(len(row)), -np.inf, len(row) - 1.0))

    def solve(self, gap: float, time_limit_s: float) -> Row | None:
        lengths = [len(columns) for columns, _, _, _ in self._rows]
        index = (np.repeat(np.arange(len(lengths)), lengths), np.concatenate([columns for columns, *_ in self._rows]))
        data = np.concatenate([values for _, values, _, _ in self._rows])
        matrix = coo_array((data, index), shape=(len(lengths), self._num_columns)).tocsr()
        scale = float(np.abs(self._objective).max()) or 1.0
        num_choices = int(self._starts[-1])
        result = milp(
            self._objective / scale,
            constraints=LinearConstraint(matrix, [low for *_, low, _ in self._rows], [high for *_, high in self._rows]),
            integrality=(np.arange(self._num_columns) < num_choices).astype(int),
            bounds=Bounds(0, 1),
            options={"time_limit": time_limit_s, "mip_rel_gap": gap},
        )
        if result.x is None:
            return None
        parts = np.split(result.x[:num_choices], self._starts[1:-1])
        return tuple(int(part.argmax()) for part in parts)
