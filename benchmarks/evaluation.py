"""What evaluation costs beside its baselines: `python -m benchmarks.evaluation`.

Baselines are measured in the same run, in turns with the work, and the figures are medians. One table, and the same as
JSON lines with `work, measured, baseline, ratio, target`. `--quick` shortens every work; `--only` picks some by name.
The works on ResNet-20 need the folder of real data (`DOVETAIL_DATA`, or `../shared/data` beside the checkout).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.usual_loop import usual_loop
from dovetail.costs import CostModel
from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.models import load_checkpoint
from dovetail.models.jsc import JscThreeLinear, JscTiny
from dovetail.models.resnet import ResNet20
from dovetail.objective import Objective
from dovetail.plan import Plan, Site, SiteKind
from dovetail.search.problem import Problem
from dovetail.search.run import run_search
from dovetail.search.space import PrecisionRule, Space, build_space
from dovetail.search.strategies import make_strategy
from dovetail.study import BatchWriter, Study, StudyHeader

FORMATS = tuple(parse(text) for text in ("fixed(16,8)", "fixed(8,6)", "fixed(8,4)", "fixed(4,2)"))
DATA = Path(os.environ.get("DOVETAIL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        work: what was done.
        measured: its figure.
        baseline: the same figure of what it is compared with.
        unit: of both.
        ratio: measured over baseline.
        target: what the ratio should be.
    """

    work: str
    measured: float
    baseline: float
    unit: str
    ratio: float
    target: str


def layer_space(graph: Graph) -> Space:
    """Every linear layer: four formats for its data, four for its weight."""
    return build_space(graph, [PrecisionRule(operations="linear", data_in=FORMATS, weight=FORMATS)])


def blobs(samples: int, features: int, classes: int) -> Split:
    """Made-up data of a size; what the values are does not change the work."""
    generator = torch.Generator().manual_seed(0)
    return Split(
        (torch.randn(samples, features, generator=generator),),
        torch.randint(0, classes, (samples,), generator=generator),
    )


def search_all(graph: Graph, model: nn.Module, split: Split, space: Space) -> float:
    """Seconds for a whole exhaustive search, from an evaluator still to be made to the last stored record."""
    began = time.perf_counter()
    evaluator = PtqEvaluator(graph, model, split)
    costs = CostModel(graph, batch=1)
    problem = Problem(
        space,
        (
            Objective(name="accuracy", direction="maximize"),
            Objective(name="average_bitwidth", direction="minimize", is_cost=True),
        ),
        lambda rows: costs.price_rows(space, rows, names=["average_bitwidth"]),
    )
    with tempfile.TemporaryDirectory() as folder:
        header = StudyHeader(decisions=(), objectives=problem.objectives)
        with Study.create(Path(folder) / "study.db", "benchmark", header) as study, BatchWriter(study.append) as writer:
            run = run_search(problem, make_strategy("brute-force", problem, None), evaluator, store=writer.put)
    assert run.new == space.size
    return time.perf_counter() - began


def alternate(repeats: int, *works: Callable[[], float]) -> list[float]:
    """The median of each work's figures, the works taking turns."""
    figures: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for figure, work in zip(figures, works, strict=True):
            figure.append(work())
    return [statistics.median(figure) for figure in figures]


def seconds(work: Callable[[], object]) -> float:
    """Seconds that a work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def float_pass(model: nn.Module, inputs: torch.Tensor, batch_size: int) -> Callable[[], float]:
    """A plain forward pass over all samples, to be timed."""

    @torch.inference_mode()
    def run() -> None:
        for part in inputs.split(batch_size):
            model(part)

    return lambda: seconds(run)


def jsc_rows(*, quick: bool) -> Iterator[Row]:
    """Exhaustive searches of the two small networks."""
    samples = 10_000
    model, split = JscThreeLinear().eval(), blobs(samples, 16, 5)
    graph = trace(model, (split.inputs[0][:2],))
    space = layer_space(graph)
    plans = [space.plan(space.row_at(i)) for i in np.random.default_rng(0).choice(space.size, 3 if quick else 8)]
    passes = float_pass(model, split.inputs[0], samples)
    ours, loop, forward = alternate(
        1 if quick else 3,
        lambda: search_all(graph, model, split, space) / space.size,
        lambda: seconds(lambda: usual_loop(model, plans, *split.inputs, split.targets, 5)) / len(plans),
        lambda: statistics.median(passes() for _ in range(50)),
    )
    work = f"exhaustive, jsc-three-linear, {space.size:,} plans x {samples:,} samples"
    yield Row(
        work=f"{work}: usual loop",
        measured=1 / ours,
        baseline=1 / loop,
        unit="plans/s",
        ratio=loop / ours,
        target=">= 150",
    )
    yield Row(
        work=f"{work}: float passes",
        measured=ours * 1e3,
        baseline=forward * 1e3,
        unit="ms",
        ratio=ours / forward,
        target="<= 0.5",
    )
    tiny, small = JscTiny().eval(), blobs(512, 16, 5)
    graph = trace(tiny, (small.inputs[0][:2],))
    space = layer_space(graph)
    plans = [space.plan(space.row_at(i)) for i in range(space.size)]
    ours, loop = alternate(
        3 if quick else 11,
        lambda: search_all(graph, tiny, small, space),
        lambda: seconds(lambda: usual_loop(tiny, plans, *small.inputs, small.targets, 5)),
    )
    yield Row(
        work="exhaustive, jsc-tiny, 16 plans x 512 samples: usual loop",
        measured=16 / ours,
        baseline=16 / loop,
        unit="plans/s",
        ratio=loop / ours,
        target=">= 10",
    )


def resnet20(samples: int) -> tuple[nn.Module, Split]:
    """The trained network and test images."""
    model = ResNet20().eval()
    load_checkpoint(model, DATA / "resnet20-cifar10.safetensors")
    with np.load(DATA / "cifar10.npz", allow_pickle=False) as file:
        x = torch.from_numpy(file["x_test"][:samples]).permute(0, 3, 1, 2).float().div_(255)
        y = torch.from_numpy(file["y_test"][:samples]).long()
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    return model, Split((x.sub_(mean.view(1, 3, 1, 1)).div_(deviation.view(1, 3, 1, 1)).contiguous(),), y)


def resnet_rows(*, quick: bool) -> Iterator[Row]:
    """Random and exhaustive plans of a trained ResNet-20 on CIFAR-10 test images."""
    model, split = resnet20(500 if quick else 2_000)
    graph = trace(model, (split.inputs[0][:2],))
    convolutions = [operation.name for operation in graph.select("conv2d")]
    formats = tuple(parse(text) for text in ("fixed(16,10)", "fixed(12,8)", "fixed(8,5)", "fixed(8,4)"))
    rng = random.Random(0)

    def plan(chosen: dict[str, int]) -> Plan:
        kinds = (SiteKind.DATA_IN, SiteKind.WEIGHT)
        return Plan.of({Site(name, kind): formats[i] for name, i in chosen.items() for kind in kinds})

    drawn = [plan({name: rng.randrange(4) for name in convolutions}) for _ in range(1 if quick else 3)]
    last = [plan(dict(zip(convolutions[-4:], its, strict=True))) for its in itertools.product(range(4), repeat=4)]
    last = last[: 32 if quick else 256]
    sizes = (25, 50, 100, 200)
    best = min(sizes, key=lambda size: min(float_pass(model, split.inputs[0][:400], size)() for _ in range(3)))
    forward, alone, shared = alternate(
        1 if quick else 3,
        float_pass(model, split.inputs[0], best),
        lambda: seconds(lambda: list(PtqEvaluator(graph, model, split).evaluate(drawn))) / len(drawn),
        lambda: seconds(lambda: list(PtqEvaluator(graph, model, split).evaluate(last))) / len(last),
    )
    work = f"ResNet-20, {len(split):,} images"
    for name, figure, target in (
        (f"{len(drawn)} random plans", alone, "<= 1.5"),
        (f"exhaustive, last 4 convolutions, {len(last)} plans", shared, "<= 0.25"),
    ):
        yield Row(
            work=f"{work}, {name}: float passes (batch {best})",
            measured=figure,
            baseline=forward,
            unit="s",
            ratio=figure / forward,
            target=target,
        )


def memory_row() -> Row:
    """The most memory above that before any work, under a budget of 256 MiB, in a process of its own kind of work."""
    budget = 256 << 20
    model, split = JscThreeLinear().eval(), blobs(10_000, 16, 5)
    graph = trace(model, (split.inputs[0][:2],))
    space = layer_space(graph)
    plans = [space.plan(space.row_at(i)) for i in range(1024)]
    evaluator = PtqEvaluator(graph, model, split, memory_budget=budget)
    list(evaluator.evaluate(plans[:8]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    list(evaluator.evaluate(plans))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    mib = 1 << 20
    return Row(
        work="peak memory, 1,024 plans of jsc-three-linear",
        measured=used / mib,
        baseline=budget / mib,
        unit="MiB",
        ratio=used / budget,
        target="<= budget + 200 MiB",
    )


WORKS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "memory": lambda quick: iter([memory_row()]),
    "jsc": lambda quick: jsc_rows(quick=quick),
    "resnet": lambda quick: resnet_rows(quick=quick),
}


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--only", choices=[*WORKS], nargs="*", default=[*WORKS])
    options = arguments.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    rows = []
    for name in options.only:
        if name == "resnet" and not DATA.is_dir():
            print(f"{name}: left out, there is no {DATA}")
            continue
        for row in WORKS[name](options.quick):
            rows.append(row)
            print(
                f"{row.work:90} {row.measured:10.3f} {row.baseline:10.3f} {row.unit:8} {row.ratio:8.2f}  {row.target}",
                flush=True,
            )
    for row in rows:
        print(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
