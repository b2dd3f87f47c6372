"""The two tables, one row per study and one row per trial, and everything that is ever asked of them.

As SQLite spells it; `tables.py` says the same to any other database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LAYOUT", "PAGE", "SQLITE", "STUDIES", "TRIALS", "Statement", "Statements"]

LAYOUT = 2
"""Version of this layout; a study of another one is refused rather than misread."""

PAGE = 1000
"""Trials read at a time."""

STUDIES, TRIALS = "dovetail_study", "dovetail_trial"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as a driver takes it.

    Args:
        text: in the database's SQL.
        names: of its parameters, in order.
        by_place: whether the driver takes them so; otherwise it takes them by name.
    """

    text: str
    names: tuple[str, ...] = ()
    by_place: bool = True

    def bind(self, *values: Any) -> Any:
        """What the driver takes for these values, given in the order of `names`."""
        return values if self.by_place else dict(zip(self.names, values, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """All statements, for one kind of database.

    Args:
        create_tables: where there are none.
        all_studies: (id, name, layout, header) of each.
        study_named: the same of one, by its name.
        add_study: name, layout, header.
        add_trial: all columns, in the order of the table.
        trials_after: the next page of a study's trials, by its id and the number before: all columns, by number.
        count_trials: of a study, by its id.
    """

    create_tables: tuple[str, ...]
    all_studies: Statement
    study_named: Statement
    add_study: Statement
    add_trial: Statement
    trials_after: Statement
    count_trials: Statement


SQLITE = Statements(
    create_tables=(
        f"""CREATE TABLE IF NOT EXISTS {STUDIES} (
            id INTEGER NOT NULL PRIMARY KEY,
            name VARCHAR(200) NOT NULL UNIQUE,
            layout INTEGER NOT NULL,
            header TEXT NOT NULL
        )""",
        f"""CREATE TABLE IF NOT EXISTS {TRIALS} (
            study_id INTEGER NOT NULL REFERENCES {STUDIES} (id),
            number INTEGER NOT NULL,
            "row" TEXT NOT NULL,           -- JSON: the chosen index per decision
            state VARCHAR(16) NOT NULL,
            reason TEXT,
            costs TEXT NOT NULL,           -- JSON: (name: figure)
            measurements TEXT NOT NULL,    -- JSON: (name: figure)
            metrics TEXT,                  -- JSON: [[name, value, samples, low, high]], null for an infinite end
            correct BLOB,                  -- one bit per sample, as numpy.packbits gives
            sums BLOB,                     -- MessagePack: (name: sums over groups of samples, float32)
            details TEXT NOT NULL,         -- JSON: (name: figure or text)
            seed BIGINT NOT NULL,
            duration_s DOUBLE NOT NULL,
            finished_at VARCHAR(40) NOT NULL,
            PRIMARY KEY (study_id, number)
        )""",
    ),
    all_studies=Statement(f"SELECT id, name, layout, header FROM {STUDIES} ORDER BY id"),
    study_named=Statement(f"SELECT id, name, layout, header FROM {STUDIES} WHERE name = ?"),
    add_study=Statement(f"INSERT INTO {STUDIES} (name, layout, header) VALUES (?, ?, ?)"),
    add_trial=Statement(f"INSERT INTO {TRIALS} VALUES ({', '.join('?' * 14)})"),
    trials_after=Statement(f"SELECT * FROM {TRIALS} WHERE study_id = ? AND number > ? ORDER BY number LIMIT {PAGE}"),
    count_trials=Statement(f"SELECT count(*) FROM {TRIALS} WHERE study_id = ?"),
)
