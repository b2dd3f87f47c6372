"""The engine of evaluation: in what order values are computed, and what is held for plans to come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError, EvaluationError, ResizeError
from dovetail.evaluation.ahead import Begun, begin
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


@dataclass(slots=True, kw_only=True, eq=False)
class Candidate(Numbered):
    """A plan, and what is known of it while pieces of the data go through.

    Args:
        index: its place in the call.
        plan: the plan.
        found: what was measured, piece by piece.
        failure: why there is no more to measure.
        duration_s: seconds spent so far.
    """

    index: int
    plan: Plan
    found: list[Values] = field(default_factory=list)
    failure: str | None = None
    duration_s: float = 0.0


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
        self._has_thread = False
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
        self._held: tuple[Begun, float] | None = None  # a group begun before its turn, and seconds spent on it
        self._data = [
            {number: x[part] for (_, number), x in zip(self._inputs, split.inputs, strict=True)}
            for part in self._pieces
        ]
        self._targets = [split.targets[part] for part in self._pieces]

    @torch.inference_mode()
    def _number(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Begin a new series of plans: those of the candidates whose widths can be had."""
        self._numbering.begin()
        series: list[Candidate] = []
        with on_one_thread(self._work.is_small):
            for candidate in candidates:
                try:
                    given = (*self._tensor_numbers(candidate.plan.widths), *self._inputs)
                except DovetailError as error:
                    candidate.failure = str(error)
                    continue
                candidate.position = len(series)
                candidate.numbers = self._numbering.number(candidate.formats, given, candidate.position)
                series.append(candidate)
        self._numbering.end()
        return series

    def _tensor_numbers(self, widths: Widths) -> Sequence[tuple[int, int]]:
        """The numbers of the model's tensors at these widths; where memory runs out, all that is held makes room.

        Raises:
            DovetailError: These widths cannot be had.
        """
        try:
            return self._tensors.numbers(widths)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._make_room()
        try:
            return self._tensors.numbers(widths)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ResizeError(f"out of memory on {self._device} for the resized tensors: {error}") from error

    def _evaluate_window(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Outcome]]:
        self._held = None  # of a call that was given up
        self._has_thread = self._work.is_small and torch.get_num_threads() > 1
        series = self._number(candidates)
        yield from (self._outcome(candidate) for candidate in candidates if candidate.failure is not None)
        if not series:
            return
        samples = len(self._work.split)
        held = self._numbering.held_bytes_per_sample(len(series)) * samples
        of_one_plan = sum(step.bytes_per_sample for step in self._work.program.steps) * samples
        self._interpreter.keep = len(series) < _FEW_PLANS and of_one_plan * _KEPT_SHARE <= self.cache.budget
        if held <= self.cache.budget or len(self._pieces) == 1:
            groups = list(self._groups(series))
            for group, then in zip(groups, [*groups[1:], None], strict=True):
                yield from self._evaluate_chunk([group], then)
            return
        start, size = 0, _FIRST_CHUNK
        while start < len(series):
            chunk = self._number(series[start : start + size])
            began = time.perf_counter()
            yield from self._evaluate_chunk(list(self._groups(chunk)))
            start += size
            if time.perf_counter() - began < _CHUNK_SECONDS / 2:
                size *= 2

    def _groups(self, series: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        """Neighbours that one matrix product can serve; others alone."""
        group: list[Candidate] = []
        key: tuple[int, Widths] | None = None
        for candidate in series:
            leaf = -1 if self._leaves is None else self._leaves.key(candidate)
            its = None if leaf < 0 else (leaf, candidate.plan.widths)
            if group and (its is None or its != key or len(group) == _STACK):
                yield group
                group = []
            group.append(candidate)
            key = its
        if group:
            yield group

    def _evaluate_chunk(
        self, groups: Sequence[Sequence[Candidate]], then: Sequence[Candidate] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Every piece of the data through every plan of a chunk.

        Args:
            groups: of the chunk.
            then: the group that will be run after it.
        """
        chunk = [candidate for group in groups for candidate in group]
        while True:
            try:
                for piece in range(len(self._pieces)):
                    following = (groups[0], piece + 1) if piece + 1 < len(self._pieces) else (then or (), 0)
                    for group, after in zip(groups, [*((its, piece) for its in groups[1:]), following], strict=True):
                        self._run_piece(group, piece, *after)
                    self._let_go(chunk, piece)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._recover(chunk, error)
        yield from map(self._outcome, chunk)

    def _recover(self, chunk: Sequence[Candidate], error: RuntimeError | MemoryError) -> None:
        """Out of memory: everything held is let go and the chunk begins again with half the batch."""
        self._held = None
        self._make_room()
        if self.batch_size == 1:
            for candidate in chunk:
                candidate.failure = f"out of memory on {self._device} even one sample at a time: {error}"
            return
        self._set_batch_size((self.batch_size + 1) // 2)
        for candidate in chunk:
            candidate.found.clear()

    @property
    def _device(self) -> torch.device:
        return self._work.split.targets.device

    def _make_room(self) -> None:
        self.cache.clear()
        if self._device.type != "cpu":
            torch.get_device_module(self._device).empty_cache()

    def _let_go(self, chunk: Sequence[Candidate], piece: int) -> None:
        """Values that no later plan of the series needs, which plans that failed or were found whole left behind."""
        if self._interpreter.keep:
            return
        for number in self._numbering.used_up(chunk[0].position, chunk[-1].position):
            self.cache.pop(number * len(self._pieces) + piece)

    @torch.inference_mode()
    def _run_piece(self, group: Sequence[Candidate], piece: int, then: Sequence[Candidate], then_piece: int) -> None:
        """One piece of the data through plans of one group; the one that comes then may be begun meanwhile."""
        running = _running(group)
        if not running:
            return
        began, elsewhere = time.perf_counter(), 0.0
        try:
            with on_one_thread(self._work.is_small):
                begun, before = self._take_begun(running, piece)
                elsewhere = self._begin_next(_running(then), then_piece, begun) - before
                found = self._measure(running, begun)
        except (DovetailError, RuntimeError) as error:
            if isinstance(error, EvaluationError) or is_out_of_memory(error):
                raise
            found = [str(error) or repr(error)] * len(running)
        duration = (time.perf_counter() - began - elsewhere) / len(running)
        for candidate, values in zip(running, found, strict=True):
            candidate.duration_s += duration
            if isinstance(values, str):
                candidate.failure = values
            else:
                candidate.found.append(values)

    def _begin(self, group: Sequence[Candidate], piece: int) -> Begun:
        if len(group) == 1 or self._leaves is None:
            return Begun(group=group, piece=piece)
        return begin(self._leaves, group, self._given(group, piece), piece, ahead=self._has_thread)

    def _take_begun(self, group: Sequence[Candidate], piece: int) -> tuple[Begun, float]:
        """A group as it was begun before its turn, or as it is begun now; and the seconds spent before its turn."""
        held, self._held = self._held, None
        if held is not None and (held[0].group, held[0].piece) == (group, piece):
            return held
        return self._begin(group, piece), 0.0

    def _begin_next(self, group: Sequence[Candidate], piece: int, current: Begun) -> float:
        """Begin the group that comes next, where a thread computes the current one meanwhile; the seconds it took.

        One that cannot be begun is left to its own turn, which says why.
        """
        if current.future is None or not group:
            return 0.0
        assert current.product is not None, "a thread computes it"
        began = time.perf_counter()
        self._interpreter.in_use = current.product.number
        try:
            begun = self._begin(group, piece)
        except (DovetailError, RuntimeError, MemoryError):
            return time.perf_counter() - began
        finally:
            self._interpreter.in_use = -1
        seconds = time.perf_counter() - began
        self._held = begun, seconds
        return seconds

    def _measure(self, group: Sequence[Candidate], begun: Begun) -> Sequence[Values | str]:
        piece, metrics = begun.piece, self._work.metrics
        outputs, targets = begun.outputs(), self._targets[piece]
        if outputs is not None:
            return metrics.measure_stack(outputs, targets)
        given = self._given(group, piece)
        found = []
        for plan in group:
            outputs = self._interpreter.output(plan.numbers, plan.formats, given, plan.position, piece)
            found.append(metrics.measure(outputs, targets))
        return found

    def _given(self, group: Sequence[Candidate], piece: int) -> Mapping[int, Any]:
        """The value of each number that no step computes."""
        return {**self._tensors.values(group[0].plan.widths), **self._data[piece]}

    def _outcome(self, candidate: Candidate) -> tuple[int, Outcome]:
        began = time.perf_counter()
        score: Score | str = candidate.failure or self._work.metrics.score(candidate.found)
        duration = candidate.duration_s + time.perf_counter() - began
        if isinstance(score, str):
            return candidate.index, Outcome(candidate.plan, None, score, duration)
        return candidate.index, Outcome(candidate.plan, score, None, duration)


def _running(group: Sequence[Candidate]) -> list[Candidate]:
    """Those of a group that have not failed."""
    return [candidate for candidate in group if candidate.failure is None]
