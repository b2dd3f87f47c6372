"""Reading each family's text form: from `name(arguments)` to the format."""

from __future__ import annotations

from dovetail.errors import FormatError
from dovetail.formats.arguments import Arguments
from dovetail.formats.auto_fixed import AutoFixed
from dovetail.formats.base import Format
from dovetail.formats.binary import Binary
from dovetail.formats.block_floats import DEFAULT_BLOCKS, BlockFloat, BlockLogarithmic, BlockMinifloat
from dovetail.formats.blocks import Blocks
from dovetail.formats.clipping import Clip
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.integer import Integer, ScaledInteger
from dovetail.formats.logarithmic import Logarithmic
from dovetail.formats.microscaling import MX_BLOCKS, Microscaling
from dovetail.formats.minifloat import Minifloat
from dovetail.formats.nvfp4 import NVFP4, NVFP4_BLOCKS
from dovetail.formats.ternary import Ternary, Threshold

__all__ = [
    "read_binary",
    "read_block_fp",
    "read_block_log",
    "read_block_minifloat",
    "read_fixed",
    "read_integer",
    "read_log",
    "read_microscaling",
    "read_minifloat",
    "read_nvfp4",
    "read_ternary",
]


def read_fixed(args: Arguments) -> Format:
    """`fixed(width, frac_width)`, `fixed(width, auto)`; `ufixed` likewise, unsigned."""
    signed = args.name == "fixed"
    if args.flag("auto"):
        return AutoFixed(args.integer("width"), signed)
    return FixedPoint(args.integer("width"), args.integer("frac_width"), signed)


def read_integer(args: Arguments) -> Format:
    """`int(width[, affine][, channel[, axis=0]][, minmax|percentile|mse|kl][, po2])`, or with `scale=` the calibrated.

    Scales and zero points of channels are joined by `|`.
    """
    scales = args.keyed("scale")
    if scales is not None:
        zeros = args.keyed("zero")
        axis = args.keyed("axis")
        return ScaledInteger(
            args.integer("width"),
            tuple(args.number("scale", part) for part in scales.split("|")),
            None if zeros is None else tuple(args.whole("zero", part) for part in zeros.split("|")),
            None if axis is None else args.whole("axis", axis),
        )
    affine = args.word("affine", "symmetric", default="symmetric") == "affine"
    channel = args.word("channel", "tensor", default="tensor") == "channel"
    clip = Clip(args.word(*Clip, default=Clip.MINMAX))
    power_of_two = args.flag("po2")
    given = args.keyed("axis")
    if given is not None and not channel:
        raise FormatError(f"format {args.text!r}: axis needs the word channel, as in int(8,channel,axis=1).")
    dimension = 0 if given is None else args.whole("axis", given)
    return Integer(args.integer("width"), affine, dimension if channel else None, clip, power_of_two)


def read_minifloat(args: Arguments) -> Format:
    """`minifloat_ieee(width, exponent_width[, exponent_bias=2**(exponent_width - 1) - 1])`, `minifloat_denorm` too."""
    width, exponent_width = args.integer("width"), args.integer("exponent_width")
    bias = args.integer("exponent_bias", 2 ** max(exponent_width - 1, 0) - 1)
    return Minifloat(width, exponent_width, bias, args.name == "minifloat_ieee")


def read_microscaling(args: Arguments) -> Format:
    """`mxfp8_e4m3([block=32][, axis=-1])` and its likes."""
    return Microscaling(args.name, Blocks.read(args, MX_BLOCKS))


def read_nvfp4(args: Arguments) -> Format:
    """`nvfp4([block=16][, axis=-1][, scale=...])`."""
    scale = args.keyed("scale")
    return NVFP4(Blocks.read(args, NVFP4_BLOCKS), None if scale is None else args.number("scale", scale))


def read_block_fp(args: Arguments) -> Format:
    """`block_fp(width[, exponent_width=8[, exponent_bias]][, block=16][, axis=-1])`."""
    blocks = Blocks.read(args, DEFAULT_BLOCKS)
    width, exponent_width = args.integer("width"), args.integer("exponent_width", 8)
    bias = args.integer("exponent_bias", 2 ** max(exponent_width - 1, 0) - 1)
    return BlockFloat(width, exponent_width, bias, blocks)


def read_block_minifloat(args: Arguments) -> Format:
    """`block_minifloat(width, exponent_width[, exponent_bias_width=8][, block=16][, axis=-1])`."""
    blocks = Blocks.read(args, DEFAULT_BLOCKS)
    return BlockMinifloat(
        args.integer("width"), args.integer("exponent_width"), args.integer("exponent_bias_width", 8), blocks
    )


def read_block_log(args: Arguments) -> Format:
    """`block_log(width[, exponent_bias_width=8][, block=16][, axis=-1])`."""
    blocks = Blocks.read(args, DEFAULT_BLOCKS)
    return BlockLogarithmic(args.integer("width"), args.integer("exponent_bias_width", 8), blocks)


def read_log(args: Arguments) -> Format:
    """`log(width[, exponent_bias])`; the bias is 2**(width - 2) - 1 unless given."""
    width = args.integer("width")
    return Logarithmic(width, args.integer("exponent_bias", 2 ** max(width - 2, 0) - 1))


def read_binary(args: Arguments) -> Format:
    """`binary([zero_one][, scaled][, stochastic][, seed=0][, scale=...])`."""
    scale = args.keyed("scale")
    return Binary(
        bipolar=args.word("zero_one", "bipolar", default="bipolar") == "bipolar",
        scaled=args.flag("scaled"),
        stochastic=args.flag("stochastic"),
        seed=args.keyed_integer("seed", 0),
        scale=None if scale is None else args.number("scale", scale),
    )


def read_ternary(args: Arguments) -> Format:
    """`ternary([mean|median|max][, scaled][, threshold=..., scale=...])`."""
    threshold, scale = args.keyed("threshold"), args.keyed("scale")
    return Ternary(
        rule=Threshold(args.word(*Threshold, default=Threshold.MEAN)),
        scaled=args.flag("scaled"),
        threshold=None if threshold is None else args.number("threshold", threshold),
        scale=None if scale is None else args.number("scale", scale),
    )
