from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from dovetail.errors import StudyError
from dovetail.record import Trial
from dovetail.study import BatchWriter


def test_everything_put_is_written_once_and_in_order(trials: list[Trial]) -> None:
    written: list[Trial] = []
    with BatchWriter(written.extend, interval_s=0.01, size=2) as writer:
        for trial in trials:
            writer.put(trial)
            time.sleep(0.004)
    assert written == trials
    assert writer.num_pending == 0


def test_trials_gather_into_one_batch(trials: list[Trial]) -> None:
    batches: list[list[Trial]] = []
    with BatchWriter(lambda batch: batches.append(list(batch)), interval_s=60.0) as writer:
        for trial in trials:
            writer.put(trial)
    assert batches == [trials]


def test_a_batch_is_written_when_its_time_has_come_without_another_put(trials: list[Trial]) -> None:
    written = threading.Event()
    with BatchWriter(lambda batch: written.set(), interval_s=0.01) as writer:
        writer.put(trials[0])
        assert written.wait(5)


def test_an_error_reaches_the_next_put_and_what_could_not_be_written_is_tried_again_at_the_end(
    trials: list[Trial],
) -> None:
    written: list[Trial] = []
    full = threading.Event()
    full.set()
    failed = threading.Event()

    def append(batch: Sequence[Trial]) -> None:
        if full.is_set():
            failed.set()
            raise StudyError("the disk is full")
        written.extend(batch)

    writer = BatchWriter(append, interval_s=0.01)
    writer.put(trials[0])
    assert failed.wait(5)
    time.sleep(0.05)
    with pytest.raises(StudyError, match="the disk is full"):
        writer.put(trials[1])
    full.clear()
    writer.close()
    assert written == trials[:2]


def test_close_raises_when_the_last_batch_cannot_be_written(trials: list[Trial]) -> None:
    def append(batch: Sequence[Trial]) -> None:
        raise StudyError("the disk is full")

    writer = BatchWriter(append, interval_s=60.0)
    writer.put(trials[0])
    with pytest.raises(StudyError, match="the disk is full"):
        writer.close()
    assert writer.num_pending == 1
