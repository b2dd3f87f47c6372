"""Reports: records -> tables, CSV files, plots."""

from __future__ import annotations

from dovetail.report.csv_file import write_csv, write_trials_csv
from dovetail.report.figures import format_duration, format_figure, format_measured
from dovetail.report.plots import plot_front
from dovetail.report.results import (
    best_table,
    describe_best,
    describe_none,
    describe_ranking,
    front_table,
    results_dict,
)
from dovetail.report.run_files import RunFiles, write_atomically
from dovetail.report.run_folder import write_results
from dovetail.report.tables import Table, print_table

__all__ = [
    "RunFiles",
    "Table",
    "best_table",
    "describe_best",
    "describe_none",
    "describe_ranking",
    "format_duration",
    "format_figure",
    "format_measured",
    "front_table",
    "plot_front",
    "print_table",
    "results_dict",
    "write_atomically",
    "write_csv",
    "write_results",
    "write_trials_csv",
]
