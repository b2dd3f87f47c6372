"""A database as its driver gives it: connections, transactions that write, and errors that name the storage.

SQLAlchemy reads URLs, knows drivers and spells the statements (`tables.py`), for each database in its own way. There
are so few of them that they then go straight to the driver: a study is made and filled in a third of the time.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, Dialect

from dovetail.errors import StudyError
from dovetail.study.tables import Statements, statements

__all__ = ["Database", "storage_url"]

_PATIENCE_S = 30.0
"""Seconds that SQLite waits for another writer."""


def storage_url(storage: str | Path) -> sa.URL:
    """The SQLAlchemy URL of a storage: itself, or SQLite's for a file.

    Raises:
        StudyError: The text is neither a URL nor a path.

    Example:
        >>> str(storage_url("runs/a/study.db"))
        'sqlite:///runs/a/study.db'
    """
    if isinstance(storage, str) and "://" in storage:
        try:
            return sa.make_url(storage)
        except sa.exc.ArgumentError as error:
            raise StudyError(
                f"storage {storage!r}: must be a file or a URL such as postgresql+psycopg://user@host/db."
            ) from error
    return sa.URL.create("sqlite", database=str(storage))


class Database:
    """One storage. Each reader has a connection of its own, writers take turns on one that stays open.

    Args:
        storage: a SQLite file or a SQLAlchemy URL.

    Raises:
        StudyError: There is no driver for it.
    """

    def __init__(self, storage: str | Path) -> None:
        self.url = storage_url(storage)
        try:
            self._dialect = _dialect(self.url.drivername)
        except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
            shown = self.url.render_as_string(hide_password=True)
            raise StudyError(
                f"storage {shown!r}: needs a driver that is not installed ({error}). "
                "For PostgreSQL: pip install 'dovetail[postgres]' and a URL that begins with postgresql+psycopg://."
            ) from error
        self._writer: DBAPIConnection | None = None
        self._turn = threading.Lock()

    @property
    def statements(self) -> Statements:
        """What can be asked of it, in its own spelling."""
        return statements(self._dialect)

    @property
    def is_sqlite(self) -> bool:
        return self._dialect.name == "sqlite"

    @property
    def location(self) -> str:
        """Where it is, without any password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[DBAPICursor]:
        """A connection that only reads.

        Raises:
            StudyError: The storage cannot be read.
        """
        with self._naming():
            connection = self._connect()
            try:
                yield connection.cursor()
            finally:
                connection.close()

    @contextmanager
    def writing(self) -> Iterator[DBAPICursor]:
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

    def _connect(self) -> DBAPIConnection:
        args, options = self._dialect.create_connect_args(self.url)
        if self.is_sqlite:  # transactions are begun by `writing`; the thread that writes is not the one that connects
            options = {"timeout": _PATIENCE_S, **options, "isolation_level": None, "check_same_thread": False}
        return self._dialect.connect(*args, **options)

    def _connect_writer(self) -> DBAPIConnection:
        connection = self._connect()
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
        driver = self._dialect.loaded_dbapi
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


@functools.cache
def _dialect(drivername: str) -> Dialect:
    kind = sa.URL.create(drivername).get_dialect()
    return kind(dbapi=kind.import_dbapi())  # type: ignore[call-arg]  # as `sa.create_engine` makes it


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
