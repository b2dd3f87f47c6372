"""Running a rounding kernel on a tensor of any float dtype, layout or size.

The *carrier* is the tensor's own dtype: rounded values live in it. Kernels compute in float32 (float64 for float64
carriers). Large contiguous CPU tensors are rounded piece by piece, each piece staying in the processor's cache through
the whole chain of operations: that is what makes a chain of five passes cost little more than one copy. Where numba is
installed, one loop in machine code takes the chain's place (`fused`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from dovetail.errors import FormatError
from dovetail.formats import fused

__all__ = [
    "PIECE",
    "Kernel",
    "is_bare",
    "is_plain",
    "is_worth_splitting",
    "keep_nan",
    "limit",
    "piece_size",
    "precision",
    "round_elements",
    "takes_loops",
    "work_dtype",
]

PIECE = 1 << 18
"""Elements rounded at a time: 1 MiB of float32. Smaller pieces fit nearer caches, but every call has its price."""

_PRECISION = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


class Kernel(Protocol):
    """Rounds a float32 or float64 tensor; writes to `out` when given one, else to a new tensor.

    `out` is x itself only where `round_elements` is told that the kernel allows it.
    """

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor: ...

    def loop(self, dtype: torch.dtype) -> fused.Loop | None:
        """What does the same in machine code, to the bit, for tensors of that dtype; None for nothing."""


def work_dtype(x: Tensor) -> torch.dtype:
    """The dtype kernels compute in for a carrier."""
    return torch.float64 if precision(x.dtype) == 53 else torch.float32


def precision(dtype: torch.dtype) -> int:
    """Significant bits of a carrier.

    Raises:
        FormatError: the dtype is not float32, float64, float16 or bfloat16.
    """
    if dtype not in _PRECISION:
        known = ", ".join(str(each).removeprefix("torch.") for each in _PRECISION)
        raise FormatError(f"quantise: a tensor's dtype must be one of {known}, got {dtype}. Convert it with .float().")
    return _PRECISION[dtype]


def limit(value: float, dtype: torch.dtype) -> float:
    """The value of the dtype nearest to `value` that is not farther from zero.

    Limits of a format must be representable in the carrier, or clamping would leave the format's range: in bfloat16
    the 32767 of fixed(16,0) would round up to 32768, so the limit there is 32640.
    """
    bits = precision(dtype)
    if value == 0 or math.isnan(value):
        return value
    info = torch.finfo(dtype)
    if abs(value) >= info.max:
        return math.copysign(info.max, value)
    exponent = math.frexp(value)[1]
    quantum = max(math.ldexp(1.0, exponent - bits), info.smallest_normal * info.eps)
    return math.trunc(value / quantum) * quantum


def keep_nan(x: Tensor) -> Tensor:
    """NaN where x is, zero elsewhere: added to a result, it keeps faults visible. (Masks take ten times as long.)"""
    return x.clamp(-1.0, 1.0).mul_(0.0)


def round_elements(x: Tensor, kernel: Kernel, *, in_place: bool = False, overwrites: bool = False) -> Tensor:
    """Apply a kernel to every element of x.

    Args:
        x: what to round.
        kernel: how.
        in_place: whether the result may overwrite x, which it does where the layout allows.
        overwrites: whether the kernel may be given x itself to write to: it reads no element after writing it.
    """
    x = x.detach()
    work = work_dtype(x)
    if x.numel() >= fused.SMALLEST and x.device.type == "cpu" and not x.is_contiguous() and is_bare(x):
        return _round_in_memory_order(x, kernel, in_place=in_place, overwrites=overwrites)
    loop = kernel.loop(work) if takes_loops(x) else None
    if loop is not None:
        return _round_by_loop(x, loop, in_place)
    if not is_worth_splitting(x):
        if in_place and overwrites and x.dtype is work and is_plain(x):
            return kernel(x, x)
        return kernel(x if x.dtype is work else x.to(work)).to(x.dtype)
    out = x if in_place else torch.empty_like(x)
    direct = x.dtype is work and (overwrites or not in_place)
    for piece, target in _pieces(x, out):
        if direct:
            kernel(piece, target)
        else:
            target.copy_(kernel(piece.to(work)))
    return out


def _round_in_memory_order(x: Tensor, kernel: Kernel, *, in_place: bool, overwrites: bool) -> Tensor:
    """Elements do not know their places: transposed and channels-last tensors are contiguous in another order."""
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    moved = x.permute(order)
    if not moved.is_contiguous():
        return round_elements(x.contiguous(), kernel, in_place=True, overwrites=overwrites)
    rounded = round_elements(moved, kernel, in_place=in_place, overwrites=overwrites)
    return rounded.permute([order.index(dim) for dim in range(x.ndim)])


def _round_by_loop(x: Tensor, loop: fused.Loop, in_place: bool) -> Tensor:
    out = x if in_place else torch.empty_like(x)
    if x.dtype is work_dtype(x):
        fused.run(loop, x, out)
        return out
    for piece, target in _pieces(x, out):
        wide = piece.to(work_dtype(x))
        fused.run(loop, wide, wide)
        target.copy_(wide)
    return out


def _pieces(x: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = piece_size(x)
    return zip(torch.split(x.view(-1), size), torch.split(out.view(-1), size), strict=True)


def piece_size(x: Tensor) -> int:
    """Elements of x to round at a time: half as many where each is widened first."""
    return PIECE if x.dtype is work_dtype(x) else PIECE // 2


def takes_loops(x: Tensor) -> bool:
    """Whether x is to be rounded by a loop in machine code: large enough, plain, in the CPU's memory."""
    return x.numel() >= fused.SMALLEST and x.device.type == "cpu" and is_plain(x) and fused.is_due(x.numel())


def is_worth_splitting(x: Tensor) -> bool:
    """Large plain CPU tensors; not inside torch.compile (which fuses the chain itself) nor under vmap."""
    return x.numel() > PIECE and x.device.type == "cpu" and is_plain(x)


def is_plain(x: Tensor) -> bool:
    """A contiguous tensor that nothing traces or maps over: its memory is its value."""
    return x.is_contiguous() and is_bare(x)


def is_bare(x: Tensor) -> bool:
    """A tensor of any layout that nothing traces or maps over."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._get_tracing_state()
        and not x.is_neg()
    )
