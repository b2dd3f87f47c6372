"""Training many candidates: in stacks where that pays, on several threads, and fewer from rung to rung where asked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError
from dovetail.evaluation.stacked import CannotStackError, StackTrainer
from dovetail.evaluation.training import EpochReport, Trainer, TrainResult
from dovetail.settings import TrainConfig

__all__ = ["CANDIDATE_ERRORS", "size_classes", "train_cohort"]

CANDIDATE_ERRORS = (DovetailError, RuntimeError, ValueError, ArithmeticError, MemoryError)
"""What a candidate's own model or data may raise; anything else is a bug, and raises."""

MOST_STACKED = 16
"""Models in one stack: more gains little, and what they keep for the backward pass outgrows the caches."""

# What a training step takes, in FLOPs of that time (48 GFLOP/s), fitted to steps of jsc-three-linear at 5 widths, 5
# stack heights and batches of 128 and 512 on one core of an AMD EPYC. A model alone: SINGLE_STEP + its arithmetic.
SINGLE_STEP = 41e6
# A stack: STACK_STEP + for each model (STACKED_MODEL + STACKED_WORK x the arithmetic of the padded model).
STACK_STEP = 100e6
STACKED_MODEL = 5e6
STACKED_WORK = 1.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What all candidates' trainings have in common."""

    train: Split
    validation: Split
    config: TrainConfig
    batch_size: int


class _Member(Protocol):
    """One or several candidates in training together."""

    reports: list[list[EpochReport]]

    @property
    def active(self) -> tuple[int, ...]: ...
    def run_epoch(self) -> None: ...
    def drop(self, indices: Sequence[int]) -> None: ...
    def results(self) -> Sequence[TrainResult | Exception]: ...


class _Single:
    """One candidate, trained by itself."""

    def __init__(self, model: nn.Module, training: Training, seed: int, *, isolate: bool) -> None:
        self._trainer = Trainer(
            model,
            training.train,
            training.validation,
            training.config,
            batch_size=training.batch_size,
            seed=seed,
            isolate=isolate,
        )
        self.reports: list[list[EpochReport]] = [self._trainer.reports]
        self._failure: Exception | None = None
        self._is_dropped = False

    @property
    def active(self) -> tuple[int, ...]:
        return () if self._is_dropped or self._failure or self._trainer.is_finished else (0,)

    def run_epoch(self) -> None:
        try:
            self._trainer.run_epoch()
        except CANDIDATE_ERRORS as error:
            self._failure = error

    def drop(self, indices: Sequence[int]) -> None:
        self._is_dropped = self._is_dropped or 0 in indices

    def results(self) -> Sequence[TrainResult | Exception]:
        return [self._failure or self._trainer.result()]


def train_cohort(
    models: Sequence[nn.Module],
    training: Training,
    *,
    seeds: Sequence[int],
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> list[TrainResult | Exception]:
    """Train copies of many models.

    With `stacked`, models of similar size are trained in one stack each (`StackTrainer`), which agrees with one by one
    to float rounding. With `halving` = n, only the best one in n by validation loss goes on after epochs 1, n, n**2,
    ...: then a result depends on the company, too.

    Args:
        models: On the device to train on; not changed.
        training: Data and settings.
        seeds: One for each model.
        workers: Threads, one core each; models whose layers draw random numbers are trained on one.
        stop: Asked after each epoch of each stack; True ends all training there.

    Returns:
        For each model its result, or the error that it ended by.
    """
    members = _members(models, training, seeds, workers)
    jobs = [member for member, _ in members]
    with _workers(workers if len(jobs) > 1 and not _draws_randomness(models, training) else 1) as run:
        for epochs in _rungs(training.config):
            run(jobs, epochs, stop)
            if stop():
                break
            if epochs < training.config.epochs and training.config.halving is not None:
                _halve(jobs, training.config.halving)
    found: dict[int, TrainResult | Exception] = {}
    for member, indices in members:
        found |= dict(zip(indices, member.results(), strict=True))
    return [found[index] for index in range(len(models))]


def size_classes(sizes: Sequence[Sequence[Sequence[int]]], batch_size: int) -> list[list[int]]:
    """Which models to stack, so that a step of all takes least time: the models in order of size, cut into runs.

    Args:
        sizes: For each model the shapes of its parameters.
        batch_size: Samples per step; an element of a parameter costs 6 FLOPs a sample, forward and backward.

    Returns:
        Indices by class, the largest models first.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-_elements(sizes[i]), i))
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first so many models: least cost, start of the last run
    for end in range(1, len(order) + 1):
        runs = (
            (best[start][0] + _step_cost([sizes[i] for i in order[start:end]], batch_size), start)
            for start in range(max(0, end - MOST_STACKED), end)
        )
        best.append(min(runs))
    classes: list[list[int]] = []
    end = len(order)
    while end:
        start = best[end][1]
        classes.insert(0, order[start:end])
        end = start
    return classes


def _step_cost(sizes: Sequence[Sequence[Sequence[int]]], batch_size: int) -> float:
    if len(sizes) == 1:
        return SINGLE_STEP + 6 * batch_size * _elements(sizes[0])
    padded = [[max(dims) for dims in zip(*shapes, strict=True)] for shapes in zip(*sizes, strict=True)]
    return STACK_STEP + len(sizes) * (STACKED_MODEL + STACKED_WORK * 6 * batch_size * _elements(padded))


def _elements(shapes: Sequence[Sequence[int]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _members(
    models: Sequence[nn.Module], training: Training, seeds: Sequence[int], workers: int
) -> list[tuple[_Member, list[int]]]:
    """Candidates grouped for training, the largest first."""
    found: list[tuple[_Member, list[int]]] = []
    isolate = workers == 1 or _draws_randomness(models, training)
    for group in _alike(models) if training.config.stacked else [[index] for index in range(len(models))]:
        sizes = [[list(p.shape) for p in models[index].parameters()] for index in group]
        for members in size_classes(sizes, training.batch_size):
            found += _stacked([group[place] for place in members], models, training, seeds, isolate)
    return sorted(found, key=lambda item: -sum(p.numel() for i in item[1] for p in models[i].parameters()))


def _stacked(
    indices: list[int], models: Sequence[nn.Module], training: Training, seeds: Sequence[int], isolate: bool
) -> list[tuple[_Member, list[int]]]:
    if len(indices) > 1:
        try:
            stack = StackTrainer(
                [models[index] for index in indices],
                training.train,
                training.validation,
                training.config,
                batch_size=training.batch_size,
                seeds=[seeds[index] for index in indices],
            )
        except CannotStackError:
            pass
        else:
            return [(stack, indices)]
    return [(_Single(models[index], training, seeds[index], isolate=isolate), [index]) for index in indices]


def _alike(models: Sequence[nn.Module]) -> list[list[int]]:
    """Indices of models of one architecture and, where they are quantised, of the same formats."""
    groups: list[list[int]] = []
    for index, model in enumerate(models):
        for group in groups:
            if _architecture(models[group[0]]) == _architecture(model):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _architecture(model: nn.Module) -> tuple[object, ...]:
    layers = tuple(type(module) for module in model.modules())
    tensors = tuple((name, parameter.ndim) for name, parameter in model.named_parameters())
    return layers, tensors, getattr(model, "formats", None)


def _draws_randomness(models: Sequence[nn.Module], training: Training) -> bool:
    """Whether a step of training draws random numbers; tried on the first model of each architecture."""
    tried = [models[group[0]] for group in _alike(models)]
    rows = torch.arange(min(2, len(training.train)))
    inputs = tuple(tensor[rows] for tensor in training.train.inputs)
    for model in tried:
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        mode = model.training
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            before = torch.random.get_rng_state()
            try:
                model.train()(*inputs)
            except CANDIDATE_ERRORS:
                return True  # it will fail in training, and say why there
            finally:
                model.train(mode)
                for buffer, value in buffers:
                    buffer.copy_(value)
            if not torch.equal(before, torch.random.get_rng_state()):
                return True
    return False


def _rungs(config: TrainConfig) -> Iterator[int]:
    """The epochs after which candidates are compared, and the last."""
    if config.halving is not None:
        epochs = 1
        while epochs < config.epochs:
            yield epochs
            epochs *= config.halving
    yield config.epochs


def _halve(jobs: Sequence[_Member], divisor: int) -> None:
    """Keep the best one in `divisor`, rounded up, by the last validation loss; ties keep the earlier."""
    active = [(place, index) for place, member in enumerate(jobs) for index in member.active]
    ranked = sorted((jobs[place].reports[index][-1].validation_loss, place, index) for place, index in active)
    for _, place, index in ranked[-(-len(ranked) // divisor) :]:
        jobs[place].drop([index])


def _train_until(member: _Member, epochs: int, stop: Callable[[], bool]) -> None:
    while member.active and len(member.reports[member.active[0]]) < epochs and not stop():
        member.run_epoch()


def _run_in_turn(members: Sequence[_Member], epochs: int, stop: Callable[[], bool]) -> None:
    for member in members:
        _train_until(member, epochs, stop)


@contextmanager
def _workers(count: int) -> Iterator[Callable[[Sequence[_Member], int, Callable[[], bool]], None]]:
    """Runs members until an epoch, one after another or on threads of one core each."""
    if count == 1:
        yield _run_in_turn
        return
    cores = torch.get_num_threads()
    halt = threading.Event()
    try:
        with ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1)) as pool:

            def run(members: Sequence[_Member], epochs: int, stop: Callable[[], bool]) -> None:
                futures = [pool.submit(_train_until, m, epochs, lambda: halt.is_set() or stop()) for m in members]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    halt.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

            yield run
    finally:
        torch.set_num_threads(cores)
