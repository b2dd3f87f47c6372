"""Training many width plans at once, beside training them one after another: `python -m benchmarks.training`.

The work: 25 plans of jsc-three-linear (multipliers 1, 2, 3, 4, 6 for each hidden layer), 10 epochs each on 8,000
samples, from plan to score, side by side in worker processes of one core each. Baselines, in turns with the work: the
same plans one after another through the same evaluator, on all of torch's threads and on one; and through the loop that
is usually written (a DataLoader, AdamW with its defaults). Wall time in seconds, and the processor's time, workers
included, which other work on the machine disturbs less: two cores then give twice its ratio at most.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.row import Row
from dovetail.data import Dataset, Split
from dovetail.evaluation.train_evaluator import TrainEvaluator
from dovetail.graph import trace
from dovetail.models.jsc import JscThreeLinear
from dovetail.plan import Plan
from dovetail.settings import TrainConfig

MULTIPLIERS = (1, 2, 3, 4, 6)
TARGET = 3.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[512])
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    found = [
        row for size in options.batch_size for row in measure(size, options.epochs, options.repeats, options.workers)
    ]
    for row in found:
        print(row)


def rows(*, quick: bool) -> Iterator[Row]:
    """Batches of 512, five minutes; where it is quick, two epochs, once. Smaller ones take longer: `--batch-size`."""
    yield from measure(512, 2 if quick else 10, 1 if quick else 3, 2)


def measure(batch_size: int, epochs: int, repeats: int, workers: int) -> list[Row]:
    """The work at one batch size beside both baselines."""
    dataset = blobs()
    model = JscThreeLinear().eval()
    graph = trace(model, (dataset.train.inputs[0][:2],))
    plans = [
        Plan.of({}, {"seq_blocks.2": 32 * a, "seq_blocks.4": 64 * b})
        for a, b in itertools.product(MULTIPLIERS, repeat=2)
    ]
    config = TrainConfig(epochs=epochs, learning_rate=1e-2)

    def evaluate(config: TrainConfig, workers: int) -> Callable[[], object]:
        evaluator = TrainEvaluator(graph, model, dataset, config, ("accuracy",), batch_size=batch_size, workers=workers)
        return lambda: list(evaluator.evaluate(plans))

    works = {
        "side by side": evaluate(replace(config, stacked=True), workers),
        "one after another": evaluate(config, 1),
        "one after another on one thread": on_one_thread(evaluate(config, 1)),
        "the usual loop": lambda: [usual_loop(plan, dataset, config, batch_size) for plan in plans],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), processor_time()
            work()
            times[name].append((time.perf_counter() - wall, processor_time() - cpu))
    wall = {name: statistics.median(w for w, _ in found) for name, found in times.items()}
    cpu = {name: statistics.median(c for _, c in found) for name, found in times.items()}
    return [
        Row(
            work=f"25 width plans, batches of {batch_size}, against {name}",
            measured=wall["side by side"],
            baseline=wall[name],
            unit="s",
            ratio=wall[name] / wall["side by side"],
            target=TARGET,
            at_least=True,
            processor_ratio=cpu[name] / cpu["side by side"],
        )
        for name in works
        if name != "side by side"
    ]


def on_one_thread(work: Callable[[], object]) -> Callable[[], object]:
    """The same work with one thread for torch's operators."""

    def limited() -> object:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work()
        finally:
            torch.set_num_threads(threads)

    return limited


def processor_time() -> float:
    """Seconds that this process and its ended children have had of all cores."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def usual_loop(plan: Plan, dataset: Dataset, config: TrainConfig, batch_size: int) -> float:
    """Accuracy of a plan's model, trained as is usually written."""
    model = JscThreeLinear(plan.width("seq_blocks.2") or 32, plan.width("seq_blocks.4") or 64)
    loader = DataLoader(TensorDataset(dataset.train.inputs[0], dataset.train.targets), batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    for _ in range(config.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return float((model(dataset.validation.inputs[0]).argmax(1) == dataset.validation.targets).float().mean())


def blobs() -> Dataset:
    """Five classes of 16 features, 8,000 samples to train on."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 16, generator=generator)

    def split(samples: int) -> Split:
        y = torch.randint(0, 5, (samples,), generator=generator)
        return Split((centres[y] + 1.5 * torch.randn(samples, 16, generator=generator),), y)

    return Dataset("blobs", split(8000), split(1000), split(1000), 5, (16,), "Gaussian blobs")


if __name__ == "__main__":
    main()
