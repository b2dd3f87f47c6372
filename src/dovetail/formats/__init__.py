"""Number formats: frozen values, each with one pure rounding function.

`FORMATS` is the catalogue: every name a text form can begin with, and what reads the rest. Other packages add names
through the entry-point group `dovetail.formats` (a factory `Arguments -> Format` for each name).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from dovetail.formats.arguments import Arguments
from dovetail.formats.auto_fixed import AutoFixed
from dovetail.formats.base import Format
from dovetail.formats.binary import Binary
from dovetail.formats.block_floats import BlockFloat, BlockLogarithmic, BlockMinifloat
from dovetail.formats.blocks import Blocks
from dovetail.formats.clipping import Clip
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.float32 import FLOAT32, Float32
from dovetail.formats.integer import Integer, ScaledInteger
from dovetail.formats.logarithmic import Logarithmic
from dovetail.formats.lsq import LearnedStep
from dovetail.formats.microscaling import Microscaling
from dovetail.formats.minifloat import NAMED_FLOATS, HalfFloat, Minifloat, NamedFloat
from dovetail.formats.nvfp4 import NVFP4
from dovetail.formats.readers import (
    read_binary,
    read_block_fp,
    read_block_log,
    read_block_minifloat,
    read_fixed,
    read_integer,
    read_log,
    read_microscaling,
    read_minifloat,
    read_nvfp4,
    read_ternary,
)
from dovetail.formats.statistics import Statistics
from dovetail.formats.ste import fake_quantise
from dovetail.formats.ternary import Ternary, Threshold
from dovetail.loading import with_installed

__all__ = [
    "FLOAT32",
    "FORMATS",
    "NAMED_FLOATS",
    "NVFP4",
    "Arguments",
    "AutoFixed",
    "Binary",
    "BlockFloat",
    "BlockLogarithmic",
    "BlockMinifloat",
    "Blocks",
    "Clip",
    "FixedPoint",
    "Float32",
    "Format",
    "HalfFloat",
    "Integer",
    "LearnedStep",
    "Logarithmic",
    "Microscaling",
    "Minifloat",
    "NamedFloat",
    "ScaledInteger",
    "Statistics",
    "Ternary",
    "Threshold",
    "fake_quantise",
    "parse",
]

Factory = Callable[[Arguments], Format]

FORMATS: Mapping[str, Factory] = {
    "float32": lambda args: FLOAT32,
    "float16": lambda args: HalfFloat("float16"),
    "bfloat16": lambda args: HalfFloat("bfloat16"),
    "fixed": read_fixed,
    "ufixed": read_fixed,
    "int": read_integer,
    "minifloat_ieee": read_minifloat,
    "minifloat_denorm": read_minifloat,
    "E4M3FN": lambda args: NAMED_FLOATS["E4M3FN"],
    "E5M2": lambda args: NAMED_FLOATS["E5M2"],
    "E3M2FN": lambda args: NAMED_FLOATS["E3M2FN"],
    "E2M3FN": lambda args: NAMED_FLOATS["E2M3FN"],
    "E2M1FN": lambda args: NAMED_FLOATS["E2M1FN"],
    "mxint8": read_microscaling,
    "mxfp8_e4m3": read_microscaling,
    "mxfp8_e5m2": read_microscaling,
    "mxfp6_e3m2": read_microscaling,
    "mxfp6_e2m3": read_microscaling,
    "mxfp4": read_microscaling,
    "nvfp4": read_nvfp4,
    "block_fp": read_block_fp,
    "block_minifloat": read_block_minifloat,
    "block_log": read_block_log,
    "log": read_log,
    "binary": read_binary,
    "ternary": read_ternary,
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
    return with_installed(FORMATS, "dovetail.formats")
