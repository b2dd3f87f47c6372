"""Matrix products on a thread of their own, while answers of the plans before are counted and recorded.

One group of plans is computed ahead, no more. What a thread computes is a function of tensors alone, by the operators
and on the one thread that they would run on without it, so it is the same to the bit; values, cache and plans stay with
the thread that evaluates. Where that is stopped, only a product that nobody has measured is lost.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dovetail.evaluation.leaves import Leaves, Product
from dovetail.evaluation.numbering import Numbered

__all__ = ["Begun", "begin"]

# Multiplications from which a product is worth a thread's while: a few tenths of a ms. Handing it over takes one.
_WORTH_A_THREAD = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Begun:
    """A group of plans on one piece of the data, up to its product.

    Args:
        group: the plans.
        piece: of the data.
        product: what gives their outputs; None where they must be run one by one.
        future: the outputs, where a thread computes them.
    """

    group: Sequence[Numbered]
    piece: int
    product: Product | None = None
    future: Future[Tensor] | None = None

    def outputs(self) -> Tensor | None:
        """The outputs; None where plans must be run one by one.

        What the thread has not come to, because the processor has other work, is computed now: nobody waits for the
        scheduler.
        """
        if self.future is not None and not self.future.cancel():
            return self.future.result()
        return None if self.product is None else self.product.compute()


def begin(leaves: Leaves, group: Sequence[Numbered], given: Mapping[int, Any], piece: int, *, ahead: bool) -> Begun:
    """Compute what the product of a group needs, and set about it.

    Args:
        leaves, group, given, piece: as for `Leaves.product`.
        ahead: whether a thread may compute it.
    """
    product = leaves.product(group, given, piece)
    future = None
    if ahead and product is not None and product.multiplications >= _WORTH_A_THREAD:
        future = _thread(os.getpid()).submit(product.compute)
    return Begun(group=group, piece=piece, product=product, future=future)


@functools.cache
def _thread(process: int) -> ThreadPoolExecutor:
    """The thread of this process: that of the one it was forked from is not there.

    A new thread takes PyTorch's number of threads on when it asks for it; one that never does uses all cores in BLAS.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="dovetail-products", initializer=torch.get_num_threads)
