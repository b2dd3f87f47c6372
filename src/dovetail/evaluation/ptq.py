"""Evaluate plans after training, paying once for what they share."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError, EvaluationError
from dovetail.evaluation.cache import CacheStatistics, ValueCache
from dovetail.evaluation.calibration import CALIBRATION_SAMPLES, Calibration
from dovetail.evaluation.interpreter import Interpreter
from dovetail.evaluation.leaves import Leaves
from dovetail.evaluation.memory import default_budget
from dovetail.evaluation.metrics import MetricSet, Values
from dovetail.evaluation.numbering import Numbered, Numbering
from dovetail.evaluation.program import compile_program
from dovetail.evaluation.score import Outcome, Score
from dovetail.evaluation.sizing import default_batch_size, is_small, on_one_thread, pieces, place
from dovetail.evaluation.tail import find_tail
from dovetail.evaluation.tensors import ModelTensors, Widths
from dovetail.formats import Format
from dovetail.graph import Graph
from dovetail.plan import Plan, Site
from dovetail.transforms import Weights

__all__ = ["PtqEvaluator"]

# Plans ordered, numbered and foreseen together: enough to share, few enough that their numbers stay small beside data.
_WINDOW = 8192
# Plans that go through one batch before the next batch comes, where values of all batches do not fit: doubled until
# they take this long, so that results keep coming.
_CHUNK_SECONDS = 60.0
_FIRST_CHUNK = 4
# Plans whose last layers are stacked into one.
_STACK = 16
# Numbers known before numbering and cache start anew.
_MOST_NUMBERS = 2_000_000
# In a call with fewer plans values are held for calls to come, where a plan's values take at most 1/32 of the budget.
_FEW_PLANS = 8
_KEPT_SHARE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A plan, ready to be ordered: its place in the call, and its formats by site, as numbers."""

    index: int
    plan: Plan
    formats: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What is known of a plan while pieces of the data go through it."""

    candidate: _Candidate
    numbered: Numbered
    found: list[Values]
    failure: str | None = None
    duration_s: float = 0.0


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
        self._graph = graph
        self._device = torch.device(device)
        own = copy.deepcopy(model).to(self._device).eval()
        self._split = place(split, own, self._device)
        self._metrics = MetricSet(metrics, split.targets)
        self._program = compile_program(graph, self._device)
        self._batch_size = batch_size or default_batch_size(self._program, len(split), self._device)
        self._is_small = is_small(self._program, own, self._batch_size, self._device)
        self._cache = ValueCache(default_budget(self._device) if memory_budget is None else memory_budget)
        self._formats: list[Format | None] = [None]
        self._format_numbers: dict[Format, int] = {}
        self._places: dict[tuple[Site, Format], tuple[int, int]] = {}
        self._calibration = Calibration(
            graph,
            own,
            place((calibration or split).take(CALIBRATION_SAMPLES), own, self._device),
            weights=weights,
            seed=seed,
        )
        self._model, self._weights, self._seed = own, weights, seed
        self._start_anew()

    @property
    def statistics(self) -> CacheStatistics:
        """What the cache did so far."""
        return self._cache.statistics

    @property
    def batch_size(self) -> int:
        """Samples at a time."""
        return self._batch_size

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """The outcome of each plan, as they come: in the order in which plans share most, not in that given."""
        return (outcome for _, outcome in self.evaluate_tagged(plans))

    def evaluate_tagged(self, plans: Sequence[Plan]) -> Iterator[tuple[int, Outcome]]:
        """(index in the sequence, outcome) of each plan, as they come."""
        candidates, failed = self._read(plans)
        yield from failed
        candidates.sort(key=lambda candidate: (candidate.plan.widths, candidate.formats))
        for start in range(0, len(candidates), _WINDOW):
            if len(self._numbering) > _MOST_NUMBERS:
                self._start_anew()
            yield from self._evaluate_window(candidates[start : start + _WINDOW])

    def _read(self, plans: Sequence[Plan]) -> tuple[list[_Candidate], list[tuple[int, Outcome]]]:
        """Plans that fit the graph, and the outcome of those that do not."""
        candidates: list[_Candidate] = []
        failed: list[tuple[int, Outcome]] = []
        with on_one_thread(self._is_small):
            for index, plan in enumerate(plans):
                try:
                    candidates.append(_Candidate(index=index, plan=plan, formats=self._plan_formats(plan)))
                except DovetailError as error:
                    failed.append((index, Outcome(plan, None, str(error))))
        return candidates, failed

    def _start_anew(self) -> None:
        self._cache.clear()
        self._numbering = Numbering(self._program)
        self._tensors = ModelTensors(
            self._graph, self._model, self._program, self._numbering, weights=self._weights, seed=self._seed
        )
        self._interpreter = Interpreter(self._program, self._numbering, self._cache, self._formats)
        tail = find_tail(self._program)
        self._leaves = (
            None if tail is None else Leaves(tail, self._interpreter, self._numbering, self._cache, self._formats)
        )
        self._inputs = tuple(
            (slot, self._numbering.intern(("input", slot), is_static=False)) for slot in self._program.inputs
        )
        self._set_batch_size(self._batch_size)

    def _set_batch_size(self, batch_size: int) -> None:
        """Cut the data; values of other cuts are let go."""
        self._cache.clear()
        self._batch_size = batch_size
        self._pieces = pieces(len(self._split), batch_size)
        self._interpreter.num_pieces = len(self._pieces)
        self._data = [
            {number: x[part] for (_, number), x in zip(self._inputs, self._split.inputs, strict=True)}
            for part in self._pieces
        ]
        self._targets = [self._split.targets[part] for part in self._pieces]

    def _plan_formats(self, plan: Plan) -> tuple[int, ...]:
        """The plan's format of each site, as numbers.

        Raises:
            PlanError: The plan does not fit the graph.
            FormatError: A format cannot be calibrated.
        """
        if plan.widths:
            self._graph.check(plan)
        concrete = self._calibration.resolve(plan)
        formats = [0] * len(self._program.sites)
        for pair in concrete.formats:
            known = self._places.get(pair)
            if known is None:
                self._graph.check(concrete)
                site, fmt = pair
                number = self._format_numbers.setdefault(fmt, len(self._formats))
                if number == len(self._formats):
                    self._formats.append(fmt)
                known = self._places[pair] = (self._program.sites[site], number)
            formats[known[0]] = known[1]
        return tuple(formats)

    @torch.inference_mode()
    def _numbered(self, candidates: Sequence[_Candidate]) -> tuple[list[_Progress], list[_Progress]]:
        """A new series of plans: those that can be evaluated, and those whose widths cannot be had."""
        self._numbering.begin()
        good: list[_Progress] = []
        failed: list[_Progress] = []
        with on_one_thread(self._is_small):
            for candidate in candidates:
                numbered = Numbered(candidate.formats, (), len(good))
                progress = _Progress(candidate=candidate, numbered=numbered, found=[])
                try:
                    given = (*self._tensors.numbers(candidate.plan.widths), *self._inputs)
                except DovetailError as error:
                    progress.failure = str(error)
                    failed.append(progress)
                    continue
                numbered.numbers = self._numbering.number(candidate.formats, given, numbered.position)
                good.append(progress)
        self._numbering.end()
        return good, failed

    def _evaluate_window(self, candidates: Sequence[_Candidate]) -> Iterator[tuple[int, Outcome]]:
        series, failed = self._numbered(candidates)
        yield from map(self._outcome, failed)
        if not series:
            return
        held = self._numbering.held_bytes_per_sample(len(series)) * len(self._split)
        of_one_plan = sum(step.bytes_per_sample for step in self._program.steps) * len(self._split)
        self._interpreter.keep = len(series) < _FEW_PLANS and of_one_plan * _KEPT_SHARE <= self._cache.budget
        if held <= self._cache.budget or len(self._pieces) == 1:
            for group in self._groups(series):
                yield from self._evaluate_chunk(group)
            return
        start, size = 0, _FIRST_CHUNK
        while start < len(series):
            chunk, _ = self._numbered([progress.candidate for progress in series[start : start + size]])
            began = time.perf_counter()
            yield from self._evaluate_chunk(chunk)
            start += size
            if time.perf_counter() - began < _CHUNK_SECONDS / 2:
                size *= 2

    def _groups(self, series: Sequence[_Progress]) -> Iterator[list[_Progress]]:
        """Neighbours that one matrix product can serve; others alone."""
        group: list[_Progress] = []
        key: tuple[int, Widths] | None = None
        for progress in series:
            leaf = -1 if self._leaves is None else self._leaves.key(progress.numbered)
            its = None if leaf < 0 else (leaf, progress.candidate.plan.widths)
            if group and (its is None or its != key or len(group) == _STACK):
                yield group
                group = []
            group.append(progress)
            key = its
        if group:
            yield group

    def _evaluate_chunk(self, chunk: Sequence[_Progress]) -> Iterator[tuple[int, Outcome]]:
        """Every piece of the data through every plan of a chunk."""
        while True:
            try:
                for piece in range(len(self._pieces)):
                    for group in self._groups(chunk):
                        self._run_piece(group, piece)
                    self._let_go(chunk, piece)
                break
            except torch.OutOfMemoryError as error:
                self._recover(chunk, error)
        yield from map(self._outcome, chunk)

    def _recover(self, chunk: Sequence[_Progress], error: torch.OutOfMemoryError) -> None:
        """Out of memory: everything held is let go and the chunk begins again with half the batch."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self._batch_size == 1:
            self._cache.clear()
            for progress in chunk:
                progress.failure = f"out of memory on {self._device} even one sample at a time: {error}"
            return
        self._set_batch_size((self._batch_size + 1) // 2)
        for progress in chunk:
            progress.found.clear()

    def _let_go(self, chunk: Sequence[_Progress], piece: int) -> None:
        """Values that no later plan of the series needs, which plans that failed or were found whole left behind."""
        if self._interpreter.keep:
            return
        for number in self._numbering.used_up(chunk[0].numbered.position, chunk[-1].numbered.position):
            self._cache.pop(number * len(self._pieces) + piece)

    @torch.inference_mode()
    def _run_piece(self, group: Sequence[_Progress], piece: int) -> None:
        """One piece of the data through plans of one group."""
        running = [progress for progress in group if progress.failure is None]
        if not running:
            return
        began = time.perf_counter()
        try:
            with on_one_thread(self._is_small):
                found = self._measure(running, piece)
        except torch.OutOfMemoryError:
            raise
        except (DovetailError, RuntimeError) as error:
            if isinstance(error, EvaluationError):
                raise
            found = [str(error) or repr(error)] * len(running)
        duration = (time.perf_counter() - began) / len(running)
        for progress, values in zip(running, found, strict=True):
            progress.duration_s += duration
            if isinstance(values, str):
                progress.failure = values
            else:
                progress.found.append(values)

    def _measure(self, group: Sequence[_Progress], piece: int) -> Sequence[Values | str]:
        targets = self._targets[piece]
        plans = [progress.numbered for progress in group]
        given = {**self._tensors.values(group[0].candidate.plan.widths), **self._data[piece]}
        if len(plans) > 1 and self._leaves is not None:
            outputs = self._leaves.outputs(plans, given, piece)
            if outputs is not None:
                return self._metrics.measure_stack(outputs, targets)
        found = []
        for plan in plans:
            outputs = self._interpreter.output(plan.numbers, plan.formats, given, plan.position, piece)
            found.append(self._metrics.measure(outputs, targets))
        return found

    def _outcome(self, progress: _Progress) -> tuple[int, Outcome]:
        began = time.perf_counter()
        score: Score | str = progress.failure or self._metrics.score(progress.found)
        duration = progress.duration_s + time.perf_counter() - began
        plan = progress.candidate.plan
        if isinstance(score, str):
            return progress.candidate.index, Outcome(plan, None, score, duration)
        return progress.candidate.index, Outcome(plan, score, None, duration)
