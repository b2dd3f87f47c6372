"""Costs of many plans at once: closed forms over arrays, chunk by chunk, in bounded memory.

A cost is a sum of terms; terms whose bits hang on the same decisions are one polynomial in the widths, times one array
of bits that is looked up by the choices made. So a cost takes as many array operations as it has such polynomials and
monomials, however many layers the model has. All values are whole numbers in float64: exact up to 2**53.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

from dovetail.costs.definitions import CostDefinition, Peak, Ratio, Sum
from dovetail.costs.ledger import Ledger
from dovetail.costs.symbolic import compile_sizes
from dovetail.costs.terms import PLAIN_BITS, Count, Storage, Term
from dovetail.costs.work import elements
from dovetail.formats import FLOAT32, Format
from dovetail.plan import Site

__all__ = ["CHUNK", "Choices", "FormatArrays", "price_in_bulk"]

CHUNK = 8_192
"""Plans priced at a time: arrays of this length stay in cache, and below malloc's threshold for fresh pages."""

Floats = NDArray[np.float64]
FormatArrays = Mapping[Site, tuple[tuple[Format | None, ...], NDArray[np.int64]]]
Value = Any  # float64 array of a chunk, or a number where nothing varies


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """The formats that one decision chooses from, and which each plan chooses."""

    formats: tuple[Format | None, ...]
    index: NDArray[np.int64]
    bits: Floats

    @property
    def is_linear(self) -> bool:
        """Whether storage is elements times bits in every one: no shared scales."""
        return all(f is None or (f.block_size == 1 and f.storage_bits((1,)) == f.element_bits) for f in self.formats)


# What multiplies a polynomial: how bits are combined, the decisions they hang on, and bits that hang on none.
@dataclass(frozen=True, slots=True)
class _Factor:
    kind: str  # "product" or "max"
    decisions: tuple[int, ...]
    constant: int


_ONE = _Factor("product", (), 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """Polynomials times factors, by their places in the sheet; and tensors whose bits are counted exactly."""

    parts: tuple[tuple[int, int], ...]
    blocks: tuple[_Block, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    term: Storage
    sizes: tuple[int, ...]  # places of the shape's sizes in the compiled ones


def price_in_bulk(
    ledger: Ledger,
    definitions: Mapping[str, CostDefinition],
    widths: Mapping[sympy.Symbol, NDArray[np.int64]],
    base: Mapping[sympy.Symbol, int],
    formats: FormatArrays,
    count: int,
) -> dict[str, Floats]:
    """Costs of `count` plans.

    Args:
        ledger: what costs follow from.
        definitions: the costs wanted.
        widths: width of each plan per symbol that varies: [count].
        base: value of every other symbol.
        formats: per site, formats to choose from and the choice of each plan: [count].
        count: number of plans.
    """
    sheet = _Sheet(widths, base, formats)
    totals = {name: _prepare(sheet, definition, ledger) for name, definition in definitions.items()}
    sheet.compile()
    prices = {name: np.empty(count) for name in definitions}
    for start in range(0, count, CHUNK):
        rows = slice(start, min(start + CHUNK, count))
        chunk = _Chunk(sheet, rows)
        for name, total in totals.items():
            prices[name][rows] = total(chunk)
    return prices


def _prepare(sheet: _Sheet, definition: CostDefinition, ledger: Ledger) -> Callable[[_Chunk], Value]:
    match definition:
        case Sum():
            linear, divisor = sheet.add(definition.terms(ledger)), definition.divisor
            return lambda chunk: chunk.total(linear) / divisor
        case Ratio():
            above, below, factor = (
                sheet.add(definition.above(ledger)),
                sheet.add(definition.below(ledger)),
                definition.factor,
            )
            return lambda chunk: _ratio(chunk.total(above) * factor, chunk.total(below))
        case Peak():
            return _prepare_peak(sheet, definition.divisor, ledger)


def _ratio(above: Value, below: Value) -> Value:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(above, below)


def _prepare_peak(sheet: _Sheet, divisor: int, ledger: Ledger) -> Callable[[_Chunk], Value]:
    """Running sum over the graph's order: what is made is added, what is read for the last time is taken away."""
    tensors = [(a, sheet.add([a.tensor])) for a in ledger.activations]
    born: dict[int, list[_Linear]] = defaultdict(list)
    dying: dict[int, list[_Linear]] = defaultdict(list)
    for activation, linear in tensors:
        born[activation.born].append(linear)
        dying[activation.dies].append(linear)

    def peak(chunk: _Chunk) -> Value:
        alive: Value = 0.0
        largest: Value = 0.0
        for step in range(len(ledger.entries)):
            if born[step]:
                for linear in born[step]:
                    alive = alive + chunk.total(linear)
                largest = np.maximum(largest, alive)
            for linear in dying[step]:
                alive = alive - chunk.total(linear)
        return largest / divisor

    return peak


class _Sheet:
    """Polynomials and factors of all costs wanted, each once. A builder: filled, compiled, then read by chunks."""

    def __init__(
        self,
        widths: Mapping[sympy.Symbol, NDArray[np.int64]],
        base: Mapping[sympy.Symbol, int],
        formats: FormatArrays,
    ):
        self.symbols = tuple(widths)
        self.widths = tuple(widths.values())
        self._base = {s: sympy.Integer(v) for s, v in base.items() if s not in widths}
        self.decisions: list[Choices] = []
        self.decision_of: dict[Site, int] = {}
        self._read_formats(formats)
        self._places: dict[sympy.Expr, int] = {}
        self._fixed: dict[sympy.Expr, sympy.Expr] = {}
        self._factor_places: dict[_Factor, int] = {_ONE: 0}
        self._linears: dict[tuple[Term, ...], _Linear] = {}
        self.factors: list[_Factor] = []
        self.sizes: Callable[..., list[Any]] = list

    def _read_formats(self, formats: FormatArrays) -> None:
        known: dict[tuple[tuple[Format | None, ...], int], int] = {}
        for site, (options, index) in formats.items():
            key = (options, id(index))
            if key not in known:
                known[key] = len(self.decisions)
                options = tuple(None if fmt == FLOAT32 else fmt for fmt in options)
                bits = np.array([PLAIN_BITS if f is None else f.element_bits for f in options], dtype=np.float64)
                self.decisions.append(Choices(options, index, bits))
            self.decision_of[site] = known[key]

    def compile(self) -> None:
        """Turn the polynomials into one function; those that are numbers stay numbers."""
        self.sizes = compile_sizes(self.symbols, self._places)
        self.factors = list(self._factor_places)

    def add(self, terms: Iterable[Term]) -> _Linear:
        """Take terms in, summed up as far as they hang on the same decisions."""
        terms = tuple(terms)
        if terms not in self._linears:
            self._linears[terms] = self._summed(terms)
        return self._linears[terms]

    def _summed(self, terms: tuple[Term, ...]) -> _Linear:
        polynomials: dict[_Factor, list[sympy.Expr]] = defaultdict(list)
        blocks = []
        for term in terms:
            if isinstance(term, Storage) and not self._is_linear(term):
                blocks.append(_Block(term, tuple(self._place(size) for size in term.shape)))
            else:
                count = term.count if isinstance(term, Count) else elements(term.shape)
                polynomials[self._factor(term)].append(self._fix(count))
        parts = ((self._place(sympy.Add(*p)), self._factor_place(factor)) for factor, p in polynomials.items())
        return _Linear(tuple(parts), tuple(blocks))

    def _factor_place(self, factor: _Factor) -> int:
        return self._factor_places.setdefault(factor, len(self._factor_places))

    def _fix(self, expression: sympy.Expr) -> sympy.Expr:
        """The expression with every symbol that does not vary replaced by its value."""
        if expression not in self._fixed:
            self._fixed[expression] = expression.xreplace(self._base)
        return self._fixed[expression]

    def _place(self, expression: sympy.Expr) -> int:
        return self._places.setdefault(self._fix(expression), len(self._places))

    def _decided(self, sites: Sequence[Site | None]) -> tuple[list[int], bool]:
        """The decisions that sites hang on, and whether any hangs on none."""
        decided = [None if site is None else self.decision_of.get(site) for site in sites]
        return [d for d in decided if d is not None], None in decided

    def _is_linear(self, term: Storage) -> bool:
        decided, plain = self._decided(term.readers)
        several = len(set(decided)) + plain > 1
        if term.copies and several:
            return False
        return term.counts_elements or all(self.decisions[d].is_linear for d in decided)

    def _factor(self, term: Term) -> _Factor:
        if isinstance(term, Count):
            decided, _ = self._decided(term.sites)
            return _Factor("product", tuple(sorted(decided)), PLAIN_BITS ** (len(term.sites) - len(decided)))
        if term.counts_elements:
            return _ONE
        decided, plain = self._decided(term.readers)
        if not decided:
            return _Factor("product", (), term.plain_bits)
        return _Factor("max", tuple(sorted(set(decided))), term.plain_bits if plain else 0)


class _Chunk:
    """Some plans in a row: their sizes, bits and totals, each computed once."""

    def __init__(self, sheet: _Sheet, rows: slice):
        self._sheet = sheet
        self._rows = rows
        self._sizes = sheet.sizes(*(width[rows].astype(np.float64) for width in sheet.widths))
        self._index: dict[int, NDArray[np.int64]] = {}
        self._bits: dict[int, Floats] = {}
        self._factors: dict[int, Value] = {}
        self._parts: dict[tuple[int, int], Value] = {}
        self._totals: dict[int, Value] = {}

    def total(self, linear: _Linear) -> Value:
        """The sum of its terms."""
        key = id(linear)
        if key not in self._totals:
            values = [self._part(part) for part in linear.parts]
            values += [self._block(block) for block in linear.blocks]
            self._totals[key] = _add(values)
        return self._totals[key]

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

    def _index_of(self, decision: int) -> NDArray[np.int64]:
        if decision not in self._index:
            self._index[decision] = np.ascontiguousarray(self._sheet.decisions[decision].index[self._rows])
        return self._index[decision]

    def _bits_of(self, decision: int) -> Floats:
        if decision not in self._bits:
            self._bits[decision] = self._sheet.decisions[decision].bits[self._index_of(decision)]
        return self._bits[decision]

    def _block(self, block: _Block) -> Value:
        """Bits of a tensor whose storage is not elements times bits: counted for each format that can be chosen."""
        shape = [self._whole(place) for place in block.sizes]
        per_reader = []
        for site in block.term.readers:
            decision = None if site is None else self._sheet.decision_of.get(site)
            options = (None,) if decision is None else self._sheet.decisions[decision].formats
            index = np.zeros(1, dtype=np.int64) if decision is None else self._index_of(decision)
            per_reader.append((options, index, [_stored(fmt, shape, block.term) for fmt in options]))
        return _copies(per_reader) if block.term.copies else _largest(per_reader)

    def _whole(self, place: int) -> Any:
        size = self._sizes[place]
        return size.astype(np.int64) if isinstance(size, np.ndarray) else int(size)


def _add(values: list[Value]) -> Value:
    """Their sum, with one new array at most."""
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    total: Value = float(sum(v for v in values if not isinstance(v, np.ndarray)))
    for i, array in enumerate(arrays):
        if i == 0:
            total = array + total if total or len(arrays) > 1 else array
        else:
            total += array
    return total


_Readings = list[tuple[tuple[Format | None, ...], NDArray[np.int64], list[Any]]]


def _stored(fmt: Format | None, shape: list[Any], term: Storage) -> Any:
    if fmt is not None and not term.counts_elements:
        return fmt.storage_bits(shape)
    count: Any = 1 if term.counts_elements else term.plain_bits
    for size in shape:
        count = count * size
    return count


def _chosen(values: list[Any], index: NDArray[np.int64]) -> Floats:
    """values[index[i]] at i, where a value is a number or an array over i."""
    result: Floats = (
        np.choose(index, [np.asarray(v) for v in values]).astype(np.float64)
        if len(values) <= 31
        else _take(values, index)
    )
    return result


def _take(values: list[Any], index: NDArray[np.int64]) -> Floats:
    table = np.stack([np.broadcast_to(np.asarray(v, dtype=np.float64), index.shape) for v in values])
    return table[index, np.arange(len(index))]


def _largest(readings: _Readings) -> Value:
    return np.maximum.reduce(np.broadcast_arrays(*(_chosen(values, index) for _, index, values in readings)))


def _copies(readings: _Readings) -> Value:
    """Once for each distinct format: a reader adds nothing where one before it reads the same."""
    identity: dict[Format | None, int] = {}
    for options, _, _ in readings:
        for fmt in options:
            identity.setdefault(fmt, len(identity))
    total: Value = 0.0
    before: list[Any] = []
    for options, index, values in readings:
        read = np.array([identity[fmt] for fmt in options])[index]
        fresh = np.ones(1, dtype=np.bool_)
        for other in before:
            fresh = fresh & (read != other)
        total = total + _chosen(values, index) * fresh
        before.append(read)
    return total
