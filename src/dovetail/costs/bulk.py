"""Costs of many plans at once: closed forms over arrays, chunk by chunk, in bounded memory.

A cost is a sum of terms; terms whose bits hang on the same decisions are one polynomial in the widths, times one array
of bits that is looked up by the choices made. All values are whole numbers in float64: exact up to 2**53.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dovetail.costs.definitions import CostDefinition, Peak, Ratio, Sum
from dovetail.costs.sheet import Block, Linear, Options, Running, Sheet
from dovetail.costs.terms import Storage
from dovetail.formats import Format
from dovetail.plan import Site

__all__ = ["CHUNK", "FormatArrays", "price_broadcast", "price_in_bulk"]

CHUNK = 8_192
"""Plans priced at a time: arrays of this length stay in cache, and below malloc's threshold for fresh pages."""

Floats = NDArray[np.float64]
FormatArrays = Mapping[Site, tuple[Options, NDArray[np.int64]]]
Value = Any  # float64 array of a chunk, or a number where nothing varies


def price_in_bulk(
    sheet: Sheet, widths: Sequence[NDArray[np.int64]], choices: Sequence[NDArray[np.int64]], count: int
) -> list[Floats]:
    """Costs of `count` plans.

    Args:
        sheet: the costs wanted.
        widths: width of each plan, per symbol of the sheet's layout: [count].
        choices: place of the format that each plan chooses, per decision of it: [count].
        count: number of plans.

    Returns:
        Per cost of the layout, its value for each plan: [count].
    """
    prices = [np.empty(count) for _ in sheet.totals]
    for start in range(0, count, CHUNK):
        rows = slice(start, min(start + CHUNK, count))
        chunk = _Chunk(sheet, [width[rows] for width in widths], [choice[rows] for choice in choices])
        for price, (cost, total) in zip(prices, sheet.totals, strict=True):
            price[rows] = _value(chunk, cost, total)
    return prices


def price_broadcast(
    sheet: Sheet, widths: Sequence[NDArray[np.int64]], choices: Sequence[NDArray[np.int64]]
) -> list[Floats]:
    """Costs of the plans that arrays of any shapes broadcast to, each of the shape of what it hangs on: in a grid of
    plans, what the last decisions alone change is worked out once for all of the first.

    Args:
        sheet, widths, choices: as for `price_in_bulk`, of any shapes that broadcast.
    """
    chunk = _Chunk(sheet, widths, choices)
    return [np.asarray(_value(chunk, cost, total)) for cost, total in sheet.totals]


def _value(chunk: _Chunk, cost: CostDefinition, total: tuple[Linear, ...] | Running) -> Value:
    match cost, total:
        case Sum(), (linear,):
            return chunk.total(linear) / cost.divisor
        case Ratio(), (above, below):
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.divide(chunk.total(above) * cost.factor, chunk.total(below))
        case Peak(), Running():
            return chunk.peak(total) / cost.divisor
    raise AssertionError(f"{cost}: no way to total {total}")


class _Chunk:
    """Some plans in a row: their sizes, bits and totals, each computed once."""

    def __init__(self, sheet: Sheet, widths: Sequence[NDArray[np.int64]], choices: Sequence[NDArray[np.int64]]):
        self._sheet = sheet
        self._sizes = sheet.sizes(*(width.astype(np.float64) for width in widths))
        self._choices = [np.ascontiguousarray(choice) for choice in choices]
        self._bits: dict[int, Floats] = {}
        self._factors: dict[int, Value] = {}
        self._parts: dict[tuple[int, int], Value] = {}
        self._totals: dict[Linear, Value] = {}

    def total(self, linear: Linear) -> Value:
        """The sum of its terms."""
        if linear not in self._totals:
            values = [self._part(part) for part in linear.parts]
            values += [self._block(block) for block in linear.blocks]
            self._totals[linear] = _add(values)
        return self._totals[linear]

    def peak(self, running: Running) -> Value:
        """The largest value of a running sum."""
        alive: Value = 0.0
        largest: Value = 0.0
        for born, dying in running.steps:
            for linear in born:
                alive = alive + self.total(linear)
            if born:
                largest = np.maximum(largest, alive)
            for linear in dying:
                alive = alive - self.total(linear)
        return largest

    def _part(self, part: tuple[int, int]) -> Value:
        place, factor = part
        if factor == 0:
            return self._sizes[place]
        if part not in self._parts:
            self._parts[part] = self._sizes[place] * self._factor(factor)
        return self._parts[part]

    def _factor(self, place: int) -> Value:
        if place not in self._factors:
            factor = self._sheet.factors[place]
            value: Value = float(factor.constant)
            combine = np.multiply if factor.kind == "product" else np.maximum
            for decision in factor.decisions:
                value = combine(value, self._bits_of(decision))
            self._factors[place] = value
        return self._factors[place]

    def _bits_of(self, decision: int) -> Floats:
        if decision not in self._bits:
            self._bits[decision] = self._sheet.bits[decision][self._choices[decision]]
        return self._bits[decision]

    def _block(self, block: Block) -> Value:
        """Bits of a tensor whose storage is not elements times bits: counted for each format that can be chosen."""
        shape = [self._whole(place) for place in block.sizes]
        largest: Value = 0.0
        for site in block.term.readers:
            decision = None if site is None else self._sheet.decision_of.get(site)
            if decision is None:
                read = _stored(None, shape, block.term)
            else:
                stored = [_stored(fmt, shape, block.term) for fmt in self._sheet.options[decision]]
                read = _chosen(stored, self._choices[decision])
            largest = np.maximum(largest, read)
        return largest

    def _whole(self, place: int) -> Any:
        size = self._sizes[place]
        return size.astype(np.int64) if isinstance(size, np.ndarray) else int(size)


def _add(values: list[Value]) -> Value:
    """Their sum, with one new array at most where all are of one shape."""
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    total: Value = float(sum(v for v in values if not isinstance(v, np.ndarray)))
    for i, array in enumerate(arrays):
        if i == 0:
            total = array + total if total or len(arrays) > 1 else array
        elif np.broadcast_shapes(total.shape, array.shape) == total.shape:
            total += array
        else:
            total = total + array
    return total


def _stored(fmt: Format | None, shape: list[Any], term: Storage) -> Any:
    if fmt is not None:
        return fmt.storage_bits(shape)
    count: Any = term.plain_bits
    for size in shape:
        count = count * size
    return count


def _chosen(values: list[Any], index: NDArray[np.int64]) -> Floats:
    """values[index[i]] at i, where a value is a number or an array over i."""
    places, *columns = np.broadcast_arrays(index, *values)
    chosen: Floats = np.take_along_axis(np.stack(columns).astype(np.float64), places[None], axis=0)[0]
    return chosen
