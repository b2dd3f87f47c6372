"""dovetail compare"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dovetail.cli.console import config_argument, default_out, json_option, print_json, read, say
from dovetail.cli.group import Stopped
from dovetail.cli.signals import interruptible

if TYPE_CHECKING:
    from dovetail.search.compare import Comparison

__all__ = ["compare"]


@click.command()
@config_argument
@click.option("--strategies", help="Names, separated by commas; default: brute-force,random,tpe,nsga2,gp,pareto.")
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True, help="Runs of each, by seed.")
@click.option("--trials", type=click.IntRange(min=1), default=100, show_default=True, help="Evaluations per run.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes for replays; default: one per core.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results; default: runs/CONFIG/compare.")
@json_option
def compare(
    config: Path,
    strategies: str | None,
    repeats: int,
    trials: int,
    workers: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Tell which strategy needs the fewest evaluations on this space.

    A space that can be evaluated whole is evaluated once, and all runs are replays of it.
    """
    run_config = read(config)
    folder = default_out(run_config, config, out, "compare")

    from dovetail.cli.progress import SearchProgress
    from dovetail.comparing import COMPARED
    from dovetail.comparing import compare as run_compare

    names = tuple(name.strip() for name in strategies.split(",")) if strategies else COMPARED
    try:
        with interruptible(), SearchProgress() as progress:
            found = run_compare(
                run_config,
                strategies=names,
                repeats=repeats,
                trials=trials,
                workers=workers or os.cpu_count() or 1,
                out=folder,
                on_stage=lambda stage: say(f"{stage} ..."),
                on_start=progress.start,
                on_progress=progress.update,
                on_run=_say_tenths,
            )
    except KeyboardInterrupt:
        found = None
    if found is None:
        raise Stopped(f"stopped: what was evaluated is kept in {folder}. Run the same command again.")
    if as_json:
        print_json(_dict(found, folder))
        return

    from dovetail.report import print_table
    from dovetail.report.comparison import milestone_table, rank_table

    print_table(milestone_table(found))
    if len(found.strategies) > 1:
        print_table(rank_table(found))
    click.echo(f"In {folder}: compare.csv, compare.png, compare.svg")


def _say_tenths(done: int, total: int) -> None:
    """A line now and then: enough to see that it moves."""
    if done == total or done % max(total // 10, 1) == 0:
        say(f"{done} of {total} runs")


def _dict(found: Comparison, folder: Path) -> dict[str, Any]:
    return {
        "exhausted": found.exhausted,
        "evaluations": found.num_evaluations,
        "milestones": [
            {
                "strategy": m.strategy,
                "figure": m.figure,
                "share": m.share,
                "median": m.median,
                "low": m.low,
                "high": m.high,
                "reached": m.reached,
                "runs": m.runs,
            }
            for m in found.milestones()
        ],
        "rank_tests": [{"better": t.better, "worse": t.worse, "p": t.p_value} for t in found.rank_tests()],
        "folder": str(folder),
    }
