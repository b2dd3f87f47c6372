"""A sheet: the costs wanted, as polynomials in widths times bits of decisions; compiled once, priced many times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

__all__ = ["Block", "Factor", "Layout", "Linear", "Running", "Sheet"]

Options = tuple[Format | None, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What varies from plan to plan, whatever the plans are: the key of a sheet.

    Args:
        symbols: widths that vary.
        options: the formats that each decision chooses from; None where it leaves a site alone.
        decisions: (site, its decision).
        costs: the costs wanted.
    """

    symbols: tuple[sympy.Symbol, ...]
    options: tuple[Options, ...]
    decisions: tuple[tuple[Site, int], ...]
    costs: tuple[CostDefinition, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """Bits that multiply a polynomial.

    Args:
        kind: how the decisions' bits are combined.
        decisions: those they hang on.
        constant: bits that hang on none, combined with them.
    """

    kind: Literal["product", "max"]
    decisions: tuple[int, ...]
    constant: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A tensor whose bits are not elements times bits, for its shared scales.

    Args:
        term: the tensor.
        sizes: places of its shape's sizes among the compiled ones.
    """

    term: Storage
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A sum of terms.

    Args:
        parts: (place of a polynomial, place of its factor).
        blocks: what cannot be written so.
    """

    parts: tuple[tuple[int, int], ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A running sum over the graph's order: per step, what is added before it runs, and what is taken away after."""

    steps: tuple[tuple[tuple[Linear, ...], tuple[Linear, ...]], ...]


Total = tuple[CostDefinition, tuple[Linear, ...] | Running]

ONE = Factor("product", (), 1)


class Sheet:
    """Polynomials and factors of all costs wanted, each once.

    Args:
        ledger: what costs follow from.
        layout: what varies.
        base: value of every symbol in the model as it is.
    """

    def __init__(self, ledger: Ledger, layout: Layout, base: Mapping[sympy.Symbol, int]):
        self.options = layout.options
        self.decision_of = dict(layout.decisions)
        self.bits = tuple(
            np.array([PLAIN_BITS if fmt is None else fmt.element_bits for fmt in options], dtype=np.float64)
            for options in layout.options
        )
        self._is_elementwise = tuple(all(map(is_elementwise, options)) for options in layout.options)
        self._base = {s: sympy.Integer(v) for s, v in base.items() if s not in layout.symbols}
        self._places: dict[sympy.Expr, int] = {}
        self._fixed: dict[sympy.Expr, sympy.Expr] = {}
        self._factor_places: dict[Factor, int] = {ONE: 0}
        self._linears: dict[tuple[Term, ...], Linear] = {}
        self.totals: tuple[Total, ...] = tuple((cost, self._total(cost, ledger)) for cost in layout.costs)
        self.factors = tuple(self._factor_places)
        self.sizes: Callable[..., list[Any]] = compile_sizes(layout.symbols, self._places)

    def _total(self, cost: CostDefinition, ledger: Ledger) -> tuple[Linear, ...] | Running:
        match cost:
            case Sum():
                return (self._add(cost.terms(ledger)),)
            case Ratio():
                return (self._add(cost.above(ledger)), self._add(cost.below(ledger)))
            case Peak():
                return self._running(ledger)

    def _running(self, ledger: Ledger) -> Running:
        born: dict[int, list[Linear]] = defaultdict(list)
        dying: dict[int, list[Linear]] = defaultdict(list)
        for activation in ledger.activations:
            linear = self._add([activation.tensor])
            born[activation.born].append(linear)
            dying[activation.dies].append(linear)
        return Running(tuple((tuple(born[i]), tuple(dying[i])) for i in range(len(ledger.entries))))

    def _add(self, terms: Iterable[Term]) -> Linear:
        """Take terms in, summed up as far as they hang on the same decisions."""
        terms = tuple(terms)
        if terms not in self._linears:
            self._linears[terms] = self._summed(terms)
        return self._linears[terms]

    def _summed(self, terms: tuple[Term, ...]) -> Linear:
        polynomials: dict[Factor, list[sympy.Expr]] = defaultdict(list)
        blocks = []
        for term in terms:
            if isinstance(term, Storage) and not self._is_linear(term):
                blocks.append(Block(term, tuple(self._place(size) for size in term.shape)))
            else:
                count = term.count if isinstance(term, Count) else elements(term.shape)
                polynomials[self._factor(term)].append(self._fix(count))
        parts = ((self._place(sympy.Add(*p)), self._factor_place(factor)) for factor, p in polynomials.items())
        return Linear(tuple(parts), tuple(blocks))

    def _fix(self, expression: sympy.Expr) -> sympy.Expr:
        """The expression with every symbol that does not vary replaced by its value."""
        if expression not in self._fixed:
            self._fixed[expression] = expression.xreplace(self._base)
        return self._fixed[expression]

    def _place(self, expression: sympy.Expr) -> int:
        return self._places.setdefault(self._fix(expression), len(self._places))

    def _factor_place(self, factor: Factor) -> int:
        return self._factor_places.setdefault(factor, len(self._factor_places))

    def _decided(self, sites: Sequence[Site | None]) -> tuple[list[int], bool]:
        """The decisions that sites hang on, and whether any hangs on none."""
        decided = [None if site is None else self.decision_of.get(site) for site in sites]
        return [d for d in decided if d is not None], None in decided

    def _is_linear(self, term: Storage) -> bool:
        decided, _ = self._decided(term.readers)
        return all(self._is_elementwise[d] for d in decided)

    def _factor(self, term: Term) -> Factor:
        if isinstance(term, Count):
            decided, _ = self._decided(term.sites)
            return Factor("product", tuple(sorted(decided)), PLAIN_BITS ** (len(term.sites) - len(decided)))
        decided, plain = self._decided(term.readers)
        if not decided:
            return Factor("product", (), term.plain_bits)
        return Factor("max", tuple(sorted(set(decided))), term.plain_bits if plain else 0)


def is_elementwise(fmt: Format | None) -> bool:
    """Whether storage is elements times bits: no shared scales."""
    return fmt is None or (fmt.block_size == 1 and fmt.storage_bits((1,)) == fmt.element_bits)


def read_layout(
    symbols: Iterable[sympy.Symbol],
    formats: Mapping[Site, tuple[Options, NDArray[np.int64]]],
    costs: Iterable[CostDefinition],
) -> tuple[Layout, tuple[NDArray[np.int64], ...]]:
    """What varies, and what each plan chooses at each decision. Sites that share options and array share a decision."""
    known: dict[tuple[Options, int], int] = {}
    decisions = []
    for site, (options, index) in formats.items():
        decisions.append((site, known.setdefault((options, id(index)), len(known))))
    plain = tuple(tuple(None if fmt == FLOAT32 else fmt for fmt in options) for options, _ in known)
    arrays = {id(index): index for _, index in formats.values()}
    return Layout(tuple(symbols), plain, tuple(decisions), tuple(costs)), tuple(arrays[place] for _, place in known)
