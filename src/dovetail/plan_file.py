"""A plan in a TOML file."""

from __future__ import annotations

from pathlib import Path

from dovetail.errors import PlanError
from dovetail.plan import Plan

__all__ = ["read_plan"]


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
    return Plan.from_toml(text, where=str(path))
