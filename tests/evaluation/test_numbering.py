"""One number for one value, and when it is needed last."""

from __future__ import annotations

import itertools

from dovetail.evaluation.numbering import Numbering
from dovetail.evaluation.program import compile_program

from .networks import case


def numbered(plans: list[tuple[int, ...]]) -> tuple[Numbering, list[list[int]]]:
    """Plans, as format numbers of the first sites of an MLP, in one series."""
    program = compile_program(case("mlp").graph)
    numbering = Numbering(program)
    given = [(slot, numbering.intern(("given", slot), is_static=True)) for slot, _ in program.tensors]
    given += [(slot, numbering.intern(("input", slot), is_static=False)) for slot in program.inputs]
    numbering.begin()
    rest = (0,) * (len(program.sites) - len(plans[0]))
    numbers = [numbering.number((*plan, *rest), given, position) for position, plan in enumerate(plans)]
    numbering.end()
    return numbering, numbers


def test_equal_decisions_give_equal_numbers_and_others_do_not() -> None:
    _, (first, second, third) = numbered([(1, 2), (1, 3), (1, 2)])
    assert first == third
    assert first[-1] != second[-1]


def test_every_value_is_used_up_once_by_the_last_plan_that_needs_it() -> None:
    plans = list(itertools.product((1, 2), (0, 3), (1, 2)))
    numbering, numbers = numbered(plans)
    used_up = [list(numbering.used_up(position, position)) for position in range(len(plans))]
    everything = [number for its in used_up for number in its]
    assert sorted(everything) == sorted(set(everything))
    assert list(numbering.used_up(0, len(plans) - 1)) == everything
    for position, its in enumerate(used_up):
        assert all(number in numbers[position] and not numbering.is_static[number] for number in its)
    first = set(numbers[0]) - {number for later in numbers[1:] for number in later}
    assert first.isdisjoint(everything[len(used_up[0]) :])
