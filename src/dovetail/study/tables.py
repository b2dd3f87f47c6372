"""The tables as SQLAlchemy knows them, and the statements as it spells them for any database but SQLite."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ClauseElement

from dovetail.study.statements import PAGE, STUDIES, TRIALS, Statement, Statements

__all__ = ["METADATA", "statements"]

METADATA = sa.MetaData()

_STUDIES = sa.Table(
    STUDIES,
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("layout", sa.Integer, nullable=False),
    sa.Column("header", sa.Text, nullable=False),
)

_TRIALS = sa.Table(
    TRIALS,
    METADATA,
    sa.Column("study_id", sa.ForeignKey(_STUDIES.c.id), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("row", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("costs", sa.Text, nullable=False),
    sa.Column("measurements", sa.Text, nullable=False),
    sa.Column("metrics", sa.Text),
    sa.Column("correct", sa.LargeBinary),
    sa.Column("sums", sa.LargeBinary),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("duration_s", sa.Double, nullable=False),
    sa.Column("finished_at", sa.String(40), nullable=False),
)


@functools.cache
def statements(dialect: sa.Dialect) -> Statements:
    """The statements as a dialect spells them and its driver takes their parameters."""
    study, number = sa.bindparam("study", type_=sa.Integer), sa.bindparam("after", type_=sa.Integer)
    of_study = _TRIALS.c.study_id == study
    page = sa.select(_TRIALS).where(of_study, _TRIALS.c.number > number).order_by(_TRIALS.c.number)
    page = page.limit(sa.literal_column(str(PAGE))).offset(sa.literal_column("0"))
    return Statements(
        create_tables=tuple(
            str(sa.schema.CreateTable(table, if_not_exists=True).compile(dialect=dialect))
            for table in METADATA.sorted_tables
        ),
        all_studies=_compile(dialect, sa.select(_STUDIES).order_by(_STUDIES.c.id), []),
        study_named=_compile(dialect, sa.select(_STUDIES).where(_STUDIES.c.name == sa.bindparam("name")), ["name"]),
        add_study=_compile(dialect, sa.insert(_STUDIES).inline(), ["name", "layout", "header"]),
        add_trial=_compile(dialect, sa.insert(_TRIALS).inline(), [column.name for column in _TRIALS.columns]),
        trials_after=_compile(dialect, page, ["study", "after"]),
        count_trials=_compile(dialect, sa.select(sa.func.count()).select_from(_TRIALS).where(of_study), ["study"]),
    )


def _compile(dialect: sa.Dialect, statement: ClauseElement, names: Sequence[str]) -> Statement:
    compiled: Any = statement.compile(dialect=dialect, column_keys=names if isinstance(statement, sa.Insert) else None)
    if compiled.positional:
        assert list(compiled.positiontup) == list(names), "parameters stand in the text as in `names`"
    return Statement(str(compiled), tuple(names), bool(compiled.positional))
