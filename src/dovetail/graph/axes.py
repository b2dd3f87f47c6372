"""The algebra of layouts: what views, concatenations and slices make of them, and what it means that two are the same.

A dimension whose size is a product may be laid out in either order until a view tells. Such a layout is a variable: a
factor that stands for factors not known yet, found by unification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy

from dovetail.graph.layout import Block, Layout

__all__ = ["Axes", "divided"]

ONE = sympy.Integer(1)

# A repetition is written out as blocks only up to this many: enough for q, k, v and chunks, and no table of a long
# dimension.
_MAX_REPEATS = 16


class Axes:
    """Layouts with variables.

    Args:
        bindings: the value of each symbol in the model as it is; tells where a view may cut.
    """

    def __init__(self, bindings: Mapping[sympy.Symbol, int]):
        self._bindings = bindings
        self._sizes: dict[sympy.Expr, sympy.Expr] = {}
        self._solved: dict[sympy.Expr, Layout] = {}

    def fresh(self, size: sympy.Expr) -> Layout:
        """The layout of a dimension of which only the size is known."""
        if size.is_Integer or size.is_Symbol:
            return Layout.of(size)
        variable = sympy.Dummy("axis", integer=True, positive=True)
        self._sizes[variable] = size
        return Layout.of(variable)

    def unknown(self, layout: Layout) -> frozenset[sympy.Expr]:
        """Variables in a resolved layout."""
        return frozenset(f for f in layout.factors if f in self._sizes)

    def size(self, layout: Layout) -> sympy.Expr:
        """The size of a dimension."""
        return sympy.expand(sympy.Add(*(sympy.Mul(*map(self._factor_size, block)) for block in layout.blocks)))

    def _factor_size(self, factor: sympy.Expr) -> sympy.Expr:
        return self._sizes.get(factor, factor)

    def symbols(self, layout: Layout) -> set[sympy.Symbol]:
        """The symbols that a layout's size depends on."""
        return {s for s in self.size(self.resolve(layout)).free_symbols if s in self._bindings}

    def resolve(self, layout: Layout) -> Layout:
        """The layout with every variable that has been found replaced."""
        while any(factor in self._solved for block in layout.blocks for factor in block):
            layout = Layout(tuple(new for block in layout.blocks for new in self._replaced(block)))
        return layout.canonical()

    def _replaced(self, block: Block) -> list[Block]:
        for i, factor in enumerate(block):
            found = self._solved.get(factor)
            if found is not None and (len(found.blocks) == 1 or i == 0):
                return [(*block[:i], *inner, *block[i + 1 :]) for inner in found.blocks]
            if found is not None and all(f.is_Integer for f in block[:i]) and sympy.Mul(*block[:i]) <= _MAX_REPEATS:
                inner_blocks = [(*inner, *block[i + 1 :]) for inner in found.blocks]
                return inner_blocks * int(sympy.Mul(*block[:i]))
        solved_inside = [f for f in block if f in self._solved]
        for factor in solved_inside:  # blocks inside a repetition: no form; a new variable of that size
            self._sizes[factor] = self.size(self._solved.pop(factor))
        return [block]

    def settle(self, layout: Layout) -> None:
        """Give variables that are a multiple of one symbol, and that nothing ever split, an order: any will do."""
        for variable in self.unknown(self.resolve(layout)):
            coefficient, rest = self._sizes[variable].as_coeff_Mul()
            if rest.is_Symbol:
                self._solved[variable] = Layout.of(coefficient, rest)

    def unify(self, a: Layout, b: Layout) -> bool:
        """Take two layouts for the same; False where they cannot be."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return True
        for variable, other in ((self._variable(a), b), (self._variable(b), a)):
            if variable is not None and variable not in other.factors:
                if sympy.expand(self._sizes[variable] - self.size(other)) != 0:
                    return False
                self._solved[variable] = other
                return True
        if len(a.blocks) != len(b.blocks):
            return False
        return all(self._unify_blocks(x, y) for x, y in zip(a.blocks, b.blocks, strict=True))

    def _variable(self, layout: Layout) -> sympy.Expr | None:
        alone = len(layout.blocks) == 1 and len(layout.blocks[0]) == 1 and layout.blocks[0][0] in self._sizes
        return layout.blocks[0][0] if alone else None

    def _unify_blocks(self, a: Block, b: Block) -> bool:
        left, right = list(a), list(b)
        while left and right and left[0] == right[0]:
            left.pop(0), right.pop(0)
        while left and right and left[-1] == right[-1]:
            left.pop(), right.pop()
        if not left and not right:
            return True
        for one, other in ((left, right), (right, left)):
            if len(one) == 1 and one[0] in self._sizes:
                return self.unify(Layout((tuple(one),)), Layout((tuple(other),)))
        if len(left) == len(right):
            return all(
                self.unify(Layout((x,)), Layout((y,)))
                for x, y in zip(((f,) for f in left), ((f,) for f in right), strict=True)
            )
        return False

    def merge(self, layouts: Sequence[Layout]) -> Layout | None:
        """The layout of several dimensions flattened into one, or None where it has no such form."""
        merged = Layout.of()
        for inner in map(self.resolve, layouts):
            if len(inner.blocks) == 1:
                merged = Layout(tuple((*block, *inner.blocks[0]) for block in merged.blocks))
            elif not merged.factors and len(merged.blocks) == 1 and merged.size <= _MAX_REPEATS:
                merged = Layout(inner.blocks * int(merged.size))
            else:
                return None
        return merged.canonical()

    def split(self, layout: Layout, sizes: Sequence[sympy.Expr]) -> list[Layout] | None:
        """The layouts of the dimensions into which a view splits one, or None where a cut falls inside a factor.

        Args:
            layout: of the dimension.
            sizes: of the new dimensions, outermost first.
        """
        layout = self.resolve(layout)
        if len(sizes) == 1:
            return [layout]
        if len(layout.blocks) != 1:
            return None
        remaining = list(layout.blocks[0])
        parts: list[Layout] = []
        for size in reversed(sizes[1:]):
            taken = self._take(remaining, size)
            if taken is None:
                return None
            parts.insert(0, Layout((tuple(taken),)))
        return [Layout((tuple(remaining),)).canonical(), *(part.canonical() for part in parts)]

    def _take(self, remaining: list[sympy.Expr], need: sympy.Expr) -> list[sympy.Expr] | None:
        """Innermost factors of a product, taken off the end of a list."""
        taken: list[sympy.Expr] = []
        while need != 1:
            if not remaining:
                return None
            factor = remaining.pop()
            size = self._factor_size(factor)
            if (rest := divided(need, size)) is not None:
                taken.insert(0, factor)
                need = rest
            elif (outer := divided(size, need)) is not None and (factor.is_Integer or factor in self._sizes):
                if factor.is_Integer:
                    remaining.append(outer)
                    inner: Block = (need,)
                else:
                    halves = self.fresh(outer), self.fresh(need)
                    self._solved[factor] = Layout((halves[0].blocks[0] + halves[1].blocks[0],))
                    remaining.extend(halves[0].blocks[0])
                    inner = halves[1].blocks[0]
                taken[0:0] = inner
                need = ONE
            else:
                return None
        return taken

    def view(self, old: Sequence[Layout], sizes: Sequence[sympy.Expr]) -> list[Layout | None]:
        """The layouts of the dimensions of a view; None for those that have no form.

        Args:
            old: of what is viewed.
            sizes: of the view.
        """
        new: list[Layout | None] = []
        i = j = 0
        while j < len(sizes):
            first_i, first_j = i, j
            have = want = ONE
            while True:
                if i == first_i and i < len(old):
                    have, i = have * self.size(self.resolve(old[i])), i + 1
                if j == first_j:
                    want, j = want * sizes[j], j + 1
                if sympy.expand(have - want) == 0:
                    break
                small = self._value(have) <= self._value(want)
                if small and i < len(old):
                    have, i = have * self.size(self.resolve(old[i])), i + 1
                elif j < len(sizes):
                    want, j = want * sizes[j], j + 1
                else:
                    return [*new, *[None] * (len(sizes) - len(new))]
            merged = self.merge(old[first_i:i])
            parts = None if merged is None else self.split(merged, sizes[first_j:j])
            new += parts if parts is not None else [None] * (j - first_j)
        return new

    def _value(self, size: sympy.Expr) -> int:
        return int(size.xreplace(dict(self._bindings)))

    def cut(self, layout: Layout, start: sympy.Expr, stop: sympy.Expr) -> Layout | None:
        """The layout of a slice, or None where a cut falls inside a block."""
        blocks: list[Block] = []
        for block in self.resolve(layout).blocks:
            repeats = block[0] if len(block) > 1 and block[0].is_Integer and block[0] <= _MAX_REPEATS else ONE
            blocks += [block[1:] if repeats != 1 else block] * int(repeats)
        offset, taken = sympy.Integer(0), list[Block]()
        for block in blocks:
            size = self.size(Layout((block,)))
            if _is_constant(block) and taken == [] and sympy.expand(start - offset).is_Integer:
                low, high = start - offset, sympy.expand(stop - offset)
                if high.is_Integer and low >= 0 and high <= size:
                    return Layout.of(high - low)
            inside = sympy.expand(offset - start).is_nonnegative and sympy.expand(stop - offset - size).is_nonnegative
            if inside:
                taken.append(block)
            offset = sympy.expand(offset + size)
        result = Layout(tuple(taken)).canonical() if taken else None
        fits = result is not None and sympy.expand(self.size(result) - (stop - start)) == 0
        return result if fits else None


def divided(size: sympy.Expr, by: sympy.Expr) -> sympy.Expr | None:
    """The quotient of two sizes where it is a size, else None."""
    if size.is_Integer and by.is_Integer:
        return size / by if size % by == 0 else None
    numerator, denominator = sympy.fraction(sympy.cancel(size / by))
    if denominator != 1:
        return None
    return sympy.expand(numerator)


def _is_constant(block: Block) -> bool:
    return all(factor.is_Integer for factor in block)
