"""The two tables: one row per study, one row per trial."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["LAYOUT", "METADATA", "STUDIES", "TRIALS"]

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
