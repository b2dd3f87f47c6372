"""A plan in a TOML file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dovetail.errors import FormatError, PlanError
from dovetail.plan import Plan

__all__ = ["errors_name_file", "read_plan"]


def read_plan(path: Path) -> Plan:
    """The plan in a file, as `pareto/plan-NNN.toml` of a run.

    Raises:
        PlanError: The file cannot be read, or holds no plan.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise PlanError(f"{path}: must be a readable TOML file with a plan: {reason}.") from error
    with errors_name_file(path):
        return Plan.from_toml(text)


@contextmanager
def errors_name_file(path: Path | None) -> Iterator[None]:
    """What is wrong with a plan is told with the file that it came from, where it came from one.

    Raises:
        PlanError: In place of the error of a plan or format.
    """
    try:
        yield
    except (PlanError, FormatError) as error:
        if path is None:
            raise
        raise PlanError(f"{path}: {error}") from error
