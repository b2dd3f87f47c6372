"""The loops in machine code: each rounds in one pass over memory. Importing this module imports numba.

x and out are flat and of one dtype; out is None where the result overwrites x, which compiles to a loop of its own:
only then does the compiler know that the two are one. They consist of segments of `size` elements. The segments
share the elements of `factor` and `scale` in turn: one of the whole, one for each block, or one for each channel. An
element is multiplied by the factor (divided, unless `divides` is None), rounded, and multiplied by the scale.
Constants of type float64 make the arithmetic float64 where x is float32. Compiled code is kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba.extending import intrinsic

__all__ = ["channels", "floats", "integers", "largest", "levels", "powers"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    """Compiled when first called with arguments of a type; without `fastmath`: each bit is that of IEEE 754."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no place to keep it: neither beside this file nor in the user's folder of caches
        return numba.njit(**options)(function)  # type: ignore[no-any-return]


_LAYOUT = {  # as integers: bits without the sign, those of the exponent, what carries from sqrt(2) to the next exponent
    numba.float32: (numba.int32, 0x7FFFFFFF, 0x7F800000, 0x800000 - 0x3504F4),
    numba.float64: (numba.int64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000, 0x10000000000000 - 0x6A09E667F3BCD),
}


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    return intrinsic(function)  # type: ignore[no-any-return]


@_intrinsic
def _magnitude_bits(typing: Any, value: Any) -> Any:
    """Of a float: its bits without the sign, as an integer."""
    integer, magnitude, _, _ = _LAYOUT[value]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], context.get_value_type(integer))
        return builder.and_(bits, context.get_constant(integer, magnitude))

    return integer(value), generate


@_intrinsic
def _power_below(typing: Any, value: Any) -> Any:
    """Of a float: 2**floor(log2(|value|)); infinity for what is not finite, 0 for subnormals."""
    integer, _, exponent, _ = _LAYOUT[value]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], context.get_value_type(integer))
        bits = builder.and_(bits, context.get_constant(integer, exponent))
        return builder.bitcast(bits, arguments[0].type)

    return value(value), generate


@_intrinsic
def _power_nearest(typing: Any, value: Any) -> Any:
    """Of a float: the power of two nearest in the logarithm."""
    integer, magnitude, exponent, carry = _LAYOUT[value]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], context.get_value_type(integer))
        bits = builder.and_(bits, context.get_constant(integer, magnitude))
        bits = builder.add(bits, context.get_constant(integer, carry))
        return builder.bitcast(builder.and_(bits, context.get_constant(integer, exponent)), arguments[0].type)

    return value(value), generate


@_compiled
def _clamp(value: Any, low: Any, high: Any) -> Any:
    """NaN stays NaN."""
    value = low if value < low else value
    return high if value > high else value


@_compiled
def largest(x: Any, out: Any, size: Any) -> None:
    """The largest magnitude of each segment, as integers: those of NaN are larger than those of numbers."""
    for segment in range(len(out)):
        start = np.uint64(segment * size)
        bits = _magnitude_bits(x[start])
        for i in range(np.uint64(size)):
            bits = max(bits, _magnitude_bits(x[start + i]))
        out[segment] = bits


@_compiled
def integers(
    x: Any,
    out: Any,
    size: Any,
    divides: Any,
    factor: Any,
    scale: Any,
    inverse: Any,
    low: Any,
    high: Any,
    step: Any,
    zero: Any,
) -> None:
    """`clamp(round_half_even(x * inverse), low, high) * step`; zero is added, whose sign decides that of zeros."""
    target = x if out is None else out
    groups = len(scale)
    for first in range(0, x.size, size * groups):
        for group in range(groups):
            f, s = factor[group], scale[group]
            start = np.uint64(first + group * size)
            for i in range(np.uint64(size)):
                y = _clamp(np.rint(x[start + i] * f * inverse), low, high)
                target[start + i] = (y * step + zero) * s


@_compiled
def channels(x: Any, out: Any, size: Any, divides: Any, factor: Any, scale: Any, low: Any, high: Any) -> None:
    """`clamp(round_half_even(x), low, high)` with limits for each channel."""
    target = x if out is None else out
    groups = len(scale)
    for first in range(0, x.size, size * groups):
        for group in range(groups):
            f, s, bottom, top = factor[group], scale[group], low[group], high[group]
            start = np.uint64(first + group * size)
            for i in range(np.uint64(size)):
                target[start + i] = _clamp(np.rint(x[start + i] * f), bottom, top) * s


@_compiled
def floats(
    x: Any,
    out: Any,
    size: Any,
    divides: Any,
    factor: Any,
    scale: Any,
    low: Any,
    high: Any,
    units: Any,
    maximum: Any,
    beyond: Any,
    signs: Any,
) -> None:
    """What `grid.FloatKernel` does: low and high limit the power of two of an element; beyond replaces what is larger
    than the maximum; signs says whether zeros keep theirs."""
    target = x if out is None else out
    groups = len(scale)
    for first in range(0, x.size, size * groups):
        for group in range(groups):
            f, s = factor[group], scale[group]
            start = np.uint64(first + group * size)
            for i in range(np.uint64(size)):
                v = x[start + i] * f if divides is None else x[start + i] / f
                unit = _clamp(_power_below(v), low, high) * units
                y = (v + unit) - unit
                y = beyond if y > maximum else y
                y = -beyond if y < -maximum else y
                target[start + i] = (np.copysign(y, v) if signs else y) * s


@_compiled
def powers(x: Any, out: Any, size: Any, divides: Any, factor: Any, scale: Any, low: Any, high: Any) -> None:
    """What `logarithmic.LogKernel` does, between the powers low and high."""
    target = x if out is None else out
    groups = len(scale)
    for first in range(0, x.size, size * groups):
        for group in range(groups):
            f, s = factor[group], scale[group]
            start = np.uint64(first + group * size)
            for i in range(np.uint64(size)):
                v = x[start + i] * f
                y = np.copysign(_clamp(_power_nearest(v), low, high), v + np.float32(0))  # -0 + 0 is +0
                target[start + i] = (v if v != v else y) * s


@_compiled
def levels(
    x: Any,
    out: Any,
    size: Any,
    divides: Any,
    factor: Any,
    scale: Any,
    low: Any,
    high: Any,
    below: Any,
    middle: Any,
    above: Any,
) -> None:
    """below where x < low, above where x > high, else middle; NaN stays."""
    target = x if out is None else out
    for i in range(np.uint64(x.size)):
        v = x[i]
        y = above if v > high else middle
        y = below if v < low else y
        target[i] = v if v != v else y
