"""The two tables: one row per study, one row per trial; and every statement that is asked of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ClauseElement

__all__ = ["LAYOUT", "METADATA", "PAGE", "STUDIES", "TRIALS", "Statement", "Statements", "statements"]

LAYOUT = 1
"""Version of this layout; a study of another one is refused rather than misread."""

PAGE = 1000
"""Trials read at a time."""

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


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as a driver takes it.

    Args:
        text: in the database's SQL.
        names: of its parameters, in order.
        by_place: whether the driver takes them so; otherwise it takes them by name.
    """

    text: str
    names: tuple[str, ...]
    by_place: bool

    def bind(self, *values: Any) -> Any:
        """What the driver takes for these values, given in the order of `names`."""
        return values if self.by_place else dict(zip(self.names, values, strict=True))


@dataclass(frozen=True, slots=True)
class Statements:
    """All statements, for one kind of database.

    Args:
        create_tables: where there are none.
        all_studies: (id, name, layout, header) of each.
        study_named: the same of one, by its name.
        add_study: name, layout, header.
        add_trial: the columns of `TRIALS` in their order.
        trials_after: the next page of a study's trials, by its id and the number before: columns of `TRIALS` in their
            order, by number.
        count_trials: of a study, by its id.
    """

    create_tables: tuple[str, ...]
    all_studies: Statement
    study_named: Statement
    add_study: Statement
    add_trial: Statement
    trials_after: Statement
    count_trials: Statement


@functools.cache
def statements(dialect: sa.Dialect) -> Statements:
    """The statements as a dialect spells them and its driver takes their parameters."""
    study, number = sa.bindparam("study", type_=sa.Integer), sa.bindparam("after", type_=sa.Integer)
    of_study = TRIALS.c.study_id == study
    page = sa.select(TRIALS).where(of_study, TRIALS.c.number > number).order_by(TRIALS.c.number)
    page = page.limit(sa.literal_column(str(PAGE))).offset(sa.literal_column("0"))
    return Statements(
        create_tables=tuple(
            str(sa.schema.CreateTable(table, if_not_exists=True).compile(dialect=dialect))
            for table in METADATA.sorted_tables
        ),
        all_studies=_compile(dialect, sa.select(STUDIES).order_by(STUDIES.c.id), []),
        study_named=_compile(dialect, sa.select(STUDIES).where(STUDIES.c.name == sa.bindparam("name")), ["name"]),
        add_study=_compile(dialect, sa.insert(STUDIES).inline(), ["name", "layout", "header"]),
        add_trial=_compile(dialect, sa.insert(TRIALS).inline(), [column.name for column in TRIALS.columns]),
        trials_after=_compile(dialect, page, ["study", "after"]),
        count_trials=_compile(dialect, sa.select(sa.func.count()).select_from(TRIALS).where(of_study), ["study"]),
    )


def _compile(dialect: sa.Dialect, statement: ClauseElement, names: Sequence[str]) -> Statement:
    compiled: Any = statement.compile(dialect=dialect, column_keys=names if isinstance(statement, sa.Insert) else None)
    if compiled.positional:
        assert list(compiled.positiontup) == list(names), "parameters stand in the text as in `names`"
    return Statement(str(compiled), tuple(names), bool(compiled.positional))
