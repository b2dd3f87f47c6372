"""Number formats: frozen values, each with one pure rounding function.

`FORMATS` is the catalogue: every name a text form can begin with, and what reads the rest. Other packages add names
through the entry-point group `dovetail.formats` (a factory `Arguments -> Format` for each name).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from dovetail.errors import FormatError
from dovetail.formats.arguments import Arguments
from dovetail.formats.base import Format
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.float32 import FLOAT32, Float32
from dovetail.formats.ste import fake_quantise

__all__ = ["FLOAT32", "FORMATS", "Arguments", "FixedPoint", "Float32", "Format", "fake_quantise", "parse"]

Factory = Callable[[Arguments], Format]


def _fixed(args: Arguments) -> Format:
    return FixedPoint(args.integer("width"), args.integer("frac_width"), signed=args.name == "fixed")


FORMATS: Mapping[str, Factory] = {
    "float32": lambda args: FLOAT32,
    "fixed": _fixed,
    "ufixed": _fixed,
}


def parse(text: str) -> Format:
    """The format that a text names: the inverse of `str`.

    Raises:
        FormatError: no format has that name (the message lists near matches), or its arguments are not valid.

    Example:
        >>> parse("fixed(8,4)")
        FixedPoint(width=8, frac_width=4, signed=True)
    """
    args = Arguments(text)
    table = _all_formats()
    if args.name not in table:
        raise args.unknown([*table])
    fmt = table[args.name](args)
    args.finish()
    return fmt


@functools.cache
def _all_formats() -> Mapping[str, Factory]:
    """`FORMATS` and what installed packages add to it."""
    table = dict(FORMATS)
    for point in entry_points(group="dovetail.formats"):
        if point.name in table:
            raise FormatError(f"format {point.name!r} is defined twice; the second time by {point.value}. Rename it.")
        table[point.name] = point.load()
    return table
