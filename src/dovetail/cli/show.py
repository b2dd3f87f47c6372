"""dovetail show"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dovetail.cli.console import json_option, print_json

if TYPE_CHECKING:
    from dovetail.record import Trial
    from dovetail.study import StudyHeader

__all__ = ["print_results", "show"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many of the best are shown."
)
@click.option("--history", is_flag=True, help="Show every trial, failed ones with their reasons.")
@click.option("--storage", help="The study's URL, where it has a password (passwords are never written down).")
@click.option("--to-optuna", metavar="URL", help="Write the trials into a new Optuna study at this URL or SQLite file.")
@click.option("--name", help="What to call the Optuna study; default: the run's folder.")
@json_option
def show(
    run: Path, top: int, history: bool, storage: str | None, to_optuna: str | None, name: str | None, as_json: bool
) -> None:
    """Show the best trials, the Pareto front and the history of a finished or running search.

    RUN is the folder of a search.
    """
    from dovetail.report import results_dict
    from dovetail.runs import open_run
    from dovetail.study import export_to_optuna

    with open_run(run, storage=storage) as study:
        header, trials = study.header, study.trials()
    if to_optuna is not None:
        called = name or run.resolve().name
        count = export_to_optuna(header, trials, to_optuna, called)
        click.echo(f"{count:,} trials written to {to_optuna} as the Optuna study {called!r}.", err=True)
    if as_json:
        from dovetail.report.results import trial_dict

        found = results_dict(header, trials, top)
        if history:
            found["history"] = [trial_dict(trial, header.objectives) for trial in trials]
        print_json(found)
        return
    if history:
        _print_history(header, trials)
    print_results(header, trials, top)


def print_results(header: StudyHeader, trials: Sequence[Trial], top: int) -> None:
    """The best trials, the Pareto front, the answer in words, and what failed or could not be priced."""
    from dovetail.report import best_table, describe_best, describe_none, describe_ranking, front_table, print_table
    from dovetail.search.best import find_best

    best = find_best(trials, header.objectives, header.constraints, summed=header.weighted_sum)
    if best is None:
        click.echo(describe_none(header, trials))
    else:
        print_table(best_table(header, trials, top))
        if (ranking := describe_ranking(header, trials, top)) is not None:
            click.echo(f"{ranking}\n")
        if len(header.objectives) > 1:
            print_table(front_table(header, trials))
        click.echo(describe_best(best))
    failed = [trial for trial in trials if not trial.is_complete]
    if failed:
        click.echo(f"{len(failed):,} trials failed; the first, trial {failed[0].number}: {failed[0].reason}")
    for cost, operations in header.unpriced:
        if operations:
            click.echo(f"{cost} lacks what could not be priced: {', '.join(operations)}")


def _print_history(header: StudyHeader, trials: Sequence[Trial]) -> None:
    """Every trial: a column for each decision where there is room for them, else one for all."""
    from dovetail.report import Table, format_figure, print_table
    from dovetail.report.tables import fits

    names = [o.name for o in header.objectives]

    def table(heads: Sequence[str], choices: Callable[[Trial], Sequence[str]]) -> Table:
        rows = tuple(
            (
                str(trial.number),
                *choices(trial),
                *(format_figure(trial.value(name)) if trial.is_complete else "" for name in names),
                trial.reason or "",
            )
            for trial in trials
        )
        columns = ("number", *heads, *names, "failed")
        return Table(title=f"All {len(trials):,} trials", columns=columns, rows=rows, numeric=("number", *names))

    wide = table([d.name for d in header.decisions], lambda trial: [label for _, label in trial.choices])
    narrow = table(["choices"], lambda trial: [", ".join(f"{name} {label}" for name, label in trial.choices)])
    print_table(wide if fits(wide) else narrow)
