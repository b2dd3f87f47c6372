"""Training many candidates: side by side where that pays, on several cores, and fewer from rung to rung where asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import nn

from dovetail.data import Split
from dovetail.errors import DovetailError, EvaluationError
from dovetail.evaluation.crew import crew
from dovetail.evaluation.grouping import alike, kept_bytes, share_out, size_classes, step_cost
from dovetail.evaluation.side_by_side import SideBySideTrainer
from dovetail.evaluation.sizing import on_one_thread
from dovetail.evaluation.stacked import CannotStackError
from dovetail.evaluation.training import EpochReport, Trainer, TrainResult
from dovetail.settings import TrainConfig

__all__ = ["CANDIDATE_ERRORS", "Training", "train_cohort"]

CANDIDATE_ERRORS = (DovetailError, RuntimeError, ValueError, ArithmeticError, MemoryError)
"""What a candidate's own model or data may raise; anything else is a bug, and raises."""

# What models side by side keep for their backward pass. On CPUs it should stay in the last-level cache; larger models
# gain nothing side by side, their arithmetic is all that a step costs.
_KEPT_BYTES, _KEPT_BYTES_ON_GPU = 32 << 20, 1 << 30

_GROUPS = 4
"""Groups that candidates are shared out to at least, whatever the number of workers: what each gains from company is
nearly all there with a handful, and several cores can take a group each."""

Made = TypeVar("Made")
Finish = Callable[[int, TrainResult | Exception], Made]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What all candidates' trainings have in common."""

    train: Split
    validation: Split
    config: TrainConfig
    batch_size: int


def train_cohort(
    models: Sequence[nn.Module],
    training: Training,
    finish: Finish[Made],
    *,
    seeds: Sequence[int],
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[dict[int, Made], None, None]:
    """Train copies of many models; workers are gone when the iterator is at its end, or closed.

    With `stacked`, small models are trained side by side (`SideBySideTrainer`), those of similar size as one (`Stack`)
    where that is faster; it agrees with one by one to float rounding. With `halving` = n, only the best one in n by
    validation loss goes on after epochs 1, n, n**2, ...: then a result depends on the company, too.

    Args:
        models: On the device to train on; not changed.
        training: Data and settings.
        finish: What to make of a candidate's number and its result, or the error that it ended by. It is called where
            the candidate was trained; with several workers, what it makes must be picklable.
        seeds: One for each model.
        workers: Processes, one core each; one where `can_fork` says that there are none to be had.
        stop: Asked after each epoch, or while workers train; True ends all training there.

    Yields:
        Models' numbers and what `finish` made of them, as they come: those that were trained side by side at once.
        Nothing for those that a stop cut off.
    """
    groups = _groups(models, training) if training.config.stacked else [[[index]] for index in range(len(models))]
    jobs = [_Job(classes, models, training, seeds, finish) for classes in groups]
    jobs.sort(key=lambda job: -job.num_elements)  # the longest first, so that workers end at about the same time
    config = training.config
    with crew(jobs, workers, training.train.targets.device) as workforce:
        for epochs in _rungs(config):
            losses = workforce.train(epochs, stop)
            if stop():
                return
            assert config.halving is not None
            workforce.drop(dict.fromkeys(_worse(losses, config.halving), epochs))
        yield from workforce.finish(config.epochs, stop)


def _groups(models: Sequence[nn.Module], training: Training) -> list[list[list[int]]]:
    """Candidates to train side by side, each group in classes that compute as one."""
    sizes = [[list(p.shape) for p in model.parameters()] for model in models]
    kept = [kept_bytes(model, training.train) * training.batch_size for model in models]
    classes: list[list[int]] = []
    for group in alike(models):
        for members in size_classes([sizes[index] for index in group], training.batch_size):
            classes.append([group[place] for place in members])
    costs = [step_cost([sizes[index] for index in members], training.batch_size) for members in classes]
    room = _KEPT_BYTES if training.train.targets.device.type == "cpu" else _KEPT_BYTES_ON_GPU
    kept_by_class = [sum(kept[index] for index in members) for members in classes]
    return [[classes[item] for item in group] for group in share_out(costs, kept_by_class, room, _GROUPS)]


def _rungs(config: TrainConfig) -> Iterator[int]:
    """The epochs after which candidates are compared."""
    epochs = 1
    while config.halving is not None and epochs < config.epochs:
        yield epochs
        epochs *= config.halving


def _worse(losses: dict[int, float], divisor: int) -> list[int]:
    """All but the best one in `divisor`, rounded up, by validation loss; ties keep the earlier."""
    ranked = sorted(losses, key=lambda index: (losses[index], index))
    return ranked[-(-len(ranked) // divisor) :]


class _Trains(Protocol):
    """One or several candidates in training; they are numbered from 0."""

    reports: list[list[EpochReport]]

    @property
    def active(self) -> tuple[int, ...]: ...
    def run_epoch(self) -> None: ...
    def drop(self, indices: Sequence[int]) -> None: ...
    def results(self) -> Sequence[TrainResult | Exception]: ...


class _Single:
    """One candidate, trained by itself."""

    def __init__(self, model: nn.Module, training: Training, seed: int) -> None:
        self.reports: list[list[EpochReport]] = [[]]
        self._failure: Exception | None = None
        self._is_dropped = False
        self._trainer: Trainer | None = None
        try:
            self._trainer = Trainer(
                model,
                training.train,
                training.validation,
                training.config,
                batch_size=training.batch_size,
                seed=seed,
            )
        except CANDIDATE_ERRORS as error:  # such as no memory for a copy
            self._failure = error
        else:
            self.reports = [self._trainer.reports]

    @property
    def active(self) -> tuple[int, ...]:
        is_over = self._is_dropped or self._failure or self._trainer is None or self._trainer.is_finished
        return () if is_over else (0,)

    def run_epoch(self) -> None:
        assert self._trainer is not None
        try:
            self._trainer.run_epoch()
        except CANDIDATE_ERRORS as error:
            self._failure = error

    def drop(self, indices: Sequence[int]) -> None:
        self._is_dropped = self._is_dropped or 0 in indices

    def results(self) -> Sequence[TrainResult | Exception]:
        if self._failure is not None:
            return [self._failure]
        assert self._trainer is not None
        return [self._trainer.result()]


class _Job(Generic[Made]):
    """A group of candidates, trained side by side, or one by one where that cannot be."""

    def __init__(
        self,
        classes: Sequence[Sequence[int]],
        models: Sequence[nn.Module],
        training: Training,
        seeds: Sequence[int],
        finish: Finish[Made],
    ) -> None:
        self._indices = [index for members in classes for index in members]
        self._classes = [[self._indices.index(index) for index in members] for members in classes]
        self._models = [models[index] for index in self._indices]
        self._seeds = [seeds[index] for index in self._indices]
        self._training = training
        self._finish = finish
        self._dropped: dict[int, int] = {}  # places, and after how many epochs
        self._parts: list[tuple[_Trains, list[int]]] | None = None

    @property
    def num_elements(self) -> int:
        """Of all parameters."""
        return sum(p.numel() for model in self._models for p in model.parameters())

    def train(self, epochs: int, stop: Callable[[], bool]) -> dict[int, float]:
        """See `Job`."""
        if self._parts is None:
            self._parts = self._side_by_side() if len(self._models) > 1 else self._one_by_one()
        with on_one_thread(len(self._models) > 1):
            try:
                self._run(epochs, stop)
            except (CannotStackError, *CANDIDATE_ERRORS):
                if len(self._parts) == len(self._models):
                    raise
                self._parts = self._one_by_one()  # from the beginning; who is at fault fails alone
                self._run(epochs, stop)
        return {
            self._indices[place]: trainer.reports[number][-1].validation_loss
            for trainer, places in self._parts
            for number, place in enumerate(places)
            if number in trainer.active
        }

    def drop(self, after: Mapping[int, int]) -> None:
        """See `Job`."""
        self._dropped |= {place: after[index] for place, index in enumerate(self._indices) if index in after}

    def finish(self) -> dict[int, Made]:
        """See `Job`."""
        found: dict[int, Made] = {}
        for trainer, places in self._parts or ():
            for place, result in zip(places, trainer.results(), strict=True):
                found[self._indices[place]] = self._finish(self._indices[place], result)
        self._parts = []
        return found

    def give_up(self, reason: str) -> dict[int, Made]:
        """See `Job`."""
        error = EvaluationError(f"training: {reason}.")
        return {index: self._finish(index, error) for index in self._indices}

    def _run(self, epochs: int, stop: Callable[[], bool]) -> None:
        for trainer, places in self._parts or ():
            for until in sorted({*self._dropped.values(), epochs}):
                while trainer.active and len(trainer.reports[trainer.active[0]]) < until and not stop():
                    trainer.run_epoch()
                trainer.drop([n for n, place in enumerate(places) if self._dropped.get(place, until + 1) <= until])

    def _side_by_side(self) -> list[tuple[_Trains, list[int]]]:
        everyone = list(range(len(self._models)))
        for classes in (self._classes, None):
            try:
                trainer = SideBySideTrainer(
                    self._models,
                    self._training.train,
                    self._training.validation,
                    self._training.config,
                    batch_size=self._training.batch_size,
                    seeds=self._seeds,
                    classes=classes,
                )
            except CannotStackError:
                continue
            return [(trainer, everyone)]
        return self._one_by_one()

    def _one_by_one(self) -> list[tuple[_Trains, list[int]]]:
        return [
            (_Single(model, self._training, seed), [place])
            for place, (model, seed) in enumerate(zip(self._models, self._seeds, strict=True))
        ]
