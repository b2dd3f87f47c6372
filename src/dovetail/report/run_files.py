"""The files of a run's folder, and how they are written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dovetail.errors import StudyError

__all__ = ["RunFiles", "write_atomically"]


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where things lie in a run's folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved configuration with versions and seed."""
        return self.folder / "config.toml"

    @property
    def pointer(self) -> Path:
        """Which study this run is, and where it is kept, JSON."""
        return self.folder / "run.json"

    @property
    def study(self) -> Path:
        """Every trial, SQLite."""
        return self.folder / "study.db"

    @property
    def trials(self) -> Path:
        """Every trial, CSV."""
        return self.folder / "trials.csv"

    @property
    def front(self) -> Path:
        """One plan per trial on the Pareto front, each a TOML that `dovetail transform` takes."""
        return self.folder / "pareto"

    @property
    def plot(self) -> Path:
        """Trials and front as a picture."""
        return self.folder / "pareto.png"

    @property
    def best_plan(self) -> Path:
        """The best plan, TOML."""
        return self.folder / "best.toml"

    @property
    def best_model(self) -> Path:
        """The best model's weights."""
        return self.folder / "best.safetensors"


@contextmanager
def write_atomically(path: Path) -> Iterator[TextIO]:
    """A text file to write into, which takes its name only when all of it is written.

    Raises:
        StudyError: The file cannot be written; what stood there before stays.
    """
    partial: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        os.chmod(partial, 0o644)
        os.replace(partial, path)
        partial = None
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be written: {error.strerror or error}. Free some space or make the folder writable "
            "and run the same command again; trials that are stored stay."
        ) from error
    finally:
        if partial is not None and os.path.exists(partial):
            os.unlink(partial)
