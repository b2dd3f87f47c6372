"""What resizing and quantising cost: milliseconds per candidate, beside a plain deep copy of the model.

Run: python -m benchmarks.resize
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.plan import Plan
from dovetail.transforms import quantise, resize
from dovetail.transforms.propagate import find_channels

REPEATS = 9


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def small_mlp() -> nn.Module:
    layers = [nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 5)]
    return nn.Sequential(nn.BatchNorm1d(16), nn.ReLU(), *layers)


def residual(blocks: int) -> nn.Module:
    stem, head = [nn.Conv2d(3, 32, 3, padding=1)], [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*stem, *(Block(32) for _ in range(blocks)), *head)


def milliseconds(work: Callable[[], object]) -> float:
    """Median over the repeats, after one run to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def works(graph: Graph, model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    free = [g for g in graph.groups if g.frozen is None]
    grow, shrink = (Plan.of(widths={g.name: int(g.base * factor) for g in free}) for factor in (2, 0.5))
    formats = Plan.of(dict.fromkeys(graph.sites, parse("fixed(8,4)")))
    quantised = quantise(graph, model, formats)
    return {
        "copy": lambda: copy.deepcopy(model),
        "grow": lambda: resize(graph, model, grow),
        "shrink": lambda: resize(graph, model, shrink),
        "fresh": lambda: resize(graph, model, grow, weights="initialise"),
        "quantise": lambda: quantise(graph, model, formats),
        "forward": lambda: model(x),
        "quantised forward": lambda: quantised(x),
    }


def rows(*, quick: bool) -> Iterator[Row]:
    """Building a candidate beside a deep copy; running it beside the float model."""
    torch.manual_seed(0)
    for name, (model, x) in list(examples().items())[: 2 if quick else None]:
        with torch.no_grad():
            its = {key: milliseconds(work) for key, work in works(trace(model, (x,)), model, x).items()}
        for key, base in (
            ("grow", "copy"),
            ("shrink", "copy"),
            ("fresh", "copy"),
            ("quantise", "copy"),
            ("quantised forward", "forward"),
        ):
            yield Row(
                work=f"{name}, {key}: {base}",
                measured=its[key],
                baseline=its[base],
                unit="ms",
                ratio=its[key] / its[base],
            )


def examples() -> dict[str, tuple[nn.Module, Tensor]]:
    """The networks, with inputs."""
    return {
        "three-linear": (small_mlp().eval(), torch.randn(512, 16)),
        "residual-4": (residual(4).eval(), torch.randn(8, 3, 32, 32)),
        "residual-16": (residual(16).eval(), torch.randn(8, 3, 32, 32)),
    }


def measure(name: str, model: nn.Module, x: Tensor) -> None:
    start = time.perf_counter()
    graph = trace(model, (x,))
    traced = time.perf_counter() - start
    start = time.perf_counter()
    find_channels(graph)
    walked = 1e3 * (time.perf_counter() - start)
    with torch.no_grad():
        row = [milliseconds(work) for work in works(graph, model, x).values()]
    print(f"{name:<14}{traced:>9.2f}{walked:>10.1f}" + "".join(f"{value:>11.2f}" for value in row))


def main() -> None:
    torch.manual_seed(0)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    columns = ["copy ms", "grow ms", "shrink ms", "fresh ms", "quant. ms", "forward ms", "q.fwd ms"]
    print(f"{'model':<14}{'trace s':>9}{'walk ms':>10}" + "".join(f"{column:>11}" for column in columns))
    for name, (model, x) in examples().items():
        measure(name, model, x)


if __name__ == "__main__":
    main()
