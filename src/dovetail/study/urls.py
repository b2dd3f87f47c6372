"""Databases by URL, through SQLAlchemy: it reads URLs, knows drivers and spells statements."""

from __future__ import annotations

import functools
from pathlib import Path

import sqlalchemy as sa

from dovetail.errors import StudyError
from dovetail.study.driver import Driver, is_url, sqlite_driver
from dovetail.study.tables import statements

__all__ = ["storage_url", "url_driver"]


def storage_url(storage: str | Path) -> sa.URL:
    """The SQLAlchemy URL of a storage: itself, or SQLite's for a file.

    Raises:
        StudyError: The text looks like a URL and is none.

    Example:
        >>> str(storage_url("runs/a/study.db"))
        'sqlite:///runs/a/study.db'
    """
    if not is_url(storage):
        return sa.URL.create("sqlite", database=str(storage))
    try:
        return sa.make_url(str(storage))
    except sa.exc.ArgumentError as error:
        raise StudyError(
            f"storage {storage!r}: must be a file or a URL such as postgresql+psycopg://user@host/db."
        ) from error


def url_driver(text: str) -> Driver:
    """How the database of a URL is reached.

    Raises:
        StudyError: The text is no URL, or there is no driver for it.
    """
    url = storage_url(text)
    if url.drivername in ("sqlite", "sqlite+pysqlite") and url.database and not url.query:
        return sqlite_driver(url.database)
    shown = url.render_as_string(hide_password=True)
    try:
        dialect = _dialect(url.drivername)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise StudyError(
            f"storage {shown!r}: needs a driver that is not installed ({error}). "
            "For PostgreSQL: pip install 'dovetail[postgres]' and a URL that begins with postgresql+psycopg://."
        ) from error
    if dialect.name == "sqlite":
        raise StudyError(f"storage {shown!r}: a SQLite file must be named without options; give its path.")
    args, options = dialect.create_connect_args(url)
    return Driver(
        connect=lambda: dialect.connect(*args, **options),
        errors=dialect.loaded_dbapi,
        statements=statements(dialect),
        location=shown,
        is_sqlite=False,
    )


@functools.cache
def _dialect(drivername: str) -> sa.Dialect:
    kind = sa.URL.create(drivername).get_dialect()
    return kind(dbapi=kind.import_dbapi())  # type: ignore[call-arg]  # as `sa.create_engine` makes it
