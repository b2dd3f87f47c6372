"""In which pieces data goes through a model, and on how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

from dovetail.data import Split
from dovetail.evaluation.program import Program

__all__ = ["default_batch_size", "is_small", "on_one_thread", "pieces", "place"]

# The largest value of one batch. On CPUs it should stay in the last-level cache beside what is computed from it: on a
# ResNet-20 (64 KiB a sample) batches of 40 to 100 are fastest. GPUs need more work at a time.
_BYTES_AT_A_TIME, _BYTES_AT_A_TIME_ON_GPU = 5 << 20, 256 << 20

# Multiplications of one operator on one batch below which it is given one thread: a few ms of one core. Smaller
# operators gain little from a second core and lose 5 to 10 times their time where that core is busy: threads that wait
# for each other then wait for the scheduler.
_WORTH_THREADS = 1 << 26


def default_batch_size(program: Program, num_samples: int, device: torch.device) -> int:
    """Samples at a time: as many as keep the largest value of the model within 5 MiB (256 MiB on a GPU)."""
    limit = _BYTES_AT_A_TIME if device.type == "cpu" else _BYTES_AT_A_TIME_ON_GPU
    return min(num_samples, max(1, int(limit // max(1.0, program.largest_bytes_per_sample))))


def is_small(program: Program, model: nn.Module, batch_size: int, device: torch.device) -> bool:
    """Whether no operator of the model, at its own widths, has enough to do on one batch for more than one thread.

    Multiplications of an operator with a weight [outputs, ...]: elements of its result x elements of one output's
    weights, which is exact for linear layers and convolutions. Follows from shapes alone, so that results do not
    depend on what else the machine does.
    """
    if device.type != "cpu":
        return False
    names, parameters = dict(program.tensors), dict(model.named_parameters())
    rounded = {step.out: step.reads[0] for step in program.steps if step.site >= 0}
    most = 0.0
    for step in program.steps:
        for slot in step.reads if step.site < 0 else ():
            weight = parameters.get(names.get(rounded.get(slot, slot), ""))
            if weight is not None and weight.ndim >= 2:
                most = max(most, step.bytes_per_sample / weight.element_size() * weight.numel() / weight.shape[0])
    return most * batch_size < _WORTH_THREADS


@contextmanager
def on_one_thread(wanted: bool) -> Iterator[None]:
    """Run operators on one thread, if that is wanted; afterwards on as many as before."""
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pieces(num_samples: int, batch_size: int) -> list[slice]:
    """The samples in order, `batch_size` at a time."""
    bounds = [*range(0, num_samples, batch_size), num_samples]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def place(split: Split, model: nn.Module, device: torch.device) -> Split:
    """The split as the model takes it: on the device, floating-point inputs in the dtype of the model's parameters."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    inputs = tuple(x.to(device, dtype if x.is_floating_point() else None).contiguous() for x in split.inputs)
    return Split(inputs, split.targets.to(device))
