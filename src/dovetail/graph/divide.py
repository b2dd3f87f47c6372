"""Sizes that are divided: widths that must be a multiple of a number, and shapes without rounding.

Where a model halves channels or splits them into groups or heads, shapes hold `s // n`, which is exact only where `s`
is a multiple of n. Writing s = n k makes every shape a polynomial in k, and "a multiple of n" a property of the width.
Where n equal widths are concatenated and divided by n again (the two branches of a ShuffleNet unit), they are made one
width instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import sympy
from torch import fx
from torch.utils._sympy.functions import FloorDiv, Mod

from dovetail.graph.flat import Flat
from dovetail.graph.kinds import kind_of, tensor_arguments
from dovetail.graph.rename import replace_symbols

__all__ = ["Divided", "divide"]


@dataclass(frozen=True, slots=True)
class Divided:
    """A graph whose shapes hold no division.

    Args:
        flat: the graph in new symbols.
        multiples: symbols that are a width divided by a number, with the number.
    """

    flat: Flat
    multiples: Mapping[sympy.Symbol, int]


def divide(flat: Flat) -> Divided:
    """The graph in symbols that make its divisions exact, as far as they can be."""
    solver = _Solver(dict(flat.bindings), {size for shape in flat.shapes.values() for size in shape})
    for left, right in flat.equations:
        solver.equate(left, right, flat.batch)
    for size, number in _grouped(flat):
        solver.require(size, number)
    solver.solve()
    replaced = replace_symbols(flat, solver.replace, solver.bindings)
    return Divided(replaced, solver.multiples)


def _grouped(flat: Flat) -> Iterator[tuple[sympy.Expr, int]]:
    """Channels that grouped convolutions and group normalisation split, with the number of groups.

    Where a depthwise convolution made several of each channel, it is those channels that the groups are of, so that no
    group begins amid what was made of one.
    """
    several = dict(_multiplied(flat))
    for node in flat.module.graph.nodes:
        if node.op != "call_function":
            continue
        kind, named = kind_of(node.target).type, tensor_arguments(node)
        if kind.startswith("conv") and len(node.args) > 6 and isinstance(node.args[6], int) and node.args[6] > 1:
            weight = flat.shapes[named["weight"].name]
            yield weight[0], node.args[6]
            yield from ((size, node.args[6]) for size in _sources(_channels(flat, named, weight), several))
        elif kind == "group_norm" and isinstance(node.args[1], int):
            size = flat.shapes[named["input"].name][1]
            yield size, node.args[1]
            yield from ((source, node.args[1]) for source in _sources(size, several))


def _multiplied(flat: Flat) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """Channels that depthwise convolutions make, with those that they make several of each of."""
    for node in flat.module.graph.nodes:
        if node.op == "call_function" and kind_of(node.target).type in ("conv1d", "conv2d", "conv3d"):
            named = tensor_arguments(node)
            weight = flat.shapes[named["weight"].name]
            inputs = _channels(flat, named, weight)
            if weight[1] == 1 and inputs != 1 and inputs != weight[0]:
                yield weight[0], inputs


def _channels(flat: Flat, named: Mapping[str, fx.Node], weight: Sequence[sympy.Expr]) -> sympy.Expr:
    """Input channels of a convolution."""
    return flat.shapes[named["input"].name][1 - len(weight)]


def _sources(size: sympy.Expr, several: Mapping[sympy.Expr, sympy.Expr]) -> Iterator[sympy.Expr]:
    """What the terms of a size were made several of."""
    for term in sympy.Add.make_args(size):
        while term in several:
            term = several[term]
            yield term


@dataclass(slots=True)
class _Solver:
    """Substitutions found so far, and every size with them carried out."""

    bindings: dict[sympy.Symbol, int]
    sizes: set[sympy.Expr]
    new: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    multiples: dict[sympy.Symbol, int] = field(default_factory=dict)

    def solve(self) -> None:
        """Make divisions exact, innermost first, until none can be."""
        tried: set[sympy.Expr] = set()
        while True:
            open_ = {d for size in self.sizes for d in _innermost(size)} - tried
            if not open_:
                return
            division = min(open_, key=str)
            tried.add(division)
            numerator, denominator = division.args
            if denominator.is_Integer and _carry_out(division) is None and not self._make_equal(numerator, denominator):
                self.require(numerator - numerator.as_coeff_Add()[0], int(denominator))
            self.sizes = {_simplified(size) for size in self.sizes}

    def _make_equal(self, numerator: sympy.Expr, denominator: sympy.Expr) -> bool:
        terms = sympy.Add.make_args(numerator)
        if len(terms) != denominator or len(terms) < 2 or not all(term.is_Symbol for term in terms):
            return False
        first, *others = sorted(terms, key=str)
        if any(self.bindings[other] != self.bindings[first] for other in others):
            return False
        for other in others:
            self._substitute(other, first)
        return True

    def equate(self, left: sympy.Expr, right: sympy.Expr, batch: sympy.Symbol) -> None:
        """Take a symbol for what the exporter found it equal to."""
        left, right = self.replace(left), self.replace(right)
        for symbol, value in ((left, right), (right, left)):
            if symbol.is_Symbol and symbol != batch and symbol not in value.free_symbols:
                self._substitute(symbol, value)
                return

    def require(self, size: sympy.Expr, number: int) -> None:
        """Make a size a multiple of a number."""
        size = self.replace(size)
        for term in sympy.Add.make_args(sympy.expand(size)):
            coefficient, rest = term.as_coeff_Mul()
            if not rest.free_symbols or not coefficient.is_Integer or coefficient % number == 0:
                continue
            # In a product one factor must divide: the first whose value can.
            needed = number // math.gcd(int(coefficient), number)
            able = [s for s in sorted(rest.free_symbols, key=str) if self.bindings[s] % needed == 0]
            if able:
                self._substitute(able[0], needed * self._part(able[0], needed))

    def _part(self, whole: sympy.Symbol, number: int) -> sympy.Symbol:
        part = sympy.Symbol(f"{whole.name}_{number}", integer=True, positive=True)
        self.bindings[part] = self.bindings[whole] // number
        self.multiples[part] = self.multiples.pop(whole, 1) * number
        return part

    def _substitute(self, symbol: sympy.Symbol, value: sympy.Expr) -> None:
        step = {symbol: value}
        self.new = {old: expression.xreplace(step) for old, expression in self.new.items()} | step
        self.sizes = {_simplified(size.xreplace(step)) for size in self.sizes}

    def replace(self, size: sympy.Expr) -> sympy.Expr:
        """A size of the old graph in the new symbols."""
        return _simplified(size.xreplace(self.new))


def _innermost(size: sympy.Expr) -> set[sympy.Expr]:
    return {d for d in size.atoms(FloorDiv, Mod) if not any(a.atoms(FloorDiv, Mod) for a in d.args)}


def _simplified(size: sympy.Expr) -> sympy.Expr:
    """A size with the divisions that are exact carried out."""
    if not size.has(FloorDiv, Mod):
        return sympy.expand(size) if size.free_symbols else size
    while solved := {d: value for d in _innermost(size) if (value := _carry_out(d)) is not None}:
        size = size.xreplace(solved)
    return sympy.expand(size)


def _carry_out(division: sympy.Expr) -> sympy.Expr | None:
    numerator, denominator = division.args
    if not denominator.is_Integer:
        return None
    constant, rest = sympy.expand(numerator).as_coeff_Add()
    quotient = sympy.expand(rest / denominator)
    if any(not coefficient.is_Integer for coefficient in quotient.as_coefficients_dict().values()):
        return None
    if isinstance(division, Mod):
        return constant % denominator
    return quotient + constant // denominator
