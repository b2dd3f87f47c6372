"""How many evaluations each strategy needs to 90, 95 and 99 % of the true front's hypervolume, on exhausted spaces.

    python benchmarks/strategies.py [--spaces digits-precision,...] [--strategies pareto,tpe-ordered,...] [--repeats 20]

Accuracy against the logarithm of the cost, scaled to [0, 1] over the space; reference: accuracy 0 at the worst cost.
Medians over seeds with their 95 % interval; a run that has not arrived within `--trials`, or within `--seconds` of
processor time, counts as infinitely long. `ms` is the mean processor time of one suggestion. `--record FILE` adds each
run to a file of JSON lines, and runs that are there already are not repeated.

`--time` measures instead how long `pareto` takes per suggestion between 500 and 550 trials on the space of 15,625
plans, in time of one core.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom
from tabulated_spaces import TABLES, Table, load_table

from dovetail.formats import parse
from dovetail.search.front import hypervolume
from dovetail.search.problem import Objective, Problem
from dovetail.search.space import Decision, Rows, Space
from dovetail.search.strategies import STRATEGIES
from dovetail.search.strategies.base import Strategy

GOALS = (0.90, 0.95, 0.99)
OPTUNA = {
    "tpe-ordered": ("tpe", "ordinal"),
    "tpe-categorical": ("tpe", "categorical"),
    "gp-ordered": ("gp", "ordinal"),
    "nsga2": ("nsga2", "categorical"),
    "nsga3": ("nsga3", "categorical"),
    "qmc-ordered": ("qmc", "ordinal"),
}
"""Optuna's samplers, and how decisions are shown to them: as ordered integers, or by `suggest_categorical`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One run: how many evaluations it took to each of `GOALS` (None: it did not arrive), of at most `trials`."""

    space: str
    strategy: str
    seed: int
    trials: int
    seconds: float | None
    evaluations: int
    reached: tuple[int | None, ...]
    suggestion_ms: float


def make_problem(table: Table, seed: int) -> Problem:
    decisions = []
    for d, (kind, values) in enumerate(zip(table.kinds, table.values, strict=True)):
        labels = tuple(f"{v:g}" for v in values)
        if kind == "precision":
            formats = tuple(parse(f"fixed({int(v)},{int(v) - 2})") for v in values)
            decisions.append(Decision(name=f"d{d}", kind="precision", labels=labels, formats=formats))
        else:
            widths = tuple((int(v),) for v in values)
            decisions.append(Decision(name=f"d{d}", kind="width", labels=labels, groups=(f"g{d}",), widths=widths))
    space = Space(tuple(decisions))

    def price(rows: Rows) -> dict[str, np.ndarray]:
        return {"cost": table.cost[np.ravel_multi_index(tuple(rows.T), space.shape)]}

    objectives = (
        Objective(name="accuracy", direction="maximize"),
        Objective(name="cost", direction="minimize", is_cost=True),
    )
    noise = [its or None for its in table.noise]
    return Problem(space, objectives, price, seed=seed, rounding_noise=lambda: noise)


def make(name: str, problem: Problem, trials: int) -> Strategy:
    if name not in OPTUNA:
        return STRATEGIES[name](problem, trials)
    from dovetail.search.strategies.optuna_driven import OptunaStrategy
    from dovetail.search.strategies.optuna_samplers import make_sampler

    sampler, encoding = OPTUNA[name]
    return OptunaStrategy(problem, make_sampler(sampler, problem, trials), encoding)


def replay(table: Table, name: str, seed: int, trials: int, seconds: float | None = None) -> Replay:
    """Run a strategy until it reaches the last goal, or has had its trials or its processor time."""
    problem = make_problem(table, seed)
    gain = 1 - (np.log(table.cost) - np.log(table.cost.min())) / np.log(table.cost.max() / table.cost.min())
    full = hypervolume(np.stack([table.accuracy, gain], axis=1), [0, 0])
    strategy = make(name, problem, trials)
    reached: list[int | None] = [None] * len(GOALS)
    points: list[tuple[float, float]] = []
    spent = 0.0
    while len(points) < trials and reached[-1] is None and (seconds is None or spent < seconds):
        began = time.process_time()
        asked = strategy.ask(1)
        spent += time.process_time() - began
        if not asked:
            break
        i = problem.space.index(asked[0])
        began = time.process_time()
        strategy.tell(asked[0], (table.accuracy[i], table.cost[i]))
        spent += time.process_time() - began
        points.append((table.accuracy[i], gain[i]))
        share = hypervolume(points, [0, 0]) / full
        reached = [r or (len(points) if share >= goal else None) for r, goal in zip(reached, GOALS, strict=True)]
    return Replay(
        space=table.name,
        strategy=name,
        seed=seed,
        trials=trials,
        seconds=seconds,
        evaluations=len(points),
        reached=tuple(reached),
        suggestion_ms=1e3 * spent / max(len(points), 1),
    )


def read_replays(path: Path) -> list[Replay]:
    """Runs that were recorded; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Replay(**{**fields, "reached": tuple(fields["reached"])}) for fields in map(json.loads, lines)]


def middle(runs: list[Replay], goal: float) -> tuple[float, float, float]:
    """Median evaluations to a goal, and the 95 % interval of that median by order statistics."""
    needed = sorted(math.inf if (r := run.reached[GOALS.index(goal)]) is None else float(r) for run in runs)
    count = len(needed)
    low = int(binom.ppf(0.025, count, 0.5))
    median = (needed[(count - 1) // 2] + needed[count // 2]) / 2
    return median, needed[max(low - 1, 0)], needed[min(count - low, count - 1)]


def run_all(
    spaces: list[str], strategies: list[str], repeats: int, trials: int, seconds: float | None, record: Path | None
) -> Iterator[tuple[str, str, list[Replay]]]:
    known = read_replays(record) if record is not None else []
    for space in spaces:
        if (table := load_table(space)) is None:
            print(f"{space:18s} its data is not here: set DOVETAIL_DATA")
            continue
        for name in strategies:
            runs = [run for run in known if (run.space, run.strategy) == (space, name)]
            for seed in sorted(set(range(repeats)) - {run.seed for run in runs}):
                runs.append(replay(table, name, seed, trials, seconds))
                if record is not None:
                    with record.open("a") as file:
                        file.write(json.dumps(asdict(runs[-1])) + "\n")
            yield space, name, runs


def time_suggestions(trials: int = 500, count: int = 50) -> None:
    """What `pareto`'s suggestions take by the clock, and of the processor, which is free of what else it does."""
    table = load_table("digits-precision")
    assert table is not None
    problem = make_problem(table, 0)
    strategy = STRATEGIES["pareto"](problem, trials)
    took = []
    for _ in range(trials + count):
        began, spent = time.perf_counter(), time.process_time()
        row = strategy.ask(1)[0]
        took.append((time.perf_counter() - began, time.process_time() - spent))
        i = problem.space.index(row)
        strategy.tell(row, (table.accuracy[i], table.cost[i]))
    print(f"pareto, trials {trials} to {trials + count} of 15,625 plans:")
    for name, late in zip(("by the clock", "of the processor"), np.array(took[trials:]).T * 1e3, strict=True):
        print(f"mean {late.mean():.1f} ms, median {np.median(late):.1f}, longest (a refit) {late.max():.1f} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", default=",".join(TABLES))
    parser.add_argument("--strategies", default=",".join(("pareto", *OPTUNA)))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--time", action="store_true")
    chosen = parser.parse_args()
    if chosen.time:
        time_suggestions()
        return
    goals = " ".join(f"{goal:>20.0%}" for goal in GOALS)
    print(f"{'space':18s} {'strategy':16s} {'runs':>4s} {goals} {'ms':>8s}")
    spaces, strategies = chosen.spaces.split(","), chosen.strategies.split(",")
    for space, name, runs in run_all(spaces, strategies, chosen.repeats, chosen.trials, chosen.seconds, chosen.record):
        columns = [f"{m:6.1f} [{low:.0f}-{high:.0f}]" for m, low, high in (middle(runs, goal) for goal in GOALS)]
        spent = np.mean([run.suggestion_ms for run in runs])
        print(f"{space:18s} {name:16s} {len(runs):4d} " + " ".join(f"{c:>20s}" for c in columns) + f" {spent:8.1f}")


if __name__ == "__main__":
    main()
