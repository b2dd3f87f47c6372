"""Latency: the one figure that needs the built model to run. A measurement, not a cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dovetail.errors import PricingError

__all__ = ["Latency", "measure_latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one forward pass takes.

    Args:
        median_ms: half of the passes took at most this long.
        p95_ms: 95 % of them did.
        std_ms: standard deviation.
        minimum_ms: the fastest.
        repeats: how many passes were timed.
        batch: samples in a pass.
        device: where it ran, in words.
        threads: threads that PyTorch uses on a CPU.
    """

    median_ms: float
    p95_ms: float
    std_ms: float
    minimum_ms: float
    repeats: int
    batch: int
    device: str
    threads: int

    @property
    def samples_per_second(self) -> float:
        """Throughput at the median."""
        return 1e3 * self.batch / self.median_ms


def measure_latency(
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    *,
    warm_up_s: float = 0.1,
    seconds: float = 0.5,
    min_repeats: int = 20,
    max_repeats: int = 10_000,
) -> Latency:
    """Time the forward pass of a model, without gradients.

    On a GPU each pass is timed by CUDA events and the device is synchronised before they are read; on a CPU by a
    monotonic clock. Run nothing else beside it: other trials would be measured with it. Modules are timed in the mode
    they are in.

    Args:
        model: a module, or any callable of the inputs.
        inputs: on the device where it is to run; the first dimension of the first tensor is the batch.
        warm_up_s: how long to run before timing; two passes at least.
        seconds: how long to time.
        min_repeats: time so many passes even if that takes longer.
        max_repeats: time no more than so many.

    Raises:
        PricingError: No input is a tensor, or inputs and parameters lie on several devices.

    Example:
        >>> latency = measure_latency(nn.Linear(4, 2), (torch.zeros(3, 4),), seconds=0.01)
        >>> latency.batch, latency.repeats >= 20
        (3, True)
    """
    if not 1 <= min_repeats <= max_repeats:
        raise PricingError(f"latency: repeats must be 1 <= min <= max, got {min_repeats} and {max_repeats}.")
    device = _device(model, inputs)
    time_pass = _time_on_gpu if device.type == "cuda" else _time_on_cpu
    with torch.inference_mode():
        _run_for(lambda: time_pass(model, inputs), warm_up_s, 2, max_repeats)
        times = np.array(_run_for(lambda: time_pass(model, inputs), seconds, min_repeats, max_repeats))
    batch = next(x.shape[0] if x.ndim else 1 for x in inputs if isinstance(x, Tensor))
    return Latency(
        median_ms=float(np.median(times)),
        p95_ms=float(np.percentile(times, 95)),
        std_ms=float(times.std(ddof=1)) if len(times) > 1 else 0.0,
        minimum_ms=float(times.min()),
        repeats=len(times),
        batch=int(batch),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        threads=torch.get_num_threads(),
    )


def _run_for(once: Callable[[], float], seconds: float, at_least: int, at_most: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < at_least or (time.perf_counter() < end and len(times) < at_most):
        times.append(once())
    return times


def _time_on_cpu(model: Callable[..., Any], inputs: tuple[Any, ...]) -> float:
    start = time.perf_counter_ns()
    model(*inputs)
    return (time.perf_counter_ns() - start) / 1e6


def _time_on_gpu(model: Callable[..., Any], inputs: tuple[Any, ...]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    model(*inputs)
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def _device(model: Callable[..., Any], inputs: tuple[Any, ...]) -> torch.device:
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if not tensors:
        raise PricingError("latency: inputs must hold a tensor, got none.")
    if isinstance(model, nn.Module):
        tensors += [*model.parameters(), *model.buffers()]
    devices = sorted({str(t.device) for t in tensors})
    if len(devices) > 1:
        raise PricingError(f"latency: inputs and parameters must be on one device, got {' and '.join(devices)}.")
    return tensors[0].device
