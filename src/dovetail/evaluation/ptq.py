"""Evaluate plans after training, paying once for what they share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError, EvaluationError
from dovetail.evaluation.cache import CacheStatistics
from dovetail.evaluation.calibration import CALIBRATION_SAMPLES, Calibration
from dovetail.evaluation.engine import Candidate, Engine, Work
from dovetail.evaluation.memory import default_budget
from dovetail.evaluation.metrics import MetricSet
from dovetail.evaluation.program import compile_program
from dovetail.evaluation.score import Outcome
from dovetail.evaluation.sizing import default_batch_size, is_small, on_one_thread, place
from dovetail.formats import Format
from dovetail.graph import Graph
from dovetail.plan import Plan, Site
from dovetail.transforms import Weights

__all__ = ["PtqEvaluator"]


class PtqEvaluator:
    """Scores plans on a split: quantise, resize, run, without training.

    A memoised interpreter over the graph. Each value is known by the decisions it depends on (`Numbering`); plans are
    ordered so that neighbours share most; a value is computed once and held, within a byte budget, until the last plan
    that needs it; then its memory is overwritten in place. Scores are, to the bit, those of `ReferenceEvaluator`.

    Data goes through in batches. Where the values that plans share fit the budget for all samples, each plan runs to
    its end before the next; otherwise growing chunks of plans go through batch after batch.

    Args:
        graph: the model's graph.
        model: the model it was traced from; it is not changed.
        split: the samples to score on.
        metrics: names from `METRICS`.
        device: where to run; data and model are moved there once.
        memory_budget: bytes for values that plans share; None: a quarter of the device's free memory.
        batch_size: samples at a time; None: see `sizing.default_batch_size`. Halved when memory runs out.
        weights: "inherit" or "initialise": where the weights of resized models come from.
        seed: for whatever resizing draws.
        calibration: where formats that need it read their range (`Calibration`); None: the split itself.

    Raises:
        EvaluationError: The metrics do not go together or do not fit the targets, or the graph is the record of a run.
    """

    def __init__(
        self,
        graph: Graph,
        model: nn.Module,
        split: Split,
        metrics: Sequence[str] = ("accuracy",),
        *,
        device: torch.device | str = "cpu",
        memory_budget: int | None = None,
        batch_size: int | None = None,
        weights: Weights = "inherit",
        seed: int = 0,
        calibration: Split | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise EvaluationError(f"batch_size: must be at least 1, got {batch_size}.")
        if not graph.is_replayable:
            raise EvaluationError(
                "graph: must stand in for the model on any data, and this one is the record of a run. Use "
                f"ReferenceEvaluator, which runs the model's own code. {graph.obstacle}"
            )
        device = torch.device(device)
        own = copy.deepcopy(model).to(device).eval()
        program = compile_program(graph, device)
        batch_size = batch_size or default_batch_size(program, len(split), device)
        self._formats: list[Format | None] = [None]
        self._format_numbers: dict[Format, int] = {}
        self._places: dict[tuple[Site, Format], tuple[int, int]] = {}
        self._work = Work(
            graph=graph,
            model=own,
            program=program,
            split=place(split, own, device),
            metrics=MetricSet(metrics, split.targets),
            formats=self._formats,
            is_small=is_small(program, own, batch_size, device),
            weights=weights,
            seed=seed,
        )
        self._calibration = Calibration(
            graph,
            own,
            place((calibration or split).take(CALIBRATION_SAMPLES), own, device),
            weights=weights,
            seed=seed,
        )
        budget = default_budget(device) if memory_budget is None else memory_budget
        self._engine = Engine(self._work, batch_size=batch_size, budget=budget)

    @property
    def statistics(self) -> CacheStatistics:
        """What the cache did so far."""
        return self._engine.cache.statistics

    @property
    def batch_size(self) -> int:
        """Samples at a time."""
        return self._engine.batch_size

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """The outcome of each plan, as they come: in the order in which plans share most, not in that given."""
        return (outcome for _, outcome in self.evaluate_tagged(plans))

    def evaluate_tagged(self, plans: Sequence[Plan]) -> Iterator[tuple[int, Outcome]]:
        """(index in the sequence, outcome) of each plan, as they come."""
        candidates, failed = self._read(plans)
        yield from failed
        candidates.sort(key=lambda candidate: (candidate.plan.widths, candidate.formats))
        yield from self._engine.evaluate(candidates)

    def _read(self, plans: Sequence[Plan]) -> tuple[list[Candidate], list[tuple[int, Outcome]]]:
        """Plans that fit the graph, and the outcome of those that do not."""
        candidates: list[Candidate] = []
        failed: list[tuple[int, Outcome]] = []
        with on_one_thread(self._work.is_small):
            for index, plan in enumerate(plans):
                try:
                    candidates.append(Candidate(index=index, plan=plan, formats=self._plan_formats(plan)))
                except DovetailError as error:
                    failed.append((index, Outcome(plan, None, str(error))))
        return candidates, failed

    def _plan_formats(self, plan: Plan) -> tuple[int, ...]:
        """The plan's format of each site, as numbers.

        Raises:
            PlanError: The plan does not fit the graph.
            FormatError: A format cannot be calibrated.
        """
        if plan.widths:
            self._work.graph.check(plan)
        concrete = self._calibration.resolve(plan)
        formats = [0] * len(self._work.program.sites)
        for pair in concrete.formats:
            known = self._places.get(pair)
            if known is None:
                self._work.graph.check(concrete)
                site, fmt = pair
                number = self._format_numbers.setdefault(fmt, len(self._formats))
                if number == len(self._formats):
                    self._formats.append(fmt)
                known = self._places[pair] = (self._work.program.sites[site], number)
            formats[known[0]] = known[1]
        return tuple(formats)
