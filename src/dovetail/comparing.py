"""Which strategy is most sample-efficient for a configuration: the space evaluated once, then replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dovetail.api import search
from dovetail.config import RunConfig
from dovetail.errors import ConfigError
from dovetail.report.comparison import plot_comparison
from dovetail.search.compare import Comparison, compare_live, compare_on_table
from dovetail.search.run import End, Progress
from dovetail.search.space import Row
from dovetail.search.strategies import check_strategy, make_strategy
from dovetail.search.tabulated import tabulate
from dovetail.session import LATENCY, Session

__all__ = ["COMPARED", "compare"]

COMPARED = ("brute-force", "random", "tpe", "nsga2", "gp", "pareto")
"""What is compared where no strategies are named."""

_CHEAP = 1 << 16  # plans of a ptq space that are worth evaluating all, since they share most of their work


def compare(
    config: RunConfig,
    *,
    strategies: Sequence[str] = COMPARED,
    repeats: int = 20,
    trials: int = 100,
    workers: int = 1,
    out: str | Path | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_start: Callable[[Session, int, int | None], None] = lambda session, known, total: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_run: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison | None:
    """Run strategies repeatedly on one configuration, and write `compare.csv`, `compare.png` and `compare.svg`.

    Where evaluating the whole space costs no more than the runs would (or little, because plans share their work), it
    is evaluated once, kept in the folder `exhausted`, and every run is a replay. Otherwise runs are live and share what
    they evaluate.

    Args:
        config: the run; its own strategy, trials and timeout are not looked at.
        strategies: names.
        repeats: runs per strategy, with seeds 0, 1, ...
        trials: evaluations granted to each run.
        workers: processes, for replays.
        out: where files go; None: the config's folder, or `runs/compare`.
        on_stage: told what is being done, in words.
        on_start, on_progress: as for `search`, while the space is evaluated.
        on_run: told how many runs are done, of how many.

    Returns:
        The comparison; None where Ctrl-C ended the evaluation of the space, which the same call goes on with.

    Raises:
        ConfigError: A strategy is unknown or cannot search this space, or an argument is out of range.
        StudyError: A file cannot be written.
    """
    if repeats < 1 or trials < 1:
        raise ConfigError(f"compare: repeats and trials must be at least 1, got {repeats} and {trials}.")
    for name in strategies:
        check_strategy(name)
    session = Session(config, on_stage=on_stage)
    factories = {name: partial(make_strategy, name) for name in dict.fromkeys(strategies)}
    for make in factories.values():
        make(session.problem, trials)  # what cannot search this space is told before anything is evaluated
    folder = Path(out or config.out or "runs/compare")
    if session.space.size <= max(len(factories) * repeats * trials, _CHEAP if _shares_work(config) else 0):
        settings = dataclasses.replace(config.search, strategy="brute-force", trials=None, timeout=None)
        known = search(
            dataclasses.replace(config, search=settings, storage=None),
            out=folder / "exhausted",
            on_stage=on_stage,
            on_start=on_start,
            on_progress=on_progress,
        )
        if known.run.end is End.INTERRUPTED:
            return None
        on_stage(f"replaying {len(factories)} strategies {repeats} times each")
        table = tabulate(session.problem, known.run.trials)
        found = compare_on_table(
            table, factories, repeats=repeats, num_evaluations=trials, workers=workers, on_run=on_run
        )
    else:
        on_stage(f"running {len(factories)} strategies {repeats} times each")
        found = compare_live(
            session.problem, _evaluator(session), factories, repeats=repeats, num_evaluations=trials, on_run=on_run
        )
    folder.mkdir(parents=True, exist_ok=True)
    found.write_csv(folder / "compare.csv")
    plot_comparison(found, [folder / "compare.png", folder / "compare.svg"])
    return found


def _shares_work(config: RunConfig) -> bool:
    return config.evaluation.protocol == "ptq" and LATENCY not in config.search.metrics


def _evaluator(session: Session) -> Callable[[Row], tuple[float, ...] | None]:
    """Evaluates one row: its objectives, or None where it fails or breaks a constraint on quality."""

    def evaluate(row: Row) -> tuple[float, ...] | None:
        (outcome,) = session.evaluator.evaluate([session.space.plan(row)])
        if outcome.score is None:
            return None
        figures = {name: measured.value for name, measured in outcome.score.metrics}
        figures |= {name: float(values[0]) for name, values in session.price(np.array([row], dtype=np.int64)).items()}
        if session.measures_latency:
            figures |= dict(session.measure(outcome.plan))
        if not all(c.holds(figures[c.metric]) for c in session.problem.constraints):
            return None
        return tuple(figures[o.name] for o in session.objectives)

    return evaluate
