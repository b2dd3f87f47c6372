"""The benchmarks by name."""

from __future__ import annotations

import importlib

from benchmarks.row import Row

__all__ = ["MODULES", "measure"]

MODULES = {
    "formats": "benchmarks.formats",
    "architectures": "benchmarks.architectures",
    "pricing": "benchmarks.pricing",
    "space-csv": "benchmarks.space_csv",
    "evaluation": "benchmarks.evaluation",
    "training": "benchmarks.training",
    "strategies": "benchmarks.replays",
}
"""Name -> the module whose `rows(quick=...)` gives the lines."""


def measure(name: str, quick: bool) -> tuple[list[Row], str | None]:
    """The lines of one benchmark, or none and what was missing."""
    try:
        return list(importlib.import_module(MODULES[name]).rows(quick=quick)), None
    except (ModuleNotFoundError, FileNotFoundError) as error:
        return [], str(error)
