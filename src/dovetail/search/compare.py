"""Which strategy needs the fewest evaluations here? Repeats, curves, milestones and a rank test."""

from __future__ import annotations

import csv
import math
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dovetail.errors import ConfigError, StudyError
from dovetail.objective import Objective
from dovetail.search.problem import Problem
from dovetail.search.space import Row
from dovetail.search.tabulated import Scale, Table

__all__ = [
    "MILESTONES",
    "Comparison",
    "Curve",
    "Milestone",
    "RankTest",
    "compare_live",
    "compare_on_table",
    "run_curve",
]

MILESTONES = (0.90, 0.95, 0.99)
_BATCH = 1  # sample efficiency is measured one evaluation at a time

Evaluate = Callable[[Row], tuple[float, ...] | None]


class _Asks(Protocol):
    def ask(self, n: int) -> Sequence[Row]: ...
    def tell(self, row: Row, values: tuple[float, ...] | None) -> None: ...


Factory = Callable[[Problem, int | None], _Asks]


@dataclass(frozen=True)
class Curve:
    """One run of one strategy.

    Args:
        strategy: its name.
        seed: the run's seed.
        values: [evaluations, objectives] in the order of evaluation; NaN where an evaluation failed.
    """

    strategy: str
    seed: int
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """How many evaluations a strategy needs to reach a share of the goal.

    Args:
        strategy: its name.
        figure: `best` or `hypervolume`.
        share: of the goal.
        median: evaluations, over all runs; infinite where half of them or more did not get there.
        low, high: the 95 % interval of that median, from the order statistics (binomial); may be infinite.
        reached: runs that got there.
        runs: all of them.
    """

    strategy: str
    figure: str
    share: float
    median: float
    low: float
    high: float
    reached: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTest:
    """Whether one strategy is more sample-efficient than another.

    Args:
        better, worse: names; the first has the larger median area under its hypervolume curve.
        p_value: of the two-sided Mann-Whitney U test on these areas, after Holm's correction for all pairs.
    """

    better: str
    worse: str
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Curves of several strategies on one problem.

    `best` is the share of the way from the worst to the best plan known, by the weighted sum of a search that has one
    and by its leading objective of quality otherwise. `hypervolume` is the share of the true front's (of the front of
    all that any run has seen, where the space was not exhausted), objectives scaled to [0, 1], wide-ranging costs by
    their logarithm, over the worst corner.

    Args:
        objectives: in the order of the columns of values.
        weighted_sum: whether they are summed into one.
        curves: every run.
        reference: [n, objectives]: what shares are of: the whole table, or all that was seen.
        exhausted: whether the reference is the whole space.
        num_evaluations: evaluations granted to each run.
    """

    objectives: tuple[Objective, ...]
    weighted_sum: bool
    curves: tuple[Curve, ...]
    reference: NDArray[np.float64]
    exhausted: bool
    num_evaluations: int

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names, in the order given."""
        return tuple(dict.fromkeys(curve.strategy for curve in self.curves))

    def best(self, curve: Curve) -> NDArray[np.float64]:
        """Best so far after each evaluation, [num_evaluations], as a share of the best known."""
        merits = self._merit(self.reference)
        low, high = float(merits.min()), float(merits.max())
        merit = np.nan_to_num(self._merit(curve.values), nan=-np.inf)
        shares = (merit - low) / (high - low) if high > low else np.where(np.isfinite(merit), 1.0, -np.inf)
        return self._padded(np.maximum(np.maximum.accumulate(shares), 0.0))

    def hypervolume(self, curve: Curve) -> NDArray[np.float64]:
        """Hypervolume after each evaluation, [num_evaluations], as a share of the reference front's."""
        scale = Scale.of(self.objectives, self.reference)
        whole = scale.hypervolume(self.reference)
        shares = np.empty(len(curve.values))
        front = np.empty((0, len(self.objectives)))
        last = 0.0
        for i, row in enumerate(curve.values):
            dominated = (scale.gains(front) >= scale.gains(row[None])).all(axis=1).any() if len(front) else False
            if not (np.isnan(row).any() or dominated):
                front = np.vstack([front, row])
                last = scale.hypervolume(front)
            shares[i] = last / whole if whole > 0 else 1.0
        return self._padded(shares)

    def milestones(self) -> tuple[Milestone, ...]:
        """Evaluations to each share, per strategy and figure."""
        found = []
        for strategy in self.strategies:
            runs = [curve for curve in self.curves if curve.strategy == strategy]
            for figure in ("best", "hypervolume"):
                curves = np.stack([getattr(self, figure)(run) for run in runs])
                found += [_milestone(strategy, figure, share, curves) for share in MILESTONES]
        return tuple(found)

    def rank_tests(self) -> tuple[RankTest, ...]:
        """All pairs of strategies, by the area under their hypervolume curves."""
        areas = {
            s: [float(self.hypervolume(c).mean()) for c in self.curves if c.strategy == s] for s in self.strategies
        }
        pairs = list(combinations(self.strategies, 2))
        raw = [_mann_whitney(areas[a], areas[b]) for a, b in pairs]
        ordered = [(a, b) if np.median(areas[a]) >= np.median(areas[b]) else (b, a) for a, b in pairs]
        return tuple(RankTest(better=a, worse=b, p_value=p) for (a, b), p in zip(ordered, _holm(raw), strict=True))

    def write_csv(self, path: Path) -> None:
        """Write one line per evaluation: `strategy, seed, evaluation, best, hypervolume`.

        Raises:
            StudyError: The file cannot be written.
        """
        try:
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["strategy", "seed", "evaluation", "best", "hypervolume"])
                for curve in self.curves:
                    shares = zip(self.best(curve), self.hypervolume(curve), strict=True)
                    for i, (best, volume) in enumerate(list(shares)[: len(curve.values)], start=1):
                        writer.writerow([curve.strategy, curve.seed, i, repr(float(best)), repr(float(volume))])
        except OSError as error:
            raise StudyError(f"{path}: cannot be written: {error.strerror}.") from error

    def _merit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.weighted_sum:
            weights = np.array([o.sign * o.scale for o in self.objectives])
            return np.asarray(values @ weights, dtype=np.float64)
        leading = next((k for k, o in enumerate(self.objectives) if not o.is_cost), 0)
        return self.objectives[leading].sign * values[:, leading]

    def _padded(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """A run that ended early, the space being exhausted, stays where it ended."""
        missing = max(self.num_evaluations - len(shares), 0)
        return np.concatenate([shares, np.full(missing, shares[-1] if len(shares) else 0.0)])


def run_curve(name: str, factory: Factory, problem: Problem, evaluate: Evaluate, num_evaluations: int) -> Curve:
    """Drive a strategy for a number of evaluations, one at a time, from the problem's seed."""
    strategy = factory(problem, num_evaluations)
    values: list[tuple[float, ...]] = []
    failed = (math.nan,) * len(problem.objectives)
    while len(values) < num_evaluations:
        rows = strategy.ask(min(_BATCH, num_evaluations - len(values)))
        if not rows:
            break
        for row in rows:
            found = evaluate(row)
            strategy.tell(row, found)
            values.append(failed if found is None else found)
    return Curve(name, problem.seed, np.array(values, dtype=np.float64).reshape(-1, len(problem.objectives)))


def compare_on_table(
    table: Table,
    strategies: Mapping[str, Factory],
    *,
    repeats: int,
    num_evaluations: int,
    workers: int = 1,
    on_run: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Replay strategies on a space that is known whole: nothing is evaluated anew.

    Args:
        table: the known space.
        strategies: name -> factory; factories must be picklable where there are several workers.
        repeats: runs per strategy, with seeds 0, 1, ...
        num_evaluations: granted to each run; at most the size of the space.
        workers: processes.
        on_run: told how many runs are done, of how many.

    Raises:
        ConfigError: There is nothing to compare.
    """
    if not strategies or repeats < 1:
        raise ConfigError(f"compare: needs a strategy and a repeat, got {len(strategies)} and {repeats}.")
    num_evaluations = min(num_evaluations, table.space.size)
    jobs = [
        (name, factory, table, seed, num_evaluations) for name, factory in strategies.items() for seed in range(repeats)
    ]
    curves = []
    for done, curve in enumerate(_run_all(jobs, workers), start=1):
        curves.append(curve)
        on_run(done, len(jobs))
    return Comparison(table.objectives, table.weighted_sum, tuple(curves), table.known(), True, num_evaluations)


def compare_live(
    problem: Problem,
    evaluate: Evaluate,
    strategies: Mapping[str, Factory],
    *,
    repeats: int,
    num_evaluations: int,
    on_run: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare strategies where evaluations have to be made; each distinct plan is evaluated once over all runs.

    Args and errors as for `compare_on_table`; shares are of the best that any run has seen.
    """
    if not strategies or repeats < 1:
        raise ConfigError(f"compare: needs a strategy and a repeat, got {len(strategies)} and {repeats}.")
    memory: dict[Row, tuple[float, ...] | None] = {}

    def remembered(row: Row) -> tuple[float, ...] | None:
        key = problem.space.canonical(row)
        if key not in memory:
            memory[key] = evaluate(key)
        return memory[key]

    curves: list[Curve] = []
    for name, factory in strategies.items():
        for seed in range(repeats):
            curves.append(run_curve(name, factory, replace(problem, seed=seed), remembered, num_evaluations))
            on_run(len(curves), len(strategies) * repeats)
    seen = np.array([v for v in memory.values() if v is not None], dtype=np.float64)
    if not len(seen):
        raise StudyError("compare: no plan could be evaluated, so there is nothing to compare.")
    seen = seen.reshape(-1, len(problem.objectives))
    return Comparison(problem.objectives, problem.weighted_sum, tuple(curves), seen, False, num_evaluations)


_Job = tuple[str, Factory, Table, int, int]


def _run_job(job: _Job) -> Curve:
    name, factory, table, seed, num_evaluations = job
    return run_curve(name, factory, table.problem(seed), table.evaluate, num_evaluations)


def _run_all(jobs: Sequence[_Job], workers: int) -> Iterable[Curve]:
    if workers == 1:
        yield from map(_run_job, jobs)
        return
    # spawned, not forked: a fork of a process whose libraries run threads can wait for ever
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_run_job, jobs)


def _milestone(strategy: str, figure: str, share: float, curves: NDArray[np.float64]) -> Milestone:
    hit = curves >= share - 1e-12
    needed = np.sort(np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf))
    runs = len(needed)
    low, high = _median_interval(runs)
    middle = needed[(runs - 1) // 2 : runs // 2 + 1]
    return Milestone(
        strategy=strategy,
        figure=figure,
        share=share,
        median=float(middle.mean()),
        low=float(needed[low]),
        high=float(needed[high]),
        reached=int(np.isfinite(needed).sum()),
        runs=runs,
    )


def _median_interval(runs: int) -> tuple[int, int]:
    """Positions of the order statistics that hold the median with 95 % confidence; the ends where runs are few."""
    low = int(stats.binom.ppf(0.025, runs, 0.5))
    return max(low - 1, 0), min(runs - low, runs - 1)


def _mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    if set(a) == set(b) and len(set(a)) == 1:
        return 1.0
    return float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue)


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): the k-th smallest of m times m - k + 1, made monotone."""
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = running
    return corrected
