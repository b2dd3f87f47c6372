"""How many evaluations each strategy needs to 90, 95 and 99 % of the true front's hypervolume, on exhausted spaces.

    python benchmarks/strategies.py [--spaces digits-precision,...] [--strategies pareto,tpe,...] [--repeats 20]

Accuracy against the logarithm of the cost, scaled to [0, 1] over the space; reference: accuracy 0 at the worst cost.
Medians over seeds; a run that has not arrived within `--trials` counts as infinitely long. `ms` is the mean time of one
suggestion. `--time` measures instead how long `pareto` takes per suggestion between 500 and 550 trials on the space of
15,625 plans, in time of one core. Figures that were measured, with their seeds, are in docs/strategies.md.
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import median

import numpy as np
from tabulated_spaces import TABLES, Table, load_table

from dovetail.formats import parse
from dovetail.search.front import hypervolume
from dovetail.search.problem import Objective, Problem
from dovetail.search.space import Decision, Rows, Space
from dovetail.search.strategies import STRATEGIES

GOALS = (0.90, 0.95, 0.99)
OPTUNA = {
    "tpe-categorical": ("tpe", "categorical"),
    "tpe": ("tpe", "ordinal"),
    "gp": ("gp", "ordinal"),
    "nsga2": ("nsga2", "categorical"),
}


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
    return Problem(space, objectives, price, seed=seed)


def replay(table: Table, name: str, seed: int, trials: int) -> tuple[dict[float, int], float]:
    """Evaluations to each goal that was reached, and seconds per suggestion."""
    problem = make_problem(table, seed)
    gain = 1 - (np.log(table.cost) - np.log(table.cost.min())) / np.log(table.cost.max() / table.cost.min())
    full = hypervolume(np.stack([table.accuracy, gain], axis=1), [0, 0])
    if name in OPTUNA:  # both ways of showing decisions to Optuna's TPE are measured
        from dovetail.search.strategies.optuna_driven import OptunaStrategy
        from dovetail.search.strategies.optuna_samplers import make_sampler

        sampler, encoding = OPTUNA[name]
        strategy = OptunaStrategy(problem, make_sampler(sampler, problem, trials), encoding)
    else:
        strategy = STRATEGIES[name](problem, trials)
    reached: dict[float, int] = {}
    points: list[tuple[float, float]] = []
    spent = 0.0
    while len(points) < trials and len(reached) < len(GOALS):
        began = time.perf_counter()
        asked = strategy.ask(1)
        spent += time.perf_counter() - began
        if not asked:
            break
        i = problem.space.index(asked[0])
        began = time.perf_counter()
        strategy.tell(asked[0], (table.accuracy[i], table.cost[i]))
        spent += time.perf_counter() - began
        points.append((table.accuracy[i], gain[i]))
        share = hypervolume(points, [0, 0]) / full
        reached.update({goal: len(points) for goal in GOALS if share >= goal and goal not in reached})
    return reached, spent / max(len(points), 1)


def time_suggestions(trials: int = 500, count: int = 50) -> None:
    """Processor time of `pareto`'s suggestions, so that what else the machine does plays no part."""
    table = load_table("digits-precision")
    assert table is not None
    problem = make_problem(table, 0)
    strategy = STRATEGIES["pareto"](problem, trials)
    took = []
    for _ in range(trials + count):
        began = time.process_time()
        row = strategy.ask(1)[0]
        took.append(time.process_time() - began)
        i = problem.space.index(row)
        strategy.tell(row, (table.accuracy[i], table.cost[i]))
    late = np.array(took[trials:]) * 1e3
    print(f"pareto, trials {trials} to {trials + count} of 15,625 plans:")
    print(f"mean {late.mean():.1f} ms, median {np.median(late):.1f} ms, longest (a refit) {late.max():.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", default=",".join(TABLES))
    parser.add_argument("--strategies", default="pareto,tpe,tpe-categorical,nsga2,random")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--time", action="store_true")
    chosen = parser.parse_args()
    if chosen.time:
        time_suggestions()
        return
    print(f"medians of {chosen.repeats} seeds")
    print(f"{'space':18s} {'strategy':16s} {'90 %':>6s} {'95 %':>6s} {'99 %':>6s} {'ms':>7s}")
    for space in chosen.spaces.split(","):
        if (table := load_table(space)) is None:
            print(f"{space:18s} its data is not here: set DOVETAIL_DATA")
            continue
        for name in chosen.strategies.split(","):
            runs = [replay(table, name, seed, chosen.trials) for seed in range(chosen.repeats)]
            medians = [median(reached.get(goal, math.inf) for reached, _ in runs) for goal in GOALS]
            columns = " ".join(f"{m:6.0f}" if math.isfinite(m) else f"{'> ' + str(chosen.trials):>6s}" for m in medians)
            print(f"{space:18s} {name:16s} {columns} {1e3 * np.mean([s for _, s in runs]):7.1f}", flush=True)


if __name__ == "__main__":
    main()
