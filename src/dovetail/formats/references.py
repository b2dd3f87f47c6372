"""The slow obvious twin of every format: one block at a time, in exact arithmetic, straight from the definitions.

Nothing here is shared with the tensor versions but the formats' fields and the float grid; a law of
`dovetail.testing.formats` compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from dovetail.errors import FormatError
from dovetail.formats.base import Format
from dovetail.formats.binary import Binary
from dovetail.formats.block_floats import BlockFloat, BlockLogarithmic, BlockMinifloat
from dovetail.formats.blocked import SCALE_HIGH, SCALE_LOW
from dovetail.formats.fixed import FixedPoint, fixed_reference
from dovetail.formats.float32 import Float32
from dovetail.formats.grid import FloatGrid
from dovetail.formats.integer import ScaledInteger
from dovetail.formats.logarithmic import Logarithmic, log_reference
from dovetail.formats.microscaling import MX_ELEMENTS, Microscaling
from dovetail.formats.minifloat import NAMED_FLOATS, HalfFloat, Minifloat, SmallFloat
from dovetail.formats.nvfp4 import NVFP4
from dovetail.formats.ternary import Ternary

__all__ = ["reference"]

Float = type[np.float32] | type[np.float64]


def reference(fmt: Format, block: Sequence[float], carrier: Float = np.float64) -> list[float]:
    """Round finite numbers that share a scale where the format has one.

    Args:
        fmt: calibrated, without channels and without noise.
        block: one block of a block format; any numbers for others.
        carrier: the arithmetic in which formats are defined to divide by a scale.

    Raises:
        FormatError: the format has no reference here.

    Example:
        >>> reference(NAMED_FLOATS["E2M1FN"], [2.4, 2.5, 100.0])
        [2.0, 2.0, 6.0]
    """
    match fmt:
        case Float32():
            return list(block)
        case FixedPoint():
            return [fixed_reference(x, fmt) for x in block]
        case HalfFloat():
            return [_overflowing(x, fmt.grid) for x in block]
        case SmallFloat():
            return [fmt.grid.reference(x) for x in block]
        case Logarithmic():
            return [log_reference(x, fmt) for x in block]
        case ScaledInteger() if fmt.axis is None:
            return [_scaled_integer(x, fmt, carrier) for x in block]
        case Binary() if not fmt.stochastic:
            upper = float(carrier(fmt.maximum))
            lower = -upper if fmt.bipolar else 0.0
            return [upper if (x >= 0 if fmt.bipolar else x > 0) else lower for x in block]
        case Ternary() if fmt.threshold is not None:
            threshold, scale = carrier(fmt.threshold), float(carrier(fmt.maximum))
            return [math.copysign(scale, x) if abs(x) > threshold else 0.0 for x in block]
        case NVFP4() if fmt.scale is not None:
            return _nvfp4(block, fmt.scale, carrier)
        case Microscaling() | BlockFloat() | BlockMinifloat() | BlockLogarithmic():
            return _under_a_power(block, fmt, carrier)
    raise FormatError(f"{fmt}: there is no slow reference for it.")


def _overflowing(x: float, grid: FloatGrid) -> float:
    """Rounded as if exponents had no end, then infinite beyond the maximum."""
    rounded = replace(grid, maximum=2.0**1000).reference(x)
    return rounded if abs(rounded) <= grid.maximum else math.copysign(math.inf, x)


def _scaled_integer(x: float, fmt: ScaledInteger, carrier: Float) -> float:
    inverse = carrier(np.float32(1) / np.float32(fmt.scales[0]))
    zero = 0 if fmt.zero_points is None else fmt.zero_points[0]
    largest = 2 ** (fmt.width - 1) - 1
    low, high = (-largest, largest) if fmt.zero_points is None else (0, 2**fmt.width - 1)
    with np.errstate(over="ignore"):
        scaled = float(carrier(x) * inverse)
    code = high if scaled > 2**20 else low if scaled < -(2**20) else min(max(round(scaled) + zero, low), high)
    return float(carrier(code - zero) * carrier(fmt.scales[0]))


def _nvfp4(block: Sequence[float], tensor_scale: float, carrier: Float) -> list[float]:
    element, scales = NAMED_FLOATS["E2M1FN"].grid, NAMED_FLOATS["E4M3FN"].grid
    largest = carrier(max(map(abs, block)))
    with np.errstate(over="ignore"):
        ratio = float(largest / carrier(element.maximum * tensor_scale))
    block_scale = scales.reference(min(ratio, scales.maximum))
    scale = carrier(block_scale) * carrier(tensor_scale)
    if scale == 0:
        return [0.0] * len(block)
    with np.errstate(over="ignore"):
        ratios = [float(carrier(x) / scale) for x in block]
    top = element.maximum
    return [float(carrier(element.reference(min(max(ratio, -top), top))) * scale) for ratio in ratios]


_Block = Microscaling | BlockFloat | BlockMinifloat | BlockLogarithmic


def _under_a_power(block: Sequence[float], fmt: _Block, carrier: Float) -> list[float]:
    """`2**e * element(x / 2**e)`, with e from the block's largest magnitude, within what the scale's field can say.

    All is exact but quotients so small that they are subnormal, or zero, in the carrier.
    """
    low, high, above, element = _shared(fmt)
    largest = max(map(abs, block))
    if largest == 0:
        exponent = low
    elif isinstance(fmt, BlockLogarithmic):
        exponent = _nearest_exponent(largest) - above
    else:
        exponent = math.frexp(largest)[1] - 1 - above  # floor(log2(largest))
    exponent = min(max(exponent, low, SCALE_LOW), high, SCALE_HIGH)
    power = Fraction(2) ** exponent
    return [float(Fraction(element(float(carrier(float(Fraction(x) / power))))) * power) for x in block]


def _shared(fmt: _Block) -> tuple[int, int, int, Callable[[float], float]]:
    """The smallest and the largest exponent of a scale, the exponent that the largest element takes, and the element's
    rounding."""
    match fmt:
        case Microscaling(name="mxint8"):
            steps = 64
            return -127, 127, 0, lambda x: min(max(round(Fraction(x) * steps), -127), 127) / steps
        case Microscaling():
            grid = NAMED_FLOATS[MX_ELEMENTS[fmt.name]].grid
            return -127, 127, grid.emax, grid.reference
        case BlockFloat():
            # One step is 2**(e - (width - 1)) where the largest magnitude lies in 2**(e - 1) to 2**e.
            bits = fmt.width - 1
            largest = 2**bits - 1
            first = -fmt.exponent_bias - bits
            last = first + 2**fmt.exponent_width - 1
            return first, last, bits - 1, lambda x: float(min(max(round(Fraction(x)), -largest), largest))
        case BlockMinifloat():
            usual = 2 ** (fmt.exponent_width - 1) - 1
            grid = Minifloat(fmt.width, fmt.exponent_width, usual).grid
            return *_biases(fmt.exponent_bias_width), grid.emax, grid.reference
        case BlockLogarithmic():
            usual = 2 ** (fmt.width - 2) - 1
            powers = Logarithmic(fmt.width, usual)
            return *_biases(fmt.exponent_bias_width), powers.emax, lambda x: log_reference(x, powers)


def _biases(width: int) -> tuple[int, int]:
    """Minus what a two's complement number of so many bits can be."""
    return 1 - 2 ** (width - 1), 2 ** (width - 1)


def _nearest_exponent(x: float) -> int:
    """Of the power of two nearest to x > 0 in the logarithm: the upper one from sqrt(2) times the lower one."""
    below = math.frexp(x)[1] - 1
    return below + (Fraction(x) ** 2 > 2 * Fraction(4) ** below)
