"""Number formats: frozen values, each with one pure rounding function."""

from __future__ import annotations

import re

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.float32 import FLOAT32, Float32

__all__ = ["FLOAT32", "FixedPoint", "Float32", "Format", "parse"]


def parse(text: str) -> Format:
    """The format that a text names."""
    if text == "float32":
        return FLOAT32
    if m := re.fullmatch(r"(u?)fixed\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)", text):
        return FixedPoint(int(m[2]), int(m[3]), signed=not m[1])
    raise FormatError(f"no format is called {text!r}.")
