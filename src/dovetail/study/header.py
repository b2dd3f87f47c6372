"""What is true of a whole study: its decisions, what it optimises, and the configuration and versions it was run with.

Together with a trial's row the header says everything about the trial's plan, so a study can be read without the
model it was run on.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import msgspec

from dovetail.errors import StudyError
from dovetail.formats import Format, parse
from dovetail.objective import Constraint, Objective
from dovetail.plan import Plan, Site

__all__ = ["DecisionRecord", "StudyHeader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision of the space, as text.

    Args:
        name: unique in its study.
        kind: what is decided.
        labels: a short text per choice.
        effects: per choice, (target, what it gets): a site's format as text, or a width group's channels.
    """

    name: str
    kind: Literal["precision", "width"]
    labels: tuple[str, ...]
    effects: tuple[tuple[tuple[str, str | int], ...], ...]


@dataclass(frozen=True, kw_only=True)
class StudyHeader:
    """What is true of a whole study.

    Args:
        decisions: in the order of the rows.
        objectives: in the order in which strategies are told their values.
        constraints: bounds on costs and quality.
        weighted_sum: whether the objectives are summed into one.
        seed: the search's seed.
        identity: (dotted key, value as text) of everything that the trials follow from; two runs of one identity
            give the same trials.
        versions: (package, version) that ran it.
        unpriced: (cost, operations it could not price).
        units: (figure, unit).
        created_at: ISO 8601 in UTC.
    """

    decisions: tuple[DecisionRecord, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    weighted_sum: bool = False
    seed: int = 0
    identity: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    unpriced: tuple[tuple[str, tuple[str, ...]], ...] = ()
    units: tuple[tuple[str, str], ...] = ()
    created_at: str = ""

    @property
    def size(self) -> int:
        """Rows in the space."""
        size = 1
        for decision in self.decisions:
            size *= len(decision.labels)
        return size

    def labels(self, row: Sequence[int]) -> tuple[tuple[str, str], ...]:
        """(decision's name, chosen label) per decision."""
        return tuple((d.name, d.labels[c]) for d, c in zip(self.decisions, row, strict=True))

    def plan(self, row: Sequence[int]) -> Plan:
        """The plan that a row spells."""
        formats: dict[Site, Format] = {}
        widths: dict[str, int] = {}
        for decision, choice in zip(self.decisions, row, strict=True):
            for target, given in decision.effects[choice]:
                if isinstance(given, int):
                    widths[target] = given
                else:
                    formats[_site(target)] = _format(given)
        return Plan.of(formats, widths)

    def difference(self, other: StudyHeader) -> tuple[str, str | None, str | None] | None:
        """The first key in which two identities differ, with its value here and there; None where they are the same."""
        here, there = dict(self.identity), dict(other.identity)
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                return key, here.get(key), there.get(key)
        return None

    def to_json(self) -> str:
        """A text that `from_json` reads back to an equal header."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` gives.

        Raises:
            StudyError: The text is not a header.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise StudyError(
                f"study: its header cannot be read, it was written by another version of dovetail: {error}."
            ) from error


@functools.lru_cache(maxsize=4096)
def _site(text: str) -> Site:
    return Site.parse(text)


@functools.lru_cache(maxsize=4096)
def _format(text: str) -> Format:
    return parse(text)
