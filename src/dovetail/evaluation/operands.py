"""What operations compute with in the model without any format, shown site by site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from dovetail.data import Split
from dovetail.evaluation.cache import ValueCache
from dovetail.evaluation.interpreter import Interpreter
from dovetail.evaluation.numbering import Numbering
from dovetail.evaluation.program import Program, compile_program
from dovetail.evaluation.sizing import default_batch_size, pieces
from dovetail.evaluation.tensors import ModelTensors, Widths
from dovetail.graph import Graph
from dovetail.plan import Plan, Site
from dovetail.transforms import Weights, apply, observe

__all__ = ["Operands"]

Seen = Callable[[Site, Tensor], None]


class Operands:
    """Runs the model on some samples and shows the operands of its operations.

    Args:
        graph: the model's graph.
        model: the model in eval mode, on the device it runs on.
        split: the samples, as `sizing.place` gives them.
        weights, seed: as for `resize`.
    """

    def __init__(self, graph: Graph, model: nn.Module, split: Split, *, weights: Weights, seed: int) -> None:
        self._graph, self._model, self._weights, self._seed = graph, model, weights, seed
        self._split = split

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._split)

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

    def show(self, widths: Widths, sites: Sequence[Site], seen: Seen) -> None:
        """Show the operands at some sites.

        Args:
            widths: of the model that runs.
            sites: of the kind `data_in`.
            seen: told of each operand, a batch at a time; an operation may have several, and one that the model's code
            does not come by has none.
        """
        if not sites:
            return
        batch_size = default_batch_size(self._program, len(self._split), self._split.targets.device)
        parts = pieces(len(self._split), batch_size)
        if self._graph.is_replayable:
            self._show_values(widths, sites, seen, parts)
        else:
            self._show_calls(widths, sites, seen, parts)

    @torch.inference_mode()
    def _show_values(self, widths: Widths, sites: Sequence[Site], seen: Seen, parts: Sequence[slice]) -> None:
        steps, place = self._program.steps, self._program.sites
        slots = {site: [step.reads[0] for step in steps if step.site == place[site]] for site in sites}
        no_formats = [0] * len(self._program.sites)
        interpreter = Interpreter(self._program, self._numbering, ValueCache(0), [None])
        given = list(self._tensors.numbers(widths))
        inputs = [(slot, self._numbering.intern(("input", slot), is_static=False)) for slot in self._program.inputs]
        self._numbering.begin()
        numbers = self._numbering.number(no_formats, given + inputs, 0)
        order = sorted({numbers[slot] for its in slots.values() for slot in its})
        for part in parts:
            data = {number: x[part] for (_, number), x in zip(inputs, self._split.inputs, strict=True)}
            values = interpreter.values(order, numbers, no_formats, {**self._tensors.values(widths), **data}, 0, 0)
            by_number = dict(zip(order, values, strict=True))
            for site, its in slots.items():
                for slot in its:
                    seen(site, by_number[numbers[slot]])

    @torch.no_grad()
    def _show_calls(self, widths: Widths, sites: Sequence[Site], seen: Seen, parts: Sequence[slice]) -> None:
        """Of a model whose graph cannot stand in for it: what its own code computes with."""
        model = apply(self._graph, self._model, Plan.of({}, dict(widths)), weights=self._weights, seed=self._seed)
        for part in parts:
            observe(self._graph, model.eval(), sites, tuple(x[part] for x in self._split.inputs), seen)
