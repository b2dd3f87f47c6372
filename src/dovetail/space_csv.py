"""Every plan of a space priced into a CSV, as fast as it can be priced.

Consecutive plans differ in their last decisions alone, so plans are taken in blocks, which are grids: some in a row of
the texts of the first decisions, each with all of the texts of the last ones, which are spelt once. A cost that some
decisions do not change is worked out and spelt once for them too. A block's rows are laid out in one matrix of bytes,
which is squeezed into text; NumPy does most of it without holding Python's lock, so blocks are worked on side by side.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dovetail.costs import COSTS, CostModel
from dovetail.report.number_text import TextMatrix, number_matrix, text_matrix
from dovetail.report.run_files import write_atomically
from dovetail.search.space import Decision, Row, Space

__all__ = ["Extremes", "find_extremes", "merge_extremes", "write_priced_space"]

Extremes = dict[str, tuple[float, float]]
"""Least and most of each cost; NaN where it is nothing else."""

_BLOCK = 1 << 15  # plans at a time: some 10 MB of text, and thrice that to work on it
_WORKERS = 4  # at most: pricing holds Python's lock for a third of its time, so more would wait for each other


def find_extremes(prices: Mapping[str, NDArray[np.float64]]) -> Extremes:
    """Of some plans' costs."""
    return {
        name: (float(np.fmin.reduce(v, axis=None)), float(np.fmax.reduce(v, axis=None))) for name, v in prices.items()
    }


def merge_extremes(some: Extremes, others: Extremes) -> Extremes:
    """Of two lots of plans together."""
    return {
        name: (float(np.fmin(low, others[name][0])), float(np.fmax(high, others[name][1])))
        for name, (low, high) in some.items()
    }


def write_priced_space(space: Space, costs: CostModel, path: Path) -> Extremes:
    """Price every plan into a CSV, a column per decision and per cost; none is built or evaluated.

    Labels stand as the space has them; whole costs as integers, others as the shortest text that reads back to the same
    float. Memory is bounded by a few blocks of plans, however large the space.

    Returns:
        Least and most of each cost over the space.

    Raises:
        StudyError: The file cannot be written; what stood there before stays.
    """
    names = tuple(COSTS)
    with write_atomically(path) as file:
        csv.writer(file, lineterminator="\n").writerow([*(d.name for d in space.decisions), *names])
        file.flush()
        extremes = dict.fromkeys(names, (math.nan, math.nan))
        for text, found in _in_parallel(_Blocks(space, costs, names)):
            file.buffer.write(text.data)
            extremes = merge_extremes(extremes, found)
    return extremes


Written = tuple[NDArray[np.uint8], Extremes]


def _in_parallel(blocks: _Blocks) -> Iterator[Written]:
    """The blocks in order, worked on side by side, few ahead of the one that is asked for."""
    yield blocks.write(0)  # compiles the closed forms, which the others share
    num_workers = min(_WORKERS, os.cpu_count() or 1)
    pending: deque[Future[Written]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for start in range(blocks.step, blocks.space.size, blocks.step):
                pending.append(pool.submit(blocks.write, start))
                if len(pending) > num_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # where the file cannot be written, say, or the user has had enough
            pool.shutdown(cancel_futures=True)


class _Blocks:
    """A space cut into runs of plans: `num_first` texts of the first decisions, each with all of the last decisions.

    Args:
        space: the space.
        costs: what prices it.
        names: the costs wanted.
    """

    def __init__(self, space: Space, costs: CostModel, names: Sequence[str]) -> None:
        self.space, self._costs, self._names = space, costs, names
        split = len(space.shape)
        while split > 0 and math.prod(space.shape[split - 1 :]) <= _BLOCK:
            split -= 1
        self._split = split
        self._last_shape = space.shape[split:]
        self._num_last = math.prod(self._last_shape)
        self.step = _BLOCK // self._num_last * self._num_last
        """Plans in a block; the last one may have fewer."""

    @functools.cached_property
    def _last_labels(self) -> TextMatrix:
        cells = itertools.product(*(_cells(decision) for decision in self.space.decisions[self._split :]))
        return text_matrix([b"".join(row) for row in cells])

    @functools.cached_property
    def _first_cells(self) -> tuple[tuple[bytes, ...], ...]:
        return tuple(_cells(decision) for decision in self.space.decisions[: self._split])

    @functools.cached_property
    def _last_choices(self) -> tuple[NDArray[np.int64], ...]:
        """Of each last decision, along an axis of its own; the first axis is the first decisions'."""
        return tuple(grid[None] for grid in np.indices(self._last_shape, sparse=True))

    def write(self, start: int) -> Written:
        """The CSV's lines from plan `start`, the first of a block, to the end of that block; and extremes of costs."""
        plans = range(start, min(start + self.step, self.space.size), self._num_last)
        first = [self.space.row_at(plan)[: self._split] for plan in plans]
        shape, lone = (len(plans), *self._last_shape), (1,) * len(self._last_shape)
        along_first = np.array(first, dtype=np.int64).T.reshape(self._split, len(plans), *lone)
        choices = [*along_first, *self._last_choices]
        prices = self.space.price_grid(self._costs, choices, self._names)
        columns = [_at(self._first_labels(first), (len(plans), *lone)), _at(self._last_labels, (1, *self._last_shape))]
        varying = {name: _collapse(prices[name], len(shape)) for name in self._names}
        for values in varying.values():
            columns += [_at(number_matrix(values.ravel()), values.shape), _COMMA]
        columns[-1] = _NEWLINE
        return _squeeze(columns, shape), find_extremes(varying)

    def _first_labels(self, first: Sequence[Row]) -> TextMatrix:
        chosen = ((cells[c] for cells, c in zip(self._first_cells, row, strict=True)) for row in first)
        return text_matrix([b"".join(cells) for cells in chosen])


_COMMA, _NEWLINE = np.frombuffer(b",", np.uint8), np.frombuffer(b"\n", np.uint8)


def _cells(decision: Decision) -> tuple[bytes, ...]:
    """Its labels as cells of a CSV, each with the comma that follows it."""
    return tuple(_cell(label) + b"," for label in decision.labels)


def _cell(label: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([label])
    return text.getvalue().encode()


def _at(texts: TextMatrix, shape: tuple[int, ...]) -> TextMatrix:
    return texts.reshape(*shape, texts.shape[-1])


def _collapse(values: NDArray[np.float64], num_axes: int) -> NDArray[np.float64]:
    """The values with so many axes, each along which nothing changes cut to length 1."""
    bits = values.reshape((1,) * (num_axes - values.ndim) + values.shape).view(np.int64)  # as NaN differs from itself
    for axis in range(bits.ndim):
        along = bits.swapaxes(axis, 0)
        if all(along[0].flat[0] == other.flat[0] and np.array_equal(along[0], other) for other in along[1:]):
            bits = bits.take([0], axis)
    return bits.view(np.float64)


def _squeeze(columns: Sequence[TextMatrix], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Texts side by side, each broadcast to the shape, as one run of bytes without the zeros between them."""
    ends = np.cumsum([column.shape[-1] for column in columns])
    lines = np.empty((*shape, ends[-1]), np.uint8)
    for column, end in zip(columns, ends, strict=True):
        lines[..., end - column.shape[-1] : end] = column
    text: NDArray[np.uint8] = lines[lines != 0]
    return text
