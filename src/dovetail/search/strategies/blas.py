"""Linear algebra on one thread, which gives the same bits on any machine.

How many threads BLAS uses decides the order in which it sums, and so the last bits of a model, by which suggestions may
differ. On matrices of a few hundred rows threads also wait for each other more than they share.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's and SciPy's linear algebra on one thread; afterwards on as many as before."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries() -> ThreadpoolController:
    """Those that are loaded when this is first asked."""
    return ThreadpoolController()
