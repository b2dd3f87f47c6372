"""Where candidates are trained: in this process one after another, or in worker processes of one core each.

Workers are forks. They share the data and the models without a copy, nothing has to be picklable but what they send
back, and they start in milliseconds; `docs/decisions/0004-workers-are-forks.md` has the measurements. A job stays with
the worker that began it, as long as that lives: the one at which a worker dies is lost with it, others are begun anew.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, TypeVar

import torch

__all__ = ["Crew", "Job", "can_fork", "crew"]

Made = TypeVar("Made")
_ASK_STOP_S = 0.1

logger = logging.getLogger(__name__)


class Job(Protocol[Made]):
    """Candidates that are trained together, each with a number of its own."""

    def train(self, epochs: int, stop: Callable[[], bool]) -> dict[int, float]:
        """Until so many epochs are run; the validation loss of each that is still in training."""

    def drop(self, after: Mapping[int, int]) -> None:
        """Take candidates out of training, each after so many epochs; it may not have begun, or be done with them."""

    def finish(self) -> dict[int, Made]:
        """What has become of each."""

    def give_up(self, reason: str) -> dict[int, Made]:
        """What to say of each whose worker has died."""


class Crew(Protocol[Made]):
    """Trains jobs."""

    def train(self, epochs: int, stop: Callable[[], bool]) -> dict[int, float]:
        """Until so many epochs are run; the validation loss of each candidate that is still in training."""

    def drop(self, after: Mapping[int, int]) -> None:
        """Take candidates out of training, each after so many epochs."""

    def finish(self, epochs: int, stop: Callable[[], bool]) -> Iterator[dict[int, Made]]:
        """Train to the end; what has become of candidates, job by job as they come, less those that a stop cut off."""


def can_fork(device: torch.device) -> bool:
    """Whether worker processes can be had: on Linux, on a CPU, where no accelerator is present.

    An accelerator's driver, and autograd's threads for it, do not survive a fork; other systems' libraries may not.
    """
    is_child = multiprocessing.current_process().daemon  # which may have no children
    return sys.platform == "linux" and device.type == "cpu" and not torch.accelerator.is_available() and not is_child


@contextmanager
def crew(jobs: Sequence[Job[Made]], workers: int, device: torch.device) -> Iterator[Crew[Made]]:
    """Trains jobs on a device, the first first, on so many worker processes; with one, in this process.

    Where worker processes cannot be had, this process trains all jobs, and a warning is logged. Worker processes are
    gone when the block is left, however it is left.
    """
    workers = min(workers, len(jobs))
    if workers > 1 and not can_fork(device):
        logger.warning("workers = %d: no worker processes here for device %s; training in one process", workers, device)
        workers = 1
    if workers < 2:
        yield _InProcess(jobs)
        return
    forked = _Forked(jobs, workers)
    try:
        yield forked
    finally:
        forked.close()


class _InProcess(Generic[Made]):
    def __init__(self, jobs: Sequence[Job[Made]]) -> None:
        self._jobs = jobs

    def train(self, epochs: int, stop: Callable[[], bool]) -> dict[int, float]:
        found: dict[int, float] = {}
        for job in self._jobs:
            if not stop():
                found |= job.train(epochs, stop)
        return found

    def drop(self, after: Mapping[int, int]) -> None:
        for job in self._jobs:
            job.drop(after)

    def finish(self, epochs: int, stop: Callable[[], bool]) -> Iterator[dict[int, Made]]:
        for job in self._jobs:
            if stop():
                return
            job.train(epochs, stop)
            if not stop():
                yield job.finish()


@dataclass(frozen=True, slots=True)
class _Order:
    """What a worker is told: which job, who has left it after how many epochs, and until when to train it."""

    job: int
    dropped: Mapping[int, int]
    epochs: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Bug:
    """An exception of a worker that is no candidate's failure."""

    text: str


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    owned: set[int] = field(default_factory=set)  # jobs
    busy_with: int | None = None


class _Forked(Generic[Made]):
    def __init__(self, jobs: Sequence[Job[Made]], workers: int) -> None:
        self._jobs = jobs
        self._count = min(workers, len(jobs))
        self._workers: list[_Worker] = []
        self._dropped: dict[int, int] = {}
        self._lost: dict[int, str] = {}  # jobs at which workers have died, and how

    def train(self, epochs: int, stop: Callable[[], bool]) -> dict[int, float]:
        found: dict[int, float] = {}
        for answer in self._ask_all(epochs, stop, is_last=False):
            found |= answer  # type: ignore[arg-type]
        return found

    def drop(self, after: Mapping[int, int]) -> None:
        self._dropped |= after

    def finish(self, epochs: int, stop: Callable[[], bool]) -> Iterator[dict[int, Made]]:
        yield from self._ask_all(epochs, stop, is_last=True)  # type: ignore[misc]
        for job, reason in self._lost.items():
            yield self._jobs[job].give_up(reason)

    def close(self) -> None:
        """End the workers that this crew has started."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers = []

    def _ask_all(self, epochs: int, stop: Callable[[], bool], *, is_last: bool) -> Iterator[dict[int, object]]:
        """The answers of all jobs, as they come."""
        waiting = deque(job for job in range(len(self._jobs)) if job not in self._lost)
        while not stop():
            self._hand_out(waiting, epochs, is_last)
            busy = {w.connection: w for w in self._workers if w.busy_with is not None}
            if not busy:
                return
            for ready in wait(list(busy), _ASK_STOP_S):
                worker = busy[ready]  # type: ignore[index]
                try:
                    answer = worker.connection.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                    continue
                worker.busy_with = None
                if isinstance(answer, _Bug):
                    raise RuntimeError(f"in a worker process:\n{answer.text}")
                yield answer

    def _hand_out(self, waiting: deque[int], epochs: int, is_last: bool) -> None:
        """Give every idle worker its next job: one that it has begun, else one that nobody has."""
        begun = {job for worker in self._workers for job in worker.owned}
        while len(self._workers) < self._count and any(job not in begun for job in waiting):
            self._workers.append(self._hire())
        for worker in self._workers:
            if worker.busy_with is not None:
                continue
            job = next((job for job in waiting if job in worker.owned or job not in begun), None)
            if job is None:
                continue
            waiting.remove(job)
            begun.add(job)
            worker.owned.add(job)
            worker.busy_with = job
            try:
                worker.connection.send(_Order(job, self._dropped, epochs, is_last))
            except OSError:  # it has died; the answer that does not come will tell
                continue

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        others = [worker.connection for worker in self._workers]
        process = context.Process(target=_serve, args=(self._jobs, there, [here, *others]), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads: a lock that another thread holds stays locked in the child.
            # Workers run torch on one thread, print nothing and take no lock of this process.
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
            process.start()
        there.close()
        return _Worker(process, here)

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: the job it was at is lost, those it had put aside may be begun anew by another."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        assert worker.busy_with is not None, "it was asked"
        self._lost[worker.busy_with] = _how_it_ended(worker.process.exitcode)


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its worker process ended with exit code {code}"
    hint = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
    return f"its worker process was killed by {signal.Signals(-code).name}{hint}"


def _serve(jobs: Sequence[Job[Made]], connection: Connection, others: Sequence[Connection]) -> None:
    """A worker's life: train what it is told, until the other end is closed."""
    for sent in (signal.SIGINT, signal.SIGTERM):  # which may reach the whole group: the parent decides
        signal.signal(sent, signal.SIG_IGN)
    gc.freeze()  # what the parent owns is not this process's to clean up
    for other in others:
        other.close()
    torch.set_num_threads(1)
    parent = os.getppid()
    while True:
        try:
            order: _Order = connection.recv()
        except EOFError:
            return
        try:
            # Copied by plain pickle: torch would have tensors stay in memory that is shared with this process.
            answer = pickle.dumps(_obey(jobs[order.job], order, lambda: os.getppid() != parent))
        except Exception:
            answer = pickle.dumps(_Bug(traceback.format_exc()))
        connection.send_bytes(answer)


def _obey(job: Job[Made], order: _Order, stop: Callable[[], bool]) -> dict[int, float] | dict[int, Made]:
    job.drop(order.dropped)
    losses = job.train(order.epochs, stop)
    return job.finish() if order.is_last else losses
