"""Rounding large tensors by loops in machine code, where numba is installed: when, and how.

A loop passes over memory once where tensor operations pass five to twenty times, and gives the same bits. Importing
numba takes about as long as rounding a hundred million elements without it, so a process does so when it meets a
tensor of a million elements, or once the smaller ones it has rounded come to as much.

The environment variable `DOVETAIL_FUSED` (or `use`) overrides this: 0 for never, 1 for from the first tensor.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from types import ModuleType
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SMALLEST", "Loop", "is_due", "largest_magnitude_bits", "run", "use"]

SMALLEST = 1 << 12
"""Elements from which a loop is faster than tensor operations, calls included."""

LARGE = 1_000_000
"""Elements of a tensor that make the import worth its time at once."""

_IMPORT_COSTS = 1 << 28
"""Elements that can be rounded by tensor operations in the time of the import, about 0.4 s."""

logger = logging.getLogger("dovetail.formats")


@final
@dataclass(frozen=True, slots=True)
class Loop:
    """One of `loops`, and the constants that make it a format's.

    Args:
        name: the function's.
        constants: its last arguments; numbers, or arrays with one for each segment.
        is_wide: whether the arithmetic is to be float64 where elements are float32.
    """

    name: str
    constants: tuple[float | Tensor, ...]
    is_wide: bool = False


class _Loading:
    """Whether loops are used, and what has been rounded without them so far."""

    def __init__(self) -> None:
        self.choice = {"0": False, "1": True}.get(os.environ.get("DOVETAIL_FUSED", ""))
        self.loops: ModuleType | None = None
        self.is_missing = False
        self.rounded = 0

    def is_due(self, size: int) -> bool:
        if self.choice is False or self.is_missing:
            return False
        if self.loops is None:
            self.rounded += size
            if self.choice or size >= LARGE or self.rounded >= _IMPORT_COSTS:
                self._load()
        return self.loops is not None

    def _load(self) -> None:
        try:
            from dovetail.formats import loops
        except ImportError as missing:
            self.is_missing = True
            logger.debug("Large tensors are rounded by tensor operations: %s.", missing)
        else:
            self.loops = loops


_loading = _Loading()


def use(choice: bool | None) -> None:
    """Use loops always (True), never (False), or when their import has paid for itself (None); bits are the same."""
    _loading.choice = choice


def is_due(size: int) -> bool:
    """Whether a tensor of so many elements, in plain memory of the CPU, is to be rounded by a loop."""
    return size >= SMALLEST and _loading.is_due(size)


def run(
    loop: Loop,
    x: Tensor,
    out: Tensor,
    *,
    size: int | None = None,
    factor: Tensor | None = None,
    scale: Tensor | None = None,
    divides: bool = False,
) -> None:
    """Round the contiguous x, float32 or float64, into out, which may be x.

    Args:
        loop: which one.
        x: what to round.
        out: where to.
        size: elements of a segment; all of x if not given.
        factor: what elements are multiplied by before rounding, one for each segment or for each of a period of them.
        scale: what they are multiplied by after it; as many.
        divides: whether the factor divides instead.
    """
    dtype = np.float64 if loop.is_wide or x.dtype is torch.float64 else np.float32
    one = np.ones(1, dtype)
    function = getattr(_loading.loops, loop.name)
    function(
        _flat(x),
        None if out is x else _flat(out),
        x.numel() if size is None else size,
        divides or None,
        one if factor is None else _array(factor, dtype),
        one if scale is None else _array(scale, dtype),
        *(_array(each, dtype) if isinstance(each, Tensor) else dtype(each) for each in loop.constants),
    )


def largest_magnitude_bits(x: Tensor, out: Tensor) -> None:
    """Write the bits of the largest magnitude of each row of x to out, a column of integers as wide as x's floats."""
    assert _loading.loops is not None
    _loading.loops.largest(_flat(x), _flat(out), x.shape[1])


def _flat(x: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = x.view(-1).numpy()
    return array


def _array(values: Tensor, dtype: type[np.float32] | type[np.float64]) -> NDArray[np.generic]:
    return _flat(values.contiguous()).astype(dtype, copy=False)
