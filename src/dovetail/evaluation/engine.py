"""The engine of evaluation: in what order values are computed, and what is held for plans to come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError, EvaluationError
from dovetail.evaluation.cache import ValueCache
from dovetail.evaluation.interpreter import Interpreter
from dovetail.evaluation.leaves import Leaves
from dovetail.evaluation.memory import is_out_of_memory
from dovetail.evaluation.metrics import MetricSet, Values
from dovetail.evaluation.numbering import Numbered, Numbering
from dovetail.evaluation.program import Program
from dovetail.evaluation.score import Outcome, Score
from dovetail.evaluation.sizing import on_one_thread, pieces
from dovetail.evaluation.tail import find_tail
from dovetail.evaluation.tensors import ModelTensors, Widths
from dovetail.formats import Format
from dovetail.graph import Graph
from dovetail.plan import Plan
from dovetail.transforms import Weights

__all__ = ["Candidate", "Engine", "Work"]

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
class Candidate:
    """A plan, ready to be ordered: its place in the call, and its formats by site, as numbers."""

    index: int
    plan: Plan
    formats: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What plans are run on.

    Args:
        graph: the model's graph.
        model: the model, on the device it runs on.
        program: of the graph.
        split: the samples, on the device.
        metrics: what is measured.
        formats: the format of each number (number 0 is no format).
        is_small: whether operators are to run on one thread.
        weights, seed: as for `resize`.
    """

    graph: Graph
    model: nn.Module
    program: Program
    split: Split
    metrics: MetricSet
    formats: Sequence[Format | None]
    is_small: bool
    weights: Weights
    seed: int


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What is known of a plan while pieces of the data go through it."""

    candidate: Candidate
    numbered: Numbered
    found: list[Values]
    failure: str | None = None
    duration_s: float = 0.0


class Engine:
    """Evaluates plans that are in an order in which neighbours share most; see `PtqEvaluator`.

    Args:
        work: what plans are run on.
        batch_size: samples at a time; halved when memory runs out.
        budget: bytes for values that plans share.
    """

    def __init__(self, work: Work, *, batch_size: int, budget: int) -> None:
        self._work = work
        self.batch_size = batch_size
        self.cache = ValueCache(budget)
        self._start_anew()

    def evaluate(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Outcome]]:
        """(index, outcome) of each candidate, in their order, which is that of widths and formats."""
        for start in range(0, len(candidates), _WINDOW):
            if len(self._numbering) > _MOST_NUMBERS:
                self._start_anew()
            yield from self._evaluate_window(candidates[start : start + _WINDOW])

    def _start_anew(self) -> None:
        self.cache.clear()
        work = self._work
        self._numbering = Numbering(work.program)
        self._tensors = ModelTensors(
            work.graph, work.model, work.program, self._numbering, weights=work.weights, seed=work.seed
        )
        self._interpreter = Interpreter(work.program, self._numbering, self.cache, work.formats)
        tail = find_tail(work.program)
        self._leaves = (
            None if tail is None else Leaves(tail, self._interpreter, self._numbering, self.cache, work.formats)
        )
        self._inputs = tuple(
            (slot, self._numbering.intern(("input", slot), is_static=False)) for slot in work.program.inputs
        )
        self._set_batch_size(self.batch_size)

    def _set_batch_size(self, batch_size: int) -> None:
        """Cut the data; values of other cuts are let go."""
        self.cache.clear()
        split = self._work.split
        self.batch_size = batch_size
        self._pieces = pieces(len(split), batch_size)
        self._interpreter.num_pieces = len(self._pieces)
        self._data = [
            {number: x[part] for (_, number), x in zip(self._inputs, split.inputs, strict=True)}
            for part in self._pieces
        ]
        self._targets = [split.targets[part] for part in self._pieces]

    @torch.inference_mode()
    def _numbered(self, candidates: Sequence[Candidate]) -> tuple[list[_Progress], list[_Progress]]:
        """A new series of plans: those that can be evaluated, and those whose widths cannot be had."""
        self._numbering.begin()
        good: list[_Progress] = []
        failed: list[_Progress] = []
        with on_one_thread(self._work.is_small):
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

    def _evaluate_window(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Outcome]]:
        series, failed = self._numbered(candidates)
        yield from map(self._outcome, failed)
        if not series:
            return
        held = self._numbering.held_bytes_per_sample(len(series)) * len(self._work.split)
        of_one_plan = sum(step.bytes_per_sample for step in self._work.program.steps) * len(self._work.split)
        self._interpreter.keep = len(series) < _FEW_PLANS and of_one_plan * _KEPT_SHARE <= self.cache.budget
        if held <= self.cache.budget or len(self._pieces) == 1:
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
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._recover(chunk, error)
        yield from map(self._outcome, chunk)

    def _recover(self, chunk: Sequence[_Progress], error: RuntimeError) -> None:
        """Out of memory: everything held is let go and the chunk begins again with half the batch."""
        device = self._work.split.targets.device
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch_size == 1:
            self.cache.clear()
            for progress in chunk:
                progress.failure = f"out of memory on {device} even one sample at a time: {error}"
            return
        self._set_batch_size((self.batch_size + 1) // 2)
        for progress in chunk:
            progress.found.clear()

    def _let_go(self, chunk: Sequence[_Progress], piece: int) -> None:
        """Values that no later plan of the series needs, which plans that failed or were found whole left behind."""
        if self._interpreter.keep:
            return
        for number in self._numbering.used_up(chunk[0].numbered.position, chunk[-1].numbered.position):
            self.cache.pop(number * len(self._pieces) + piece)

    @torch.inference_mode()
    def _run_piece(self, group: Sequence[_Progress], piece: int) -> None:
        """One piece of the data through plans of one group."""
        running = [progress for progress in group if progress.failure is None]
        if not running:
            return
        began = time.perf_counter()
        try:
            with on_one_thread(self._work.is_small):
                found = self._measure(running, piece)
        except (DovetailError, RuntimeError) as error:
            if isinstance(error, EvaluationError) or is_out_of_memory(error):
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
                return self._work.metrics.measure_stack(outputs, targets)
        found = []
        for plan in plans:
            outputs = self._interpreter.output(plan.numbers, plan.formats, given, plan.position, piece)
            found.append(self._work.metrics.measure(outputs, targets))
        return found

    def _outcome(self, progress: _Progress) -> tuple[int, Outcome]:
        began = time.perf_counter()
        score: Score | str = progress.failure or self._work.metrics.score(progress.found)
        duration = progress.duration_s + time.perf_counter() - began
        plan = progress.candidate.plan
        if isinstance(score, str):
            return progress.candidate.index, Outcome(plan, None, score, duration)
        return progress.candidate.index, Outcome(plan, score, None, duration)
