"""How a database is reached: SQLite by Python's own driver, any other by a URL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dovetail.study.statements import SQLITE, Statements

__all__ = ["Driver", "find_driver", "is_url", "shown", "sqlite_driver"]

_PATIENCE_S = 30.0
"""Seconds that SQLite waits for another writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """How a database is reached.

    Args:
        connect: opens a connection (PEP 249).
        errors: the module that has the driver's `Error` and `IntegrityError`.
        statements: what can be asked of it, in its own spelling.
        location: where it is, without any password.
        is_sqlite: whether it is a SQLite file.
    """

    connect: Callable[[], Any]
    errors: Any
    statements: Statements
    location: str
    is_sqlite: bool


def find_driver(storage: str | Path) -> Driver:
    """How a storage is reached: a SQLite file, or a SQLAlchemy URL.

    Raises:
        StudyError: The text looks like a URL and is none, or there is no driver for it.
    """
    if not is_url(storage):
        return sqlite_driver(storage)
    from dovetail.study.urls import url_driver  # SQLAlchemy takes a tenth of a second to import

    return url_driver(str(storage))


def sqlite_driver(path: str | Path) -> Driver:
    """How a SQLite file is reached; transactions are begun by `BEGIN`, and any thread may use a connection."""
    return Driver(
        connect=lambda: sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False),
        errors=sqlite3,
        statements=SQLITE,
        location=str(path),
        is_sqlite=True,
    )


def shown(storage: str | Path) -> str:
    """A storage without its password.

    Raises:
        StudyError: The text looks like a URL and is none.

    Example:
        >>> shown("postgresql+psycopg://me:secret@host/db")
        'postgresql+psycopg://me:***@host/db'
    """
    if not is_url(storage):
        return str(storage)
    from dovetail.study.urls import storage_url

    return storage_url(storage).render_as_string(hide_password=True)


def is_url(storage: str | Path) -> bool:
    """Whether a storage is a URL rather than a file."""
    return isinstance(storage, str) and "://" in storage
