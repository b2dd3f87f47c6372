"""A plan: what one candidate is.

A plan gives number formats to sites and widths to width groups. It is a value: frozen, hashable, canonical. Two plans
that ask for the same thing are equal, however they were spelt, so a plan is its own cache key.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from dovetail.errors import PlanError, unknown_name
from dovetail.formats import FLOAT32, Format, parse

__all__ = ["Plan", "Site", "SiteKind"]


class SiteKind(StrEnum):
    """Which tensor of an operation a format is for."""

    DATA_IN = "data_in"
    WEIGHT = "weight"
    BIAS = "bias"


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One tensor of one operation that can be given a number format."""

    operation: str
    kind: SiteKind

    def __str__(self) -> str:
        return f"{self.operation}:{self.kind}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `"seq_blocks.2:weight"`."""
        operation, _, kind = text.rpartition(":")
        if kind not in SiteKind._value2member_map_ or not operation:
            raise PlanError(f"site {text!r}: must be 'operation:kind' with kind one of {', '.join(SiteKind)}.")
        return cls(operation, SiteKind(kind))


@dataclass(frozen=True, slots=True)
class Plan:
    """Number formats for sites and widths, in channels, for width groups; build one with `Plan.of`.

    What a plan does not name stays as the model has it. `float32` at a site says the same as silence and is dropped.

    Args:
        formats: (site, format), sorted by site, each site once.
        widths: (width group, channels), sorted by name, each group once.

    Example:
        >>> plan = Plan.of({Site("fc", SiteKind.WEIGHT): parse("fixed(8,4)")}, {"fc": 64})
        >>> plan.width("fc")
        64
        >>> Plan.from_toml(plan.to_toml()) == plan
        True
    """

    formats: tuple[tuple[Site, Format], ...] = ()
    widths: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        sites = [site for site, _ in self.formats]
        groups = [group for group, _ in self.widths]
        if sites != sorted(set(sites)) or groups != sorted(set(groups)):
            raise PlanError("a plan's sites and groups must be sorted and distinct: build it with Plan.of.")
        for group, width in self.widths:
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise PlanError(f"width of group {group!r}: must be an integer of at least 1, got {width!r}.")

    @classmethod
    def of(cls, formats: Mapping[Site, Format] | None = None, widths: Mapping[str, int] | None = None) -> Self:
        """The canonical plan that gives these formats and widths."""
        named = sorted((formats or {}).items(), key=lambda item: item[0])
        return cls(tuple((s, f) for s, f in named if f != FLOAT32), tuple(sorted((widths or {}).items())))

    @classmethod
    def of_sorted(cls, formats: tuple[tuple[Site, Format], ...], widths: tuple[tuple[str, int], ...]) -> Self:
        """The plan of formats and widths that are known to be canonical already; nothing is checked."""
        plan = object.__new__(cls)
        object.__setattr__(plan, "formats", formats)
        object.__setattr__(plan, "widths", widths)
        return plan

    @property
    def precision(self) -> dict[Site, Format]:
        """Format per site."""
        return dict(self.formats)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that follow from the plan's content alone, the same in every process."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def format(self, site: Site) -> Format | None:
        """The format that the plan gives to a site, or None where it leaves the site alone."""
        return dict(self.formats).get(site)

    def width(self, group: str) -> int | None:
        """Channels that the plan gives to a width group, or None where it leaves the group alone."""
        return dict(self.widths).get(group)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form: `{"formats": {operation: {kind: text}}, "widths": {group: channels}}`."""
        formats: dict[str, dict[str, str]] = {}
        for site, fmt in self.formats:
            formats.setdefault(site.operation, {})[site.kind.value] = str(fmt)
        return {"formats": formats, "widths": dict(self.widths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "plan") -> Self:
        """Read what `to_dict` gives.

        Raises:
            PlanError: A key, kind or type is not a plan's; the message names the place.
            FormatError: A text names no format.
        """
        if unknown := set(data) - {"formats", "widths"}:
            raise PlanError(f"{where}: {unknown_name('key', min(unknown), ['formats', 'widths'])}")
        formats: dict[Site, Format] = {}
        for operation, kinds in _table(data.get("formats", {}), f"{where}.formats").items():
            for kind, text in _table(kinds, f"{where}.formats.{operation}").items():
                if kind not in SiteKind._value2member_map_:
                    raise PlanError(
                        f"{where}.formats.{operation}: {unknown_name('site', kind, [k.value for k in SiteKind])}"
                    )
                if not isinstance(text, str):
                    raise PlanError(f"{where}.formats.{operation}.{kind}: must be a format's text, got {text!r}.")
                formats[Site(operation, SiteKind(kind))] = parse(text)
        return cls.of(formats, _table(data.get("widths", {}), f"{where}.widths"))

    def to_toml(self) -> str:
        """A TOML text that `from_toml` reads back to an equal plan."""
        quote = json.dumps  # a JSON string is a TOML basic string
        lines = ["[widths]", *(f"{quote(group)} = {width}" for group, width in self.widths)] if self.widths else []
        for operation, kinds in self.to_dict()["formats"].items():
            lines += ["", f"[formats.{quote(operation)}]", *(f"{kind} = {quote(text)}" for kind, text in kinds.items())]
        return "\n".join(lines).lstrip("\n") + "\n"

    @classmethod
    def from_toml(cls, text: str, *, where: str = "plan") -> Self:
        """Read a plan's TOML text.

        Raises:
            PlanError: The text is not TOML, or not a plan.
        """
        try:
            return cls.from_dict(tomllib.loads(text), where=where)
        except tomllib.TOMLDecodeError as error:
            raise PlanError(f"{where}: must be TOML: {error}") from error


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise PlanError(f"{where}: must be a table, got {type(value).__name__}.")
    return dict(value)
