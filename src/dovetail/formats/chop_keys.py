"""Formats from the keys of MASE's chop: `data_in_exponent_width`, `weight_block_size` and their likes.

Source: MASE (github.com/DeepWok/mase), `chop/passes/graph/transforms/quantize/quant_parsers`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dovetail.errors import FormatError, unknown_name
from dovetail.formats.base import Format
from dovetail.formats.binary import Binary
from dovetail.formats.block_floats import BlockFloat, BlockLogarithmic, BlockMinifloat
from dovetail.formats.blocks import Blocks
from dovetail.formats.fixed import FixedPoint
from dovetail.formats.logarithmic import Logarithmic
from dovetail.formats.minifloat import Minifloat
from dovetail.formats.ternary import Ternary, Threshold

__all__ = ["CHOP_KEYS", "formats_from_chop"]

_ABSENT = ("NA", "none", "None", None)

Values = Mapping[str, Any]


def formats_from_chop(prefix: str, config: Mapping[str, Any]) -> tuple[Format, ...]:
    """The formats that a chop configuration offers one tensor: all combinations of its lists, each once, in order.

    Args:
        prefix: "data_in", "weight" or "bias".
        config: `name`, one or several quantisers of CHOP_KEYS (NA entries offer nothing), and `<prefix>_<key>` lists;
            a value that is no list counts as a list of one. Keys of other tensors are not read.

    Returns:
        The formats; none where the configuration says nothing of this tensor.

    Raises:
        FormatError: a quantiser is unknown, a key it needs is missing, or a combination is impossible.

    Example:
        >>> chop = {"name": ["integer"], "weight_width": [8, 4], "weight_frac_width": ["NA", 3]}
        >>> [str(fmt) for fmt in formats_from_chop("weight", chop)]
        ['fixed(8,4)', 'fixed(8,3)', 'fixed(4,2)', 'fixed(4,3)']
    """
    if not any(key.startswith(f"{prefix}_") for key in config):
        return ()
    found: dict[Format, None] = {}
    for name in _list(config.get("name", [])):
        if name in _ABSENT:
            continue
        if name not in _BUILDERS:
            raise FormatError(unknown_name("chop quantiser", str(name), _BUILDERS))
        for values in _combinations(prefix, str(name), config):
            found[_build(prefix, str(name), values)] = None
    return tuple(found)


def _combinations(prefix: str, name: str, config: Mapping[str, Any]) -> list[Values]:
    """One mapping of key to value for each combination of the lists; NA and absent keys are None."""
    keys, required = CHOP_KEYS[name], _REQUIRED[name]
    lists = []
    for key in keys:
        listed = _list(config.get(f"{prefix}_{key}", [None]))
        if key in required and (not listed or any(value in _ABSENT for value in listed)):
            raise FormatError(f"{prefix}_{key}: {name} needs a value, got {listed}.")
        lists.append([None if not isinstance(value, list) and value in _ABSENT else value for value in listed])
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*lists)]


def _build(prefix: str, name: str, values: Values) -> Format:
    try:
        return _BUILDERS[name](values)
    except (FormatError, TypeError) as error:
        stated = ", ".join(f"{prefix}_{key} = {value!r}" for key, value in values.items())
        raise FormatError(f"{name} with {stated}: {error}") from error


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _or_default(value: Any, default: int) -> int:
    return default if value is None else int(value)


def _usual_bias(exponent_width: int) -> int:
    return (1 << max(exponent_width - 1, 0)) - 1


def _blocks(size: Any) -> Blocks:
    """chop's block_size: a size, or the sizes of the last dimensions; -1 is the whole dimension; 16 unless given."""
    return Blocks((16,) if size is None else tuple(int(part) for part in _list(size)))


def _fixed(values: Values) -> Format:
    return FixedPoint(values["width"], _or_default(values["frac_width"], values["width"] // 2))


def _minifloat(values: Values, implicit_bit: bool) -> Format:
    exponent_width = values["exponent_width"]
    bias = _or_default(values["exponent_bias"], _usual_bias(exponent_width))
    return Minifloat(values["width"], exponent_width, bias, implicit_bit)


def _log(values: Values) -> Format:
    return Logarithmic(values["width"], _or_default(values["exponent_bias"], _usual_bias(values["width"] - 1)))


def _block_fp(values: Values) -> Format:
    exponent_width = values["exponent_width"]
    bias = _or_default(values["exponent_bias"], _usual_bias(exponent_width))
    return BlockFloat(values["width"], exponent_width, bias, _blocks(values["block_size"]))


def _block_minifloat(values: Values) -> Format:
    bias_width = values["exponent_bias_width"]
    return BlockMinifloat(values["width"], values["exponent_width"], bias_width, _blocks(values["block_size"]))


def _block_log(values: Values) -> Format:
    return BlockLogarithmic(values["width"], values["exponent_bias_width"], _blocks(values["block_size"]))


def _binary(values: Values) -> Format:
    return Binary(bipolar=bool(values["bipolar"]), stochastic=bool(values["stochastic"]))


def _ternary(values: Values) -> Format:
    """chop takes the first statistic that is set, in this order; the mean where none is."""
    rules = [rule for rule in (Threshold.MEAN, Threshold.MAX, Threshold.MEDIAN) if values[rule.value]]
    return Ternary(rules[0] if rules else Threshold.MEAN, scaled=bool(values["scaling_factor"]))


CHOP_KEYS: Mapping[str, tuple[str, ...]] = {
    "integer": ("width", "frac_width"),
    "fixed": ("width", "frac_width"),
    "minifloat_ieee": ("width", "exponent_width", "exponent_bias"),
    "minifloat_denorm": ("width", "exponent_width", "exponent_bias"),
    "log": ("width", "exponent_bias"),
    "block_fp": ("width", "exponent_width", "exponent_bias", "block_size"),
    "block_minifloat": ("width", "exponent_width", "exponent_bias_width", "block_size"),
    "block_log": ("width", "exponent_bias_width", "block_size"),
    "binary": ("width", "stochastic", "bipolar"),
    "ternary": ("width", "scaling_factor", "mean", "median", "max"),
}
"""The keys of each of chop's quantisers, without the tensor's prefix."""

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "integer": ("width",),
    "fixed": ("width",),
    "minifloat_ieee": ("width", "exponent_width"),
    "minifloat_denorm": ("width", "exponent_width"),
    "log": ("width",),
    "block_fp": ("width", "exponent_width"),
    "block_minifloat": ("width", "exponent_width", "exponent_bias_width"),
    "block_log": ("width", "exponent_bias_width"),
    "binary": (),
    "ternary": (),
}

_BUILDERS: Mapping[str, Callable[[Values], Format]] = {
    "integer": _fixed,
    "fixed": _fixed,
    "minifloat_ieee": lambda values: _minifloat(values, implicit_bit=True),
    "minifloat_denorm": lambda values: _minifloat(values, implicit_bit=False),
    "log": _log,
    "block_fp": _block_fp,
    "block_minifloat": _block_minifloat,
    "block_log": _block_log,
    "binary": _binary,
    "ternary": _ternary,
}
