"""Writing trials off the critical path: a thread that stores what has gathered, a batch at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from dovetail.record import Trial

__all__ = ["BatchWriter"]


class BatchWriter:
    """Takes trials one by one and appends them in batches from a thread of its own.

    A batch is written when `interval_s` has passed since the last one or `size` trials have gathered. `put` never
    waits for the disk. An error
    of `append` stops the writing and is raised by the next `put` and by `close`, after a last attempt to write what
    is left.

    Args:
        append: writes one durable batch, all of it or none.
        interval_s: seconds between batches.
        size: trials that make a batch at once.
    """

    def __init__(self, append: Callable[[Sequence[Trial]], None], *, interval_s: float = 0.5, size: int = 1000) -> None:
        self._append = append
        self._interval_s = interval_s
        self._size = size
        self._pending: list[Trial] = []
        self._error: Exception | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="dovetail-writer", daemon=True)
        self._thread.start()

    def put(self, trial: Trial) -> None:
        """Hand over one trial.

        Raises:
            StudyError: An earlier batch could not be written; the trial is kept for the last attempt in `close`.
        """
        with self._changed:
            self._pending.append(trial)
            if len(self._pending) == self._size:
                self._changed.notify()
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Write what is left and end the thread.

        Raises:
            StudyError: Some trials could not be written.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._pending:
            batch = list(self._pending)
            self._append(batch)
            self._pending.clear()
        elif self._error is not None:
            raise self._error

    @property
    def num_pending(self) -> int:
        """Trials that are not on disk yet."""
        return len(self._pending)

    def _write(self) -> None:
        due = time.monotonic() + self._interval_s
        while self._error is None:
            with self._changed:
                while not self._closing and len(self._pending) < self._size and time.monotonic() < due:
                    self._changed.wait(max(due - time.monotonic(), 0.001))
                batch = list(self._pending)
                closing = self._closing
            if batch:
                self._store(batch)
            if closing:
                return
            due = time.monotonic() + self._interval_s

    def _store(self, batch: list[Trial]) -> None:
        try:
            self._append(batch)
        except Exception as error:  # it belongs to the thread that puts and closes, which raises it
            self._error = error
            return
        with self._changed:
            del self._pending[: len(batch)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
