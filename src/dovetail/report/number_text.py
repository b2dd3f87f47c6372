"""Numbers as text in bulk, byte for byte what `number_cell` writes one at a time.

A text matrix holds one text per row, each byte a `uint8`; bytes of 0 anywhere in a row are no part of its text.
"""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["TextMatrix", "number_cell", "number_matrix", "text_matrix"]

TextMatrix = NDArray[np.uint8]  # [n, longest]

_LARGEST_WHOLE = 2**53  # every whole number up to here is a float64
_GROUP, _RADIX = 4, 10**4  # digits are written four at a time
_PLAIN = (1e-3, 1e15)  # sizes that both repr and JSON write without an exponent


def number_cell(value: float) -> str:
    """A whole number up to 2**53 as an integer, any other as the shortest text that reads back to the same float."""
    return str(int(value)) if value.is_integer() and abs(value) <= _LARGEST_WHOLE else repr(value)


def number_matrix(values: NDArray[np.float64]) -> TextMatrix:
    """The `number_cell` of each value: [n] to [n, longest]."""
    if bool(np.all((values >= 0) & (values <= _LARGEST_WHOLE) & (values == np.floor(values)))):
        return _whole(values.astype(np.int64))
    sizes = np.abs(values)
    if bool(np.all((values == 0) | (sizes >= _PLAIN[0]) & (sizes < _PLAIN[1]))):
        return _plain(values)
    return text_matrix([number_cell(value).encode() for value in values.tolist()])


def text_matrix(texts: list[bytes]) -> TextMatrix:
    """Texts without bytes of 0, one per row."""
    longest = max(map(len, texts), default=0)
    if longest == 0:
        return np.zeros((len(texts), 0), np.uint8)
    return np.array(texts, dtype=f"S{longest}").view(np.uint8).reshape(len(texts), longest)


def _plain(values: NDArray[np.float64]) -> TextMatrix:
    """JSON writes the same digits as repr, some ten times as fast, whole numbers as 1.0; cells lie between commas."""
    positive_zero = values + 0.0
    text = msgspec.json.encode(positive_zero.tolist())[1:-1] + b","
    if bool(np.any(values == np.floor(values))):
        text = text.replace(b".0,", b",")
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    longest = int(lengths.max())
    padded = np.frombuffer(text + bytes(longest), np.uint8)
    cells: TextMatrix = sliding_window_view(padded, longest)[starts]
    cells *= np.arange(longest) < lengths[:, None]
    return cells


def _whole(values: NDArray[np.int64]) -> TextMatrix:
    """Digits four at a time from a table, the last group first."""
    longest = len(str(int(values.max(initial=0))))
    num_groups = -(-longest // _GROUP)
    groups = np.empty((len(values), num_groups), np.uint32)
    rest, leading = values, 2 * _RADIX
    for place in reversed(range(num_groups)):
        higher = rest // _RADIX
        groups[:, place] = _digits()[rest - higher * _RADIX + leading * (higher == 0)]
        rest, leading = higher, _RADIX
    return groups.view(np.uint8).reshape(len(values), num_groups * _GROUP)[:, -longest:]


@cache
def _digits() -> NDArray[np.uint32]:
    """0 to 9999 as four bytes: with leading zeros, without and 0 as nothing, without and 0 as one digit."""
    inner = b"".join(b"%04d" % n for n in range(_RADIX))
    last = b"".join((b"%d" % n).rjust(_GROUP, b"\0") for n in range(_RADIX))
    first = bytes(_GROUP) + last[_GROUP:]
    return np.frombuffer(inner + first + last, np.uint32)
