"""In which pieces data goes through a model."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from dovetail.data import Split
from dovetail.evaluation.program import Program

__all__ = ["default_batch_size", "pieces", "place"]

# The largest value of one batch. On CPUs it should stay in the last-level cache beside what is computed from it: on a
# ResNet-20 (64 KiB a sample) batches of 40 to 100 are fastest. GPUs need more work at a time.
_BYTES_AT_A_TIME = {"cpu": 5 << 20, "cuda": 256 << 20}


def default_batch_size(program: Program, num_samples: int, device: torch.device) -> int:
    """Samples at a time: as many as keep the largest value of the model within 5 MiB (256 MiB on a GPU)."""
    limit = _BYTES_AT_A_TIME.get(device.type, _BYTES_AT_A_TIME["cuda"])
    return min(num_samples, max(1, int(limit // max(1.0, program.largest_bytes_per_sample))))


def pieces(num_samples: int, batch_size: int) -> list[slice]:
    """The samples in order, `batch_size` at a time."""
    bounds = [*range(0, num_samples, batch_size), num_samples]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def place(split: Split, model: nn.Module, device: torch.device) -> Split:
    """The split as the model takes it: on the device, floating-point inputs in the dtype of the model's parameters."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    inputs = tuple(x.to(device, dtype if x.is_floating_point() else None).contiguous() for x in split.inputs)
    return Split(inputs, split.targets.to(device))
