"""The two tables: one row per study, one row per trial."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

__all__ = ["LAYOUT", "METADATA", "STUDIES", "TRIALS", "creation", "insertion"]

LAYOUT = 1
"""Version of this layout; a study of another one is refused rather than misread."""

METADATA = sa.MetaData()

STUDIES = sa.Table(
    "dovetail_study",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("layout", sa.Integer, nullable=False),
    sa.Column("header", sa.Text, nullable=False),
)

TRIALS = sa.Table(
    "dovetail_trial",
    METADATA,
    sa.Column("study_id", sa.ForeignKey("dovetail_study.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("row", sa.Text, nullable=False),  # JSON: the chosen index per decision
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("costs", sa.Text, nullable=False),  # JSON: {name: figure}
    sa.Column("measurements", sa.Text, nullable=False),  # JSON: {name: figure}
    sa.Column(
        "metrics", sa.Text
    ),  # JSON: [[name, value, samples, low, high]], null for the infinite end of an interval
    sa.Column("correct", sa.LargeBinary),  # one bit per sample, as numpy.packbits gives
    sa.Column("details", sa.Text, nullable=False),  # JSON: {name: figure or text}
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("duration_s", sa.Double, nullable=False),
    sa.Column("finished_at", sa.String(40), nullable=False),
)

_CREATION: dict[str, tuple[str, ...]] = {}  # by dialect


def creation(dialect: sa.Dialect) -> tuple[str, ...]:
    """Statements that make the tables where there are none; the same for every database of a dialect."""
    if dialect.name not in _CREATION:
        _CREATION[dialect.name] = tuple(
            str(sa.schema.CreateTable(table, if_not_exists=True).compile(dialect=dialect))
            for table in METADATA.sorted_tables
        )
    return _CREATION[dialect.name]


def insertion(table: sa.Table, dialect: sa.Dialect, *, without: Collection[str] = ()) -> sa.TextClause:
    """The statement that inserts rows, their values by column: as text, which takes a tenth of `sa.insert`'s time."""
    names = [column.name for column in table.columns if column.name not in without]
    quoted = ", ".join(map(dialect.identifier_preparer.quote, names))
    return sa.text(f"INSERT INTO {table.name} ({quoted}) VALUES ({', '.join(f':{name}' for name in names)})")
