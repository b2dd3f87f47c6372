"""A study in a database: SQLite by default, any SQLAlchemy URL otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dovetail.errors import StudyError, unknown_name
from dovetail.record import Trial
from dovetail.study.database import Database
from dovetail.study.header import StudyHeader
from dovetail.study.rows import decode_trial, encode_trial
from dovetail.study.statements import LAYOUT, PAGE, STUDIES

__all__ = ["Study"]


class Study:
    """All trials of one search. Open one with `Study.create` or `Study.open`.

    Each `append` is one durable transaction: after it returns, its trials survive the process and the machine.

    Example:
        >>> with Study.open("runs/a/study.db") as study:  # doctest: +SKIP
        ...     print(study.num_trials)
    """

    def __init__(self, database: Database, study_id: int, name: str, header: StudyHeader) -> None:
        self._database = database
        self._id = study_id
        self.name = name
        self.header = header

    @classmethod
    def create(cls, storage: str | Path, name: str, header: StudyHeader) -> Self:
        """The study of this name, made where there is none yet.

        Raises:
            StudyError: The storage cannot be written, or holds a study of this name with another identity.
        """
        database = Database(storage)
        ask = database.statements
        with database.writing() as cursor:
            for statement in ask.create_tables:
                cursor.execute(statement)
            cursor.execute(ask.study_named.text, ask.study_named.bind(name))
            found = cursor.fetchone()
            if found is None:
                cursor.execute(ask.add_study.text, ask.add_study.bind(name, LAYOUT, header.to_json()))
                cursor.execute(ask.study_named.text, ask.study_named.bind(name))
                found = cursor.fetchone()
        study = cls._of_row(database, found)
        if differs := header.difference(study.header):
            key, wanted, stored = (text if text is not None else "absent" for text in differs)
            study.close()
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
        database = Database(storage)
        if database.is_sqlite and not Path(database.location).is_file():
            raise StudyError(f"{database.location}: no such study.")
        try:
            with database.reading() as cursor:
                cursor.execute(database.statements.all_studies.text)
                rows = cursor.fetchall()
        except StudyError as error:
            if STUDIES in str(error):  # every database names the table that it lacks
                raise StudyError(f"{database.location}: holds no study.") from error
            raise
        named = [row for row in rows if name in (None, row[1])]
        if len(named) == 1:
            return cls._of_row(database, named[0])
        known = [str(row[1]) for row in rows]
        if name is None:
            raise StudyError(f"{database.location}: holds {len(rows)} studies ({', '.join(known)}): say which.")
        raise StudyError(f"{database.location}: {unknown_name('study', name, known)}")

    @classmethod
    def _of_row(cls, database: Database, row: Any) -> Self:
        study_id, name, layout, header = row
        if layout != LAYOUT:
            database.close()
            raise StudyError(f"study {name!r}: has table layout {layout}, this version of dovetail reads {LAYOUT}.")
        return cls(database, study_id, name, StudyHeader.from_json(header))

    def append(self, trials: Sequence[Trial]) -> None:
        """Write trials as one durable batch: all of them or none.

        Raises:
            StudyError: The storage cannot be written (full, unreachable, read-only), or another search has taken a
            trial's number.
        """
        if not trials:
            return
        add = self._database.statements.add_trial
        rows = [add.bind(*encode_trial(self._id, trial)) for trial in trials]
        with self._database.writing() as cursor:
            cursor.executemany(add.text, rows)

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return list(self.iterate())

    def iterate(self) -> Iterator[Trial]:
        """All trials, by number, a page at a time."""
        ask = self._database.statements.trials_after
        with self._database.reading() as cursor:
            after, is_last = -1, False
            while not is_last:
                cursor.execute(ask.text, ask.bind(self._id, after))
                page = [decode_trial(self.header, row) for row in cursor.fetchall()]
                yield from page
                is_last = len(page) < PAGE
                after = page[-1].number if page else after

    @property
    def num_trials(self) -> int:
        """How many trials are stored."""
        ask = self._database.statements.count_trials
        with self._database.reading() as cursor:
            cursor.execute(ask.text, ask.bind(self._id))
            return int(cursor.fetchall()[0][0])

    @property
    def location(self) -> str:
        """Where the study is stored, without any password."""
        return self._database.location

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
