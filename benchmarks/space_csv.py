"""How long `dovetail space --csv` takes once the graph is there: a million plans of a ResNet-18, priced and written.

    python -m benchmarks.space_csv

Three spaces of ten decisions with four choices each, 1,048,576 plans: widths; formats; and both at once. Times hold the
compiling of the closed forms; each is the best of three by wall clock. Memory is how far the process's peak rose, so
later rows tell only what they took beyond earlier ones. The baseline of the last row is `csv.writer`, a cell at a time,
over the same prices.
"""

from __future__ import annotations

import csv
import importlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import torch

from benchmarks.row import Row
from dovetail.costs import COSTS, CostModel
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.search.space import PrecisionRule, Space, WidthRule, build_space
from dovetail.space_csv import write_priced_space

ALLOWED_S = 2.0
"""For a million plans, on two idle cores."""

BITS = ("fixed(4,2)", "fixed(6,3)", "fixed(8,4)", "fixed(16,8)")
MULTIPLIERS = (Fraction(1, 2), Fraction(3, 4), Fraction(1), Fraction(2))


def rows(*, quick: bool) -> Iterator[Row]:
    """A million plans beside the two seconds they may take, a quarter of both where it is quick; and `csv.writer`."""
    decisions = 9 if quick else 10
    graph = resnet18()
    for name, space in spaces(graph, decisions).items():
        allowed_s = ALLOWED_S * space.size / 2**20
        wall_s, processor_s, file_mb, grown_mb = measure(write_priced_space, graph, space)
        yield Row(
            work=f"space --csv, {space.size:,} plans written ({name}, {file_mb:.0f} MB; peak +{grown_mb:.0f} MB)",
            measured=wall_s,
            baseline=allowed_s,
            unit="s",
            ratio=wall_s / allowed_s,
            target=1.0,
            processor_ratio=processor_s / allowed_s,
        )
    space = spaces(graph, 8)["both"]
    wall_s, processor_s, *_ = measure(write_priced_space, graph, space)
    slow_s, slow_processor_s, *_ = measure(write_slowly, graph, space)
    yield Row(
        work=f"space --csv, {space.size:,} plans written (both): csv.writer",
        measured=wall_s,
        baseline=slow_s,
        unit="s",
        ratio=wall_s / slow_s,
        processor_ratio=processor_s / slow_processor_s,
    )


def resnet18() -> Graph:
    """Of pytorchcv, at 224 x 224."""
    network = importlib.import_module("pytorchcv.models.resnet").resnet18()
    return trace(network.eval(), (torch.zeros(2, 3, 224, 224),))


def spaces(graph: Graph, decisions: int) -> dict[str, Space]:
    """Spaces of so many decisions, with four choices each."""
    options = tuple(parse(text) for text in BITS)
    free = [group.name for group in graph.groups if group.frozen is None]
    layers = [op.name for op in graph.operations if op.type in ("conv2d", "linear")]
    half = decisions // 2
    widths = [WidthRule(groups=name, multipliers=MULTIPLIERS) for name in free]
    weights = [PrecisionRule(operations=name, weight=options) for name in layers]
    inputs = [PrecisionRule(operations=name, weight=options, data_in=options) for name in layers]
    return {
        "widths": build_space(graph, width=widths[:decisions]),
        "formats": build_space(graph, precision=[*inputs[:half], *weights[half : decisions - half]]),
        "both": build_space(graph, precision=weights[:half], width=widths[: decisions - half]),
    }


def measure(
    write: Callable[[Space, CostModel, Path], object], graph: Graph, space: Space
) -> tuple[float, float, float, float]:
    """Seconds by wall clock and of processor, best of three; megabytes of the file and of the peak's rise."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "space.csv"
        for _ in range(3):
            costs = CostModel(graph, batch=1)
            _ = costs.ledger
            wall, processor = time.perf_counter(), time.process_time()
            write(space, costs, path)
            times.append((time.perf_counter() - wall, time.process_time() - processor))
        file_mb = path.stat().st_size / 1e6
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1e3
    return *min(times), file_mb, grown_mb


def write_slowly(space: Space, costs: CostModel, path: Path) -> None:
    """Priced in bulk, written a cell at a time."""
    plans = space.rows()
    prices = space.price(costs, plans, list(COSTS))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(d.name for d in space.decisions), *COSTS])
        figures = zip(*(prices[name].tolist() for name in COSTS), strict=True)
        for row, line in zip(plans.tolist(), figures, strict=True):
            cells = [int(x) if x.is_integer() else x for x in line]
            writer.writerow([*(d.labels[c] for d, c in zip(space.decisions, row, strict=True)), *cells])


def main() -> None:
    """Print the rows, and the load they were measured under."""
    for row in rows(quick=False):
        print(f"{row}  load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)


if __name__ == "__main__":
    main()
