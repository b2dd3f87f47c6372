"""How many evaluations `pareto` needs beside Optuna's samplers, in lines of the common table."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.row import Row

sys.path.append(str(Path(__file__).parent))  # where `strategies` finds its tables when it is run as a script

from tabulated_spaces import LONG, TABLES, load_table

from benchmarks.strategies import middle, replay

GOAL = 0.99
OPTUNA = ("tpe-ordered", "nsga2")
TRIALS = 600


def rows(*, quick: bool) -> Iterator[Row]:
    """Median evaluations to 99 % of the front's hypervolume; a run that does not arrive counts as infinitely long.

    Spaces whose tables take long to make are left to `strategies.py`.
    """
    for space in ["digits-precision"] if quick else [name for name in TABLES if name not in LONG]:
        if (table := load_table(space)) is None:
            continue
        needed = {}
        for name in ("pareto", "tpe-ordered") if quick else ("pareto", *OPTUNA):
            runs = [replay(table, name, seed, TRIALS) for seed in range(1 if quick else 5)]
            needed[name], _, _ = middle(runs, GOAL)
        best = min(OPTUNA, key=lambda name: needed.get(name, math.inf))
        yield Row(
            work=f"evaluations of {space} to 99 % of the front, pareto against {best}",
            measured=needed["pareto"],
            baseline=needed[best],
            unit="trials",
            ratio=needed["pareto"] / needed[best] if math.isfinite(needed["pareto"]) else math.inf,
            target=0.2,
        )
