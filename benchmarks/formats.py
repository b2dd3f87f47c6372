"""How long rounding takes, next to a plain copy: `python -m benchmarks.formats`.

One thread, and its processor time, not the clock's: other work on the machine counts less. For each size, all formats
and `clone` take turns; the table shows medians in ms and the ratio to clone's median in the same run. Targets: fixed
point within 2.5, small floats within 6, block formats within 8 times a clone.

`--memory` also counts the temporaries of one call, in units of the input's size.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.row import Row
from dovetail.formats import parse

TARGETS = {
    "clone": 1.0,
    "fixed(8,4)": 2.5,
    "fixed(16,8)": 2.5,
    "float16": 6.0,
    "bfloat16": 6.0,
    "minifloat_ieee(8,4,7)": 6.0,
    "minifloat_denorm(8,4,7)": 6.0,
    "E4M3FN": 6.0,
    "E5M2": 6.0,
    "E3M2FN": 6.0,
    "E2M3FN": 6.0,
    "E2M1FN": 6.0,
    "mxint8": 8.0,
    "mxfp8_e4m3": 8.0,
    "mxfp6_e3m2": 8.0,
    "mxfp4": 8.0,
    "nvfp4": 8.0,
    "block_fp(8,8,127)": 8.0,
    "block_minifloat(8,4,8)": 8.0,
    "block_log(4,8)": 8.0,
    "int(8)": 6.0,
    "log(8,63)": 6.0,
    "binary": 6.0,
    "ternary(mean)": 6.0,
}

CALLS = 4
"""Calls of one function in its turn."""


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--memory", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread, float32, medians")
    functions = {text: rounding(text) for text in TARGETS}
    columns = [measure(functions, 1 << bits, options.repeats) for bits in (20, 24)]
    print(f"{'format':26}{'1 M ms':>9}{'x clone':>9}{'16 M ms':>9}{'x clone':>9}{'target':>8}")
    for text, target in TARGETS.items():
        cells = "".join(f"{times[text]:9.2f}{times[text] / times['clone']:9.2f}" for times in columns)
        worst = max(times[text] / times["clone"] for times in columns)
        memory = f"{temporaries(functions[text]):8.2f} temporaries" if options.memory else ""
        print(f"{text:26}{cells}{target:8.1f}{'' if worst <= target else '  over'}{memory}")


def rows(*, quick: bool) -> Iterator[Row]:
    """Each format's median beside clone's, by the processor time of one thread."""
    torch.set_num_threads(1)
    functions = {text: rounding(text) for text in TARGETS}
    for bits in (20,) if quick else (20, 24):
        times = measure(functions, 1 << bits, 2 if quick else 5)
        for text, target in TARGETS.items():
            if text != "clone":
                yield Row(
                    work=f"rounding {1 << bits >> 20} M float32 to {text}, one thread: clone",
                    measured=times[text],
                    baseline=times["clone"],
                    unit="ms",
                    ratio=times[text] / times["clone"],
                    target=target,
                )


def rounding(text: str) -> Callable[[Tensor], Tensor]:
    """What is timed: clone, or a calibrated format's quantise."""
    if text == "clone":
        return torch.clone
    return parse(text).calibrate(torch.randn(10_000)).quantise


def measure(functions: dict[str, Callable[[Tensor], Tensor]], size: int, repeats: int) -> dict[str, float]:
    """Median ms of each function on a tensor of so many elements."""
    x = torch.randn(size // 4096, 4096, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {text: [] for text in functions}
    for turn in range(repeats + 1):
        for text, function in functions.items():
            for call in range(CALLS):
                begin = time.thread_time()
                result = function(x)
                elapsed = time.thread_time() - begin
                del result
                if turn and call:  # the first turn and the first call warm up: code, caches, the allocator's pages
                    times[text].append(elapsed * 1e3)
    return {text: statistics.median(values) for text, values in times.items()}


def temporaries(function: Callable[[Tensor], Tensor]) -> float:
    """Peak memory of one call beyond its result, in units of the input's size."""
    x = torch.randn(1 << 22)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as session:
        result = function(x)
    del result
    live = peak = 0
    for event in session.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak / (x.numel() * 4) - 1


if __name__ == "__main__":
    main()
