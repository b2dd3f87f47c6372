"""The study: all trials of one search, in our own tables, written in batches.

`Study` reads and writes them, `BatchWriter` takes the writing off the critical path, `export_to_optuna` hands them
to Optuna's tools.
"""

from __future__ import annotations

from dovetail.study.driver import shown
from dovetail.study.header import DecisionRecord, StudyHeader
from dovetail.study.store import Study
from dovetail.study.to_optuna import export_to_optuna
from dovetail.study.writer import BatchWriter

__all__ = ["BatchWriter", "DecisionRecord", "Study", "StudyHeader", "export_to_optuna", "shown"]
