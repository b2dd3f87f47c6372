"""A study in a database: SQLite by default, any SQLAlchemy URL otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from dovetail.errors import StudyError, unknown_name
from dovetail.record import Trial
from dovetail.study.header import StudyHeader
from dovetail.study.rows import decode_trial, encode_trial
from dovetail.study.tables import LAYOUT, STUDIES, TRIALS, creation, insertion

__all__ = ["Study", "storage_url"]


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


class Study:
    """All trials of one search. Open one with `Study.create` or `Study.open`.

    Each `append` is one durable transaction: after it returns, its trials survive the process and the machine.

    Example:
        >>> with Study.open("runs/a/study.db") as study:  # doctest: +SKIP
        ...     print(study.num_trials)
    """

    def __init__(self, engine: sa.Engine, study_id: int, name: str, header: StudyHeader) -> None:
        self._engine = engine
        self._id = study_id
        self.name = name
        self.header = header

    @classmethod
    def create(cls, storage: str | Path, name: str, header: StudyHeader) -> Self:
        """The study of this name, made where there is none yet.

        Raises:
            StudyError: The storage cannot be written, or holds a study of this name with another identity.
        """
        engine = _connect(storage)
        named = sa.text(f"SELECT id, name, layout, header FROM {STUDIES.name} WHERE name = :name")
        with _naming(engine), _writing(engine) as connection:
            for statement in creation(engine.dialect):
                connection.exec_driver_sql(statement)
            found = connection.execute(named, {"name": name}).one_or_none()
            if found is None:
                values = {"name": name, "layout": LAYOUT, "header": header.to_json()}
                connection.execute(insertion(STUDIES, engine.dialect, without=("id",)), values)
                found = connection.execute(named, {"name": name}).one()
        study = cls._of_row(engine, found)
        if differs := header.difference(study.header):
            key, wanted, stored = (text if text is not None else "absent" for text in differs)
            engine.dispose()
            raise StudyError(
                f"study {name!r}: {key} is {stored} there and {wanted} here. "
                "Continue it with the same configuration, or give the new search another --out."
            )
        return study

    @classmethod
    def open(cls, storage: str | Path, name: str | None = None) -> Self:
        """A study that exists.

        Args:
            storage: a SQLite file or a SQLAlchemy URL.
            name: which study; may be left out where the storage holds one.

        Raises:
            StudyError: There is no such storage or study, or it cannot be read.
        """
        url = storage_url(storage)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
            raise StudyError(f"{url.database}: no such study.")
        engine = _connect(storage)
        with _naming(engine):
            if not sa.inspect(engine).has_table(STUDIES.name):
                engine.dispose()
                raise StudyError(f"{_shown(engine)}: holds no study.")
            with engine.connect() as connection:
                rows = connection.execute(sa.select(STUDIES).order_by(STUDIES.c.id)).all()
        named = [row for row in rows if name in (None, row.name)]
        if len(named) == 1:
            return cls._of_row(engine, named[0])
        engine.dispose()
        known = [str(row.name) for row in rows]
        if name is None:
            raise StudyError(f"{_shown(engine)}: holds {len(rows)} studies ({', '.join(known)}): say which.")
        raise StudyError(f"{_shown(engine)}: {unknown_name('study', name, known)}")

    @classmethod
    def _of_row(cls, engine: sa.Engine, row: Any) -> Self:
        if row.layout != LAYOUT:
            engine.dispose()
            raise StudyError(
                f"study {row.name!r}: has table layout {row.layout}, this version of dovetail reads {LAYOUT}."
            )
        return cls(engine, row.id, row.name, StudyHeader.from_json(row.header))

    def append(self, trials: Sequence[Trial]) -> None:
        """Write trials as one durable batch: all of them or none.

        Raises:
            StudyError: The storage cannot be written (full, unreachable, read-only), or another search has taken a
            trial's number.
        """
        if not trials:
            return
        values = [encode_trial(self._id, trial) for trial in trials]
        with _naming(self._engine), _writing(self._engine) as connection:
            connection.execute(insertion(TRIALS, self._engine.dialect), values)

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return list(self.iterate())

    def iterate(self) -> Iterator[Trial]:
        """All trials, by number, a part at a time."""
        query = sa.select(TRIALS).where(TRIALS.c.study_id == self._id).order_by(TRIALS.c.number)
        with _naming(self._engine), self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield decode_trial(self.header, row)

    @property
    def num_trials(self) -> int:
        """How many trials are stored."""
        query = sa.select(sa.func.count()).select_from(TRIALS).where(TRIALS.c.study_id == self._id)
        with _naming(self._engine), self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    @property
    def location(self) -> str:
        """Where the study is stored, without any password."""
        return _shown(self._engine)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connect(storage: str | Path) -> sa.Engine:
    url = storage_url(storage)
    try:
        engine = sa.create_engine(url)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise StudyError(
            f"storage {url.render_as_string(hide_password=True)!r}: needs a driver that is not installed ({error}). "
            "For PostgreSQL: pip install 'dovetail[postgres]' and a URL that begins with postgresql+psycopg://."
        ) from error
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Readers never wait for the writer, a batch is on disk when its commit returns, and a busy file is waited for."""
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, so that tables are made in one too
    cursor = connection.cursor()
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """A transaction that will write takes its turn at once: one that read first could not wait for another writer."""
    writes = connection.get_execution_options().get("dovetail_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes: committed as a whole, or not at all."""
    with engine.connect() as connection:
        connection = connection.execution_options(dovetail_writes=True)
        with connection.begin():
            yield connection


def _shown(engine: sa.Engine) -> str:
    url = engine.url
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


@contextmanager
def _naming(engine: sa.Engine) -> Iterator[None]:
    """Turn the database's errors into one clear one that names the storage."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise StudyError(
            f"{_shown(engine)}: a trial of this number is there already: another search is writing this study. "
            f"Wait for it to end, or give "
            "this one another --out."
        ) from error
    except sa.exc.SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StudyError(f"{_shown(engine)}: the study cannot be read or written: {cause}. {_advice(cause)}") from error


def _advice(cause: str) -> str:
    text = cause.lower()
    remedies: Iterable[tuple[str, str]] = (
        ("full", "Free some space and run the same command again: it goes on from the last stored trial."),
        ("disk i/o", "Free some space, as a full disk does this too, and run the same command again: it goes on."),
        ("readonly", "The folder must be writable; choose another with --out or --storage."),
        ("read-only", "The folder must be writable; choose another with --out or --storage."),
        ("unable to open", "The folder must exist and be writable; choose another with --out or --storage."),
        ("not a database", "The file is something else or damaged; choose another with --out or --storage."),
        ("malformed", "The file is damaged; choose another with --out or --storage."),
        ("locked", "Another program holds it; end that one first."),
    )
    for sign, remedy in remedies:
        if sign in text:
            return remedy
    return "Run the same command again once that is mended: it goes on from the last stored trial."
