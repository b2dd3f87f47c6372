"""What each architecture takes to export, probe, price and resize: `python -m benchmarks.architectures [NAME ...]`.

The models are those of `tests/architectures.py`, as published (transformers: as deep, and narrow). Exporting is timed
beside loading the graph from the cache; probing beside all of the export that it is a part of; pricing every cost of
many random widths at once beside pricing one plan; resizing and quantising beside a deep copy of the model.
"""

from __future__ import annotations

import copy
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.row import Row
from dovetail.costs import CostModel
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.transforms import quantise, resize
from tests.architectures import ARCHITECTURES

PLANS = 100_000
REPEATS = 3


def rows(*, quick: bool) -> Iterator[Row]:
    """Every architecture; two of them where it is quick."""
    for name in ("resnet", "bert") if quick else ARCHITECTURES:
        yield from measure(name)


def measure(name: str) -> Iterator[Row]:
    """The lines of one architecture."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, inputs = ARCHITECTURES[name].full()
    with tempfile.TemporaryDirectory() as folder, probing() as probe_s:
        exported_s, graph = seconds(lambda: trace(model, inputs, cache=Path(folder)))
        cached_s, _ = seconds(lambda: trace(model, inputs, cache=Path(folder)))
    free = sum(group.frozen is None for group in graph.groups)
    size = f"{len(graph.operations)} operations, {free} of {len(graph.groups)} groups free"
    yield row(f"{name}, {size}: graph from the cache, beside its export", cached_s, exported_s, "s")
    yield row(f"{name}: probe, beside the whole export", sum(probe_s), exported_s, "s")
    yield pricing(name, graph)
    yield from building(name, graph, model)


def pricing(name: str, graph: Graph) -> Row:
    """Many plans at once beside one, closed forms compiled before."""
    costs = CostModel(graph, batch=1)
    rng = np.random.default_rng(0)
    widths = {
        g.name: g.multiple_of * rng.integers(1, 2 * g.base // g.multiple_of + 1, PLANS)
        for g in graph.groups
        if g.frozen is None
    }
    plan = Plan.of(widths={group: int(values[0]) for group, values in widths.items()})
    many_s = median(lambda: costs.price_arrays(widths, {}, PLANS))
    return row(
        f"{name}: every cost of a plan among {PLANS:,}, beside one by itself",
        1e6 * many_s / PLANS,
        1e6 * median(lambda: costs.price(plan)),
        "us",
    )


def building(name: str, graph: Graph, model: nn.Module) -> Iterator[Row]:
    """Candidates built, beside a deep copy."""
    free = [group for group in graph.groups if group.frozen is None]
    doubled = Plan.of(widths={g.name: 2 * g.base for g in free})
    halved = Plan.of(widths={g.name: max(g.base // 2 // g.multiple_of, 1) * g.multiple_of for g in free if g.base >= 2})
    formats = Plan.of(dict.fromkeys(graph.sites, parse("fixed(8,4)")))
    copied_s = median(lambda: copy.deepcopy(model))
    for what, build in {
        "widths doubled": lambda: resize(graph, model, doubled),
        "widths halved": lambda: resize(graph, model, halved),
        "all sites quantised": lambda: quantise(graph, model, formats),
    }.items():
        yield row(f"{name}: {what}, beside a deep copy", 1e3 * median(build), 1e3 * copied_s, "ms")


def row(work: str, measured: float, baseline: float, unit: str) -> Row:
    """A line without a target."""
    return Row(work=work, measured=measured, baseline=baseline, unit=unit, ratio=measured / baseline)


@contextmanager
def probing() -> Iterator[list[float]]:
    """Seconds of each probe that is done meanwhile."""
    module = sys.modules["dovetail.graph.trace"]
    probe, spent = vars(module)["probe"], []

    def timed(*args: Any) -> Any:
        took, result = seconds(lambda: probe(*args))
        spent.append(took)
        return result

    with mock.patch.object(module, "probe", timed):
        yield spent


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """By the clock, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def median(work: Callable[[], object]) -> float:
    """Seconds, of some runs after one to warm up."""
    work()
    gc.collect()
    return statistics.median(seconds(work)[0] for _ in range(REPEATS))


def main(names: list[str]) -> None:
    """Print the lines."""
    for name in names or ARCHITECTURES:
        for line in measure(name):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
