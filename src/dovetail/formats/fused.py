"""Rounding large tensors by loops in machine code, where numba is installed: when, and how.

A loop passes over memory once where tensor operations pass five to twenty times, and gives the same bits. Importing
numba takes about as long as rounding a hundred million elements without it, so a process does so when it meets a
tensor of a million elements, or once the smaller ones it has rounded come to as much.

The environment variable `DOVETAIL_FUSED` (or `use`) overrides this: 0 for never, 1 for from the first tensor.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SMALLEST", "Loop", "is_due", "largest_magnitude_bits", "run", "use"]

SMALLEST = 1 << 13
"""Elements from which a loop is faster than tensor operations, calls included."""

LARGE = 1_000_000
"""Elements of a tensor that make the import worth its time at once."""

_IMPORT_COSTS = 1 << 28
"""Elements that can be rounded by tensor operations in the time of the import, about 0.4 s."""

_SHARE = 1 << 20
"""Elements that are worth a thread's while."""

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


def use(choice: bool | None) -> bool | None:
    """Use loops always (True), never (False), or from when their import pays (None); returns what held before.

    Results do not depend on it, to the bit. Without numba there are no loops, whatever the choice.
    """
    before, _loading.choice = _loading.choice, choice
    return before


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
    assert _loading.loops is not None
    function = getattr(_loading.loops, loop.name)
    dtype = np.float64 if loop.is_wide or x.dtype is torch.float64 else np.float32
    one = np.ones(1, dtype)
    factors = one if factor is None else _array(factor, dtype)
    scales = one if scale is None else _array(scale, dtype)
    constants = [_array(each, dtype) if isinstance(each, Tensor) else dtype(each) for each in loop.constants]
    source = _flat(x)
    target = None if out.data_ptr() == x.data_ptr() else _flat(out)
    period = len(scales)
    each = x.numel() if size is None else size
    is_listed = period > 1 and period * each == x.numel()

    def share(start: int, stop: int) -> None:
        own = slice(start // each, stop // each) if is_listed else slice(None)
        function(
            source[start:stop],
            None if target is None else target[start:stop],
            stop - start if period == 1 else each,
            divides or None,
            factors[own],
            scales[own],
            *(constant[own] if isinstance(constant, np.ndarray) else constant for constant in constants),
        )

    _in_shares(share, x.numel(), 1 if period == 1 else each if is_listed else each * period)


def largest_magnitude_bits(x: Tensor, out: Tensor) -> None:
    """Write the bits of the largest magnitude of each row of x to out, a column of integers as wide as x's floats."""
    assert _loading.loops is not None
    largest = _loading.loops.largest
    source, target, size = _flat(x), _flat(out), x.shape[1]

    def share(start: int, stop: int) -> None:
        largest(source[start:stop], target[start // size : stop // size], size)

    _in_shares(share, len(source), size)


def _in_shares(work: Callable[[int, int], object], length: int, unit: int) -> None:
    """Call work(start, stop) for as many shares of a range as PyTorch may use threads, cut at multiples of the unit."""
    count = min(torch.get_num_threads(), length // _SHARE, length // unit)
    if count <= 1:
        work(0, length)
        return
    bounds = [length // unit * i // count * unit for i in range(count + 1)]
    others = [_pool(os.getpid()).submit(work, *bound) for bound in pairwise(bounds[:-1])]
    work(bounds[-2], length)
    for other in others:
        other.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of the one it was forked from are not there."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dovetail-formats")


def _flat(x: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = x.view(-1).numpy()
    return array


def _array(values: Tensor, dtype: type[np.float32] | type[np.float64]) -> NDArray[np.generic]:
    return _flat(values.contiguous()).astype(dtype, copy=False)
