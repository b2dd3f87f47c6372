"""Formats whose range is read off data, made concrete: statistics of the float model, gathered once for all plans."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.errors import FormatError
from dovetail.evaluation.cache import ValueCache
from dovetail.evaluation.interpreter import Interpreter
from dovetail.evaluation.numbering import Numbering
from dovetail.evaluation.program import Program, compile_program
from dovetail.evaluation.sizing import default_batch_size, pieces
from dovetail.evaluation.tensors import ModelTensors, Widths
from dovetail.formats import Format
from dovetail.formats.statistics import Statistics
from dovetail.graph import Graph
from dovetail.plan import Plan, Site, SiteKind
from dovetail.transforms import Weights, apply, observe

__all__ = ["CALIBRATION_SAMPLES", "Calibration"]

CALIBRATION_SAMPLES = 512
"""How many samples statistics are gathered on: the first so many of the calibration split."""

Wanted = tuple[Site, int | None]


class Calibration:
    """Makes plans concrete: the formats of activations that are still to be calibrated get their range.

    A site's statistics are those of all its operands in the model without any format, at the plan's widths. Weights and
    biases are calibrated on themselves where they are rounded.

    Args:
        graph: the model's graph.
        model: the model in eval mode, on the device it runs on.
        split: where the samples are taken from, as `sizing.place` gives it.
        weights, seed: as for `resize`.
    """

    def __init__(self, graph: Graph, model: nn.Module, split: Split, *, weights: Weights, seed: int) -> None:
        self._graph, self._model, self._weights, self._seed = graph, model, weights, seed
        self._split = split.take(CALIBRATION_SAMPLES)
        self._found: dict[tuple[Widths, Wanted], Statistics] = {}

    @cached_property
    def _program(self) -> Program:
        return compile_program(self._graph, self._split.targets.device)

    @cached_property
    def _numbering(self) -> Numbering:
        return Numbering(self._program)

    @cached_property
    def _tensors(self) -> ModelTensors:
        return ModelTensors(
            self._graph, self._model, self._program, self._numbering, weights=self._weights, seed=self._seed
        )

    def resolve(self, plan: Plan) -> Plan:
        """The plan with every activation's format concrete.

        Raises:
            FormatError: A range cannot be read off the statistics, or there are none.
        """
        open_formats = {
            site: fmt for site, fmt in plan.formats if site.kind is SiteKind.DATA_IN and fmt.needs_calibration
        }
        if not open_formats:
            return plan
        missing = {(site, _axis(fmt)) for site, fmt in open_formats.items()}
        gather = self._gather if self._graph.is_replayable else self._gather_from_code
        gather(plan.widths, [wanted for wanted in missing if (plan.widths, wanted) not in self._found])
        for site, axis in missing:
            if (plan.widths, (site, axis)) not in self._found:
                raise FormatError(
                    f"site {site}: must be computed on some of the {len(self._split)} calibration samples to have its "
                    "range read off them, and the model's code never came by it. Give it a format with a fixed range."
                )
        concrete = {
            site: fmt.calibrate(self._found[plan.widths, (site, _axis(fmt))]) for site, fmt in open_formats.items()
        }
        return Plan.of({**plan.precision, **concrete}, dict(plan.widths))

    @torch.inference_mode()
    def _gather(self, widths: Widths, wanted: list[Wanted]) -> None:
        if not wanted:
            return
        slots = {
            (site, axis): [step.reads[0] for step in self._program.steps if step.site == self._program.sites[site]]
            for site, axis in wanted
        }
        no_formats = [0] * len(self._program.sites)
        interpreter = Interpreter(self._program, self._numbering, ValueCache(0), [None])
        given = list(self._tensors.numbers(widths))
        inputs = [(slot, self._numbering.intern(("input", slot), is_static=False)) for slot in self._program.inputs]
        self._numbering.begin()
        numbers = self._numbering.number(no_formats, given + inputs, 0)
        order = sorted({numbers[slot] for its in slots.values() for slot in its})
        batch_size = default_batch_size(self._program, len(self._split), self._split.targets.device)
        for part in pieces(len(self._split), batch_size):
            data = {number: x[part] for (_, number), x in zip(inputs, self._split.inputs, strict=True)}
            values = interpreter.values(order, numbers, no_formats, {**self._tensors.values(widths), **data}, 0, 0)
            by_number = dict(zip(order, values, strict=True))
            for (site, axis), its in slots.items():
                for slot in its:
                    seen = Statistics.of(by_number[numbers[slot]], axis)
                    before = self._found.get((widths, (site, axis)))
                    self._found[widths, (site, axis)] = seen if before is None else before + seen

    @torch.no_grad()
    def _gather_from_code(self, widths: Widths, wanted: list[Wanted]) -> None:
        """Statistics of a model whose graph cannot stand in for it: of what its own code computes with."""
        if not wanted:
            return
        model = apply(self._graph, self._model, Plan.of({}, dict(widths)), weights=self._weights, seed=self._seed)

        def seen(site: Site, value: Tensor) -> None:
            for axis in [axis for its, axis in wanted if its == site]:
                found, key = Statistics.of(value, axis), (widths, (site, axis))
                self._found[key] = self._found[key] + found if key in self._found else found

        batch_size = default_batch_size(self._program, len(self._split), self._split.targets.device)
        for part in pieces(len(self._split), batch_size):
            sites = {site for site, _ in wanted}
            observe(self._graph, model.eval(), sites, tuple(x[part] for x in self._split.inputs), seen)


def _axis(fmt: Format) -> int | None:
    axis = getattr(fmt, "axis", None)
    return axis if isinstance(axis, int) else None
