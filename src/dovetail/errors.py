"""Every error dovetail raises on purpose.

One root, so that a caller can catch all of them; each child also inherits the builtin a Python programmer would expect.
A message says where, what must hold, what came and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DovetailError",
    "EvaluationError",
    "FormatError",
    "PlanError",
    "PricingError",
    "ResizeError",
    "StudyError",
    "TraceError",
    "UnknownSiteError",
    "unknown_name",
]


class DovetailError(Exception):
    """Root of the errors that dovetail raises on purpose."""


class ConfigError(DovetailError, ValueError):
    """A configuration is not valid: a key, a type or a combination."""


class FormatError(DovetailError, ValueError):
    """A number format has impossible parameters, or a text does not name one."""


class PlanError(DovetailError, ValueError):
    """A plan does not fit the graph it is applied to."""


class UnknownSiteError(PlanError, KeyError):
    """A plan names an operation, site or width group that the graph lacks."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class TraceError(DovetailError, RuntimeError):
    """A model cannot be exported as a graph."""


class ResizeError(DovetailError, ValueError):
    """A width cannot be given to a model."""


class PricingError(DovetailError, ValueError):
    """A cost cannot be computed for a plan."""


class CheckpointError(DovetailError, ValueError):
    """A checkpoint is missing, corrupt or of another model."""


class DataError(DovetailError, ValueError):
    """Data is missing or not fit for the task."""


class EvaluationError(DovetailError, RuntimeError):
    """A candidate could not be evaluated; recorded with its trial, the search goes on."""


class StudyError(DovetailError, RuntimeError):
    """A study cannot be opened, written or continued."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a table, with the nearest known names.

    Example:
        >>> unknown_name("format", "fixd", ["fixed", "float32"])
        "unknown format 'fixd'. Did you mean 'fixed'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"unknown {what} {name!r}. Did you mean {' or '.join(repr(n) for n in near)}?"
    return f"unknown {what} {name!r}. Known: {', '.join(names) if names else 'none'}."
