"""Reading and writing a database: connections, transactions, and errors that name the storage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dovetail.errors import StudyError
from dovetail.study.driver import find_driver

__all__ = ["Database"]


class Database:
    """One storage. Each reader has a connection of its own, writers take turns on one that stays open.

    Args:
        storage: a SQLite file or a SQLAlchemy URL.

    Raises:
        StudyError: There is no driver for it.
    """

    def __init__(self, storage: str | Path) -> None:
        self._driver = find_driver(storage)
        self.statements = self._driver.statements
        self.location = self._driver.location
        self.is_sqlite = self._driver.is_sqlite
        self._writer: Any = None
        self._turn = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """A connection that only reads.

        Raises:
            StudyError: The storage cannot be read.
        """
        with self._naming():
            connection = self._driver.connect()
            try:
                yield connection.cursor()
            finally:
                connection.close()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """One transaction that writes: committed as a whole and on disk when this ends, or not at all.

        The one that makes a new SQLite file waits for no disk: a killed process does not lose it, and the next one,
        which holds the first trials, takes it along.

        Raises:
            StudyError: The storage cannot be written.
        """
        with self._turn, self._naming():
            connection = self._writer = self._writer or self._connect_writer()
            cursor = connection.cursor()
            try:
                if self.is_sqlite:
                    cursor.execute("BEGIN IMMEDIATE")  # takes its turn at once: what reads first could not wait
                yield cursor
                connection.commit()
                if self.is_sqlite:
                    cursor.execute("PRAGMA synchronous = FULL")
            except BaseException:
                self._writer = None
                connection.close()  # which rolls back
                raise

    def close(self) -> None:
        """Let go of the database."""
        with self._turn, self._naming():
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _connect_writer(self) -> Any:
        connection = self._driver.connect()
        if self.is_sqlite:
            cursor = connection.cursor()
            cursor.execute("PRAGMA page_count")
            is_new = cursor.fetchone() == (0,)
            if is_new:  # a journal on disk would save nothing
                cursor.execute("PRAGMA journal_mode = MEMORY")
            cursor.execute("PRAGMA journal_mode = WAL")  # readers never wait for the writer
            cursor.execute(f"PRAGMA synchronous = {'OFF' if is_new else 'FULL'}")
            cursor.execute("PRAGMA foreign_keys = ON")
        return connection

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn the driver's errors into one clear one that names the storage."""
        driver = self._driver.errors
        try:
            yield
        except driver.IntegrityError as error:
            raise StudyError(
                f"{self.location}: a trial of this number is there already: another search is writing this study. "
                "Wait for it to end, or give this one another --out."
            ) from error
        except driver.Error as error:
            cause = next(iter(str(error).splitlines()), type(error).__name__)
            raise StudyError(
                f"{self.location}: the study cannot be read or written: {cause}. {_advice(cause)}"
            ) from error


def _advice(cause: str) -> str:
    text = cause.lower()
    for sign, remedy in _REMEDIES:
        if sign in text:
            return remedy
    return "Run the same command again once that is mended: it goes on from the last stored trial."


_REMEDIES = (
    ("full", "Free some space and run the same command again: it goes on from the last stored trial."),
    ("disk i/o", "Free some space, as a full disk does this too, and run the same command again: it goes on."),
    ("readonly", "The folder must be writable; choose another with --out or --storage."),
    ("read-only", "The folder must be writable; choose another with --out or --storage."),
    ("unable to open", "The folder must exist and be writable; choose another with --out or --storage."),
    ("not a database", "The file is something else or damaged; choose another with --out or --storage."),
    ("malformed", "The file is damaged; choose another with --out or --storage."),
    ("locked", "Another program holds it; end that one first."),
)
"""What a driver's message contains, and what to do then."""
