"""How long a million plans take to price, and in how much memory.

    python -m benchmarks.pricing [--plans N] [--network resnet18|resnet50] [--json FILE]

The network is pytorchcv's, at 224 x 224. Three spaces over it: widths of every group that can change; formats of every
convolution and linear layer, each tensor its own decision; and both at once. Every cost of the table is priced. Times
are those of `price_arrays` alone, with the closed forms compiled anew; the best of three by wall clock, the
processor's time beside it. Memory is the most that was allocated above the arrays that hold the plans and the prices.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.row import Row
from dovetail.costs import COSTS, CostModel
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan, Site

BITS = ("fixed(4,2)", "fixed(6,3)", "fixed(8,4)", "fixed(16,8)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=1_000_000)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    start = time.perf_counter()
    network = getattr(importlib.import_module("pytorchcv.models.resnet"), arguments.network)()
    graph = trace(network.eval(), (torch.zeros(2, 3, 224, 224),))
    export_s = time.perf_counter() - start
    costs = CostModel(graph, batch=1)
    start = time.perf_counter()
    _ = costs.ledger
    ledger_s = time.perf_counter() - start
    print(f"{arguments.network}: export {export_s:.1f} s, ledger {ledger_s:.2f} s, {len(COSTS)} costs, {machine()}")
    results = [
        measure(costs, name, widths, formats, arguments.plans)
        for name, (widths, formats) in spaces(graph, arguments.plans).items()
    ]
    for result in results:
        print(
            f"{result['space']:>8}: {result['decisions']:3d} decisions, {result['plans']:,} plans "
            f"in {result['wall_s']:.2f} s ({result['processor_s']:.2f} s of processor), "
            f"{result['extra_mb']:.0f} MB; one plan by `price` {result['one_ms']:.1f} ms"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))


def rows(*, quick: bool) -> Iterator[Row]:
    """A million plans of a ResNet-18 beside the two seconds they may take; a tenth of both where it is quick."""
    plans, allowed_s = (100_000, 0.2) if quick else (1_000_000, 2.0)
    network = importlib.import_module("pytorchcv.models.resnet").resnet18()
    graph = trace(network.eval(), (torch.zeros(2, 3, 224, 224),))
    costs = CostModel(graph, batch=1)
    for name, (widths, formats) in spaces(graph, plans).items():
        result = measure(costs, name, widths, formats, plans)
        yield Row(
            work=f"every cost of {plans:,} plans of resnet18, {name}: the time allowed",
            measured=result["wall_s"],
            baseline=allowed_s,
            unit="s",
            ratio=result["wall_s"] / allowed_s,
            target=1.0,
            processor_ratio=result["processor_s"] / allowed_s,
        )


def spaces(graph: Graph, plans: int) -> dict[str, tuple[dict[str, Any], dict[Site, Any]]]:
    """Random plans of each space, as the arrays that `price_arrays` takes."""
    rng = np.random.default_rng(0)
    free = [group for group in graph.groups if group.frozen is None]
    widths = {g.name: rng.choice([g.base // 2, g.base, 2 * g.base], plans) for g in free}
    options = tuple(parse(text) for text in BITS)
    sites = [s for op in graph.operations if op.type in ("conv2d", "linear") for s in op.all_sites]
    formats = {site: (options, rng.integers(0, len(options), plans)) for site in sites}
    return {"widths": (widths, {}), "formats": ({}, formats), "both": (widths, formats)}


def measure(
    costs: CostModel, name: str, widths: Mapping[str, Any], formats: Mapping[Site, Any], plans: int
) -> dict[str, Any]:
    """The best of three runs, checked against plans priced one by one."""
    times = []
    for _ in range(3):
        fresh = CostModel(costs.graph, costs.batch)
        _ = fresh.ledger
        wall, processor = time.perf_counter(), time.process_time()
        prices = fresh.price_arrays(widths, formats, plans)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    tracemalloc.start()
    fresh.price_arrays(widths, formats, plans)
    extra = tracemalloc.get_traced_memory()[1] - len(COSTS) * plans * 8
    tracemalloc.stop()
    start = time.perf_counter()
    for row in (0, plans // 2, plans - 1):
        chosen = {site: options[index[row]] for site, (options, index) in formats.items()}
        plan = Plan.of(chosen, {group: int(values[row]) for group, values in widths.items()})
        assert all(cost.value == prices[cost.name][row] for cost in costs.price(plan).values())
    one_ms = (time.perf_counter() - start) / 3 * 1e3
    wall_s, processor_s = min(times)
    return {
        "space": name,
        "decisions": len(widths) + len(formats),
        "plans": plans,
        "wall_s": wall_s,
        "processor_s": processor_s,
        "extra_mb": extra / 1e6,
        "one_ms": one_ms,
    }


def machine() -> str:
    """Where this ran."""
    return f"{platform.machine()}, torch {torch.__version__}, NumPy {np.__version__}"


if __name__ == "__main__":
    main()
