"""What evaluation costs beside its baselines: `python -m benchmarks evaluation`.

Baselines are measured in the same run, in turns with the work, and the figures are medians. The works
on ResNet-20 need the folder of real data (`DOVETAIL_DATA`, or `../shared/data` beside the checkout).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.cifar import images, trained_resnet20
from benchmarks.row import Row
from benchmarks.usual_loop import usual_loop
from dovetail.costs import CostModel
from dovetail.data import Split
from dovetail.evaluation import PtqEvaluator
from dovetail.formats import parse
from dovetail.graph import Graph, trace
from dovetail.models.jsc import JscThreeLinear, JscTiny
from dovetail.objective import Objective
from dovetail.plan import Plan, Site, SiteKind
from dovetail.search.problem import Problem
from dovetail.search.run import run_search
from dovetail.search.space import PrecisionRule, Space, build_space
from dovetail.search.strategies import make_strategy
from dovetail.study import BatchWriter, Study, StudyHeader

FORMATS = tuple(parse(text) for text in ("fixed(16,8)", "fixed(8,6)", "fixed(8,4)", "fixed(4,2)"))
DATA = Path(os.environ.get("DOVETAIL_DATA", Path(__file__).parents[2] / "shared" / "data"))


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


def search_all(graph: Graph, model: nn.Module, split: Split, space: Space, folder: Path) -> None:
    """A whole exhaustive search, from an evaluator still to be made to the last record in a new file of the folder."""
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
    header = StudyHeader(decisions=(), objectives=problem.objectives)
    file = folder / f"{uuid.uuid4().hex}.db"
    with Study.create(file, "benchmark", header) as study, BatchWriter(study.append) as writer:
        run = run_search(problem, make_strategy("brute-force", problem, None), evaluator, store=writer.put)
    assert run.new == space.size


@dataclass(frozen=True, slots=True)
class Seconds:
    """What a work takes: by the clock, and of the processor in all threads."""

    wall: float
    processor: float

    def __truediv__(self, count: int) -> Seconds:
        return Seconds(self.wall / count, self.processor / count)


def alternate(repeats: int, *works: Callable[[], Seconds]) -> list[Seconds]:
    """The medians of each work's figures, the works taking turns."""
    figures: list[list[Seconds]] = [[] for _ in works]
    for _ in range(repeats):
        for figure, work in zip(figures, works, strict=True):
            figure.append(work())
    return [median(figure) for figure in figures]


def median(figures: Sequence[Seconds]) -> Seconds:
    """The median of either figure."""
    return Seconds(statistics.median(s.wall for s in figures), statistics.median(s.processor for s in figures))


def seconds(work: Callable[[], object]) -> Seconds:
    """What a work takes."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def float_pass(model: nn.Module, inputs: torch.Tensor, batch_size: int) -> Callable[[], Seconds]:
    """A plain forward pass over all samples, to be timed."""

    @torch.inference_mode()
    def run() -> None:
        for part in inputs.split(batch_size):
            model(part)

    return lambda: seconds(run)


def jsc_rows(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Exhaustive searches of a small network, their studies in a folder."""
    samples = 10_000
    model, split = JscThreeLinear().eval(), blobs(samples, 16, 5)
    graph = trace(model, (split.inputs[0][:2],))
    space = layer_space(graph)
    plans = [space.plan(space.row_at(i)) for i in np.random.default_rng(0).choice(space.size, 3 if quick else 8)]
    passes = float_pass(model, split.inputs[0], samples)
    ours, loop, forward = alternate(
        1 if quick else 3,
        lambda: seconds(lambda: search_all(graph, model, split, space, folder)) / space.size,
        lambda: seconds(lambda: usual_loop(model, plans, *split.inputs, split.targets, 5)) / len(plans),
        lambda: median([passes() for _ in range(50)]),
    )
    work = f"exhaustive, jsc-three-linear, {space.size:,} plans x {samples:,} samples"
    yield Row(
        work=f"{work}: usual loop",
        measured=1 / ours.wall,
        baseline=1 / loop.wall,
        unit="plans/s",
        ratio=loop.wall / ours.wall,
        target=150,
        at_least=True,
        processor_ratio=loop.processor / ours.processor,
    )
    yield Row(
        work=f"{work}: float passes",
        measured=ours.wall * 1e3,
        baseline=forward.wall * 1e3,
        unit="ms",
        ratio=ours.wall / forward.wall,
        target=0.5,
        processor_ratio=ours.processor / forward.processor,
    )


class FirstSearch:
    """What a user tries first: all 16 plans of jsc-tiny on 512 samples. Measured in the process that makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, self.split = JscTiny().eval(), blobs(512, 16, 5)
        self.graph = trace(self.model, (self.split.inputs[0][:2],))
        self.space = layer_space(self.graph)
        self.plans = [self.space.plan(self.space.row_at(i)) for i in range(self.space.size)]

    def search(self) -> Seconds:
        """Our search, store included."""
        return seconds(lambda: search_all(self.graph, self.model, self.split, self.space, self.folder))

    def loop(self) -> Seconds:
        """The usual loop."""
        return seconds(lambda: usual_loop(self.model, self.plans, *self.split.inputs, self.split.targets, 5))


def search_first(folder: Path) -> Seconds:
    """A process's first search."""
    return FirstSearch(folder).search()


def loop_first(folder: Path) -> Seconds:
    """A process's first loop."""
    return FirstSearch(folder).loop()


def in_new_process(work: Callable[[Path], Seconds], folder: Path) -> Seconds:
    """What a work takes in a process that has done nothing before it but import."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, folder).result()


def tiny_rows(folder: Path, *, quick: bool) -> Iterator[Row]:
    """A first search of the smallest network: again, and in a process that has searched nothing yet."""
    case = FirstSearch(folder)
    warm = alternate(3 if quick else 11, case.search, case.loop)
    cold = alternate(
        1 if quick else 5, lambda: in_new_process(search_first, folder), lambda: in_new_process(loop_first, folder)
    )
    work = "exhaustive, jsc-tiny, 16 plans x 512 samples"
    for name, (ours, loop), target in ((work, warm, 10.0), (f"{work}, in a new process", cold, None)):
        yield Row(
            work=f"{name}: usual loop",
            measured=16 / ours.wall,
            baseline=16 / loop.wall,
            unit="plans/s",
            ratio=loop.wall / ours.wall,
            target=target,
            at_least=True,
            processor_ratio=loop.processor / ours.processor,
        )


def resnet_rows(*, quick: bool) -> Iterator[Row]:
    """Random and exhaustive plans of a trained ResNet-20 on CIFAR-10 test images."""
    x, y = images(DATA, "test", 500 if quick else 2_000)
    model, split = trained_resnet20(DATA), Split((x,), y)
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
    best = min(sizes, key=lambda size: min(float_pass(model, split.inputs[0][:400], size)().wall for _ in range(3)))
    forward, alone, shared = alternate(
        1 if quick else 3,
        float_pass(model, split.inputs[0], best),
        lambda: seconds(lambda: list(PtqEvaluator(graph, model, split).evaluate(drawn))) / len(drawn),
        lambda: seconds(lambda: list(PtqEvaluator(graph, model, split).evaluate(last))) / len(last),
    )
    work = f"ResNet-20, {len(split):,} images"
    for name, figure, target in (
        (f"{len(drawn)} random plans", alone, 1.5),
        (f"exhaustive, last 4 convolutions, {len(last)} plans", shared, 0.25),
    ):
        yield Row(
            work=f"{work}, {name}: float passes (batch {best})",
            measured=figure.wall,
            baseline=forward.wall,
            unit="s",
            ratio=figure.wall / forward.wall,
            target=target,
            processor_ratio=figure.processor / forward.processor,
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
        target=(budget + 200 * mib) / budget,
    )


def rows(*, quick: bool) -> Iterator[Row]:
    """Every line; the memory first, while this process has used little."""
    yield memory_row()
    with tempfile.TemporaryDirectory() as folder:
        yield from jsc_rows(Path(folder), quick=quick)
        yield from tiny_rows(Path(folder), quick=quick)
    if DATA.is_dir():
        yield from resnet_rows(quick=quick)
