"""dovetail search"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dovetail.cli.console import config_argument, default_out, json_option, print_json, read, say
from dovetail.cli.group import Stopped
from dovetail.cli.signals import interruptible

if TYPE_CHECKING:
    from dovetail.api import SearchResult

__all__ = ["search"]


@click.command()
@config_argument
@click.option(
    "--strategy", help="pareto, brute-force, integer-program, grid, random, tpe, gp, nsga2, nsga3, qmc or cma-es."
)
@click.option("--trials", type=click.IntRange(min=1), help="How many plans are evaluated, earlier ones included.")
@click.option("--seed", type=int, help="Of the strategy and of each candidate's training.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; default: runs/CONFIG/search.")
@click.option(
    "--storage", help="Where trials are kept: a SQLAlchemy URL or a file; default: study.db in the run's folder."
)
@click.option("--timeout", help="Stop after this long, for instance '10 min'.")
@click.option("--device", help="auto, cpu, cuda or cuda:1.")
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many of the best are shown."
)
@json_option
def search(
    config: Path,
    strategy: str | None,
    trials: int | None,
    seed: int | None,
    out: Path | None,
    storage: str | None,
    timeout: str | None,
    device: str | None,
    top: int,
    as_json: bool,
) -> None:
    """Search number formats and widths; write trials, Pareto front and best model.

    Ctrl-C, or `kill`, stops it and keeps every trial; the same command goes on where it stopped, without repeating one.
    """
    run_config = read(
        config,
        search_strategy=strategy,
        search_trials=trials,
        search_seed=seed,
        search_timeout=timeout,
        storage=storage,
        device=device,
    )
    folder = default_out(run_config, config, out, "search")

    from dovetail.api import search as run_search
    from dovetail.cli.progress import SearchProgress
    from dovetail.search.run import End

    try:
        with interruptible(), SearchProgress() as progress:

            def show_stage(stage: str) -> None:
                progress.finish()
                say(f"{stage} ...")

            result = run_search(
                run_config,
                out=folder,
                on_stage=show_stage,
                on_forecast=say,
                on_start=progress.start,
                on_progress=progress.update,
            )
    except KeyboardInterrupt:  # before the first trial, or after the last
        kept = f"all that was evaluated is kept in {folder}. {_GO_ON}" if folder.exists() else "nothing was evaluated."
        raise Stopped(f"stopped: {kept}") from None
    if as_json:
        from dovetail.report import results_dict

        found = results_dict(result.header, result.run.trials, top)
        print_json(
            {**found, "end": result.run.end.value, "certificate": str(result.certificate), "folder": str(folder)}
        )
    else:
        _print(result, top)
    if result.run.end is End.INTERRUPTED:
        raise Stopped(f"stopped: {len(result.run.trials):,} trials are kept in {folder}. {_GO_ON}")


def _print(result: SearchResult, top: int) -> None:
    from dovetail.cli.show import print_results
    from dovetail.report.figures import format_duration

    print_results(result.header, result.run.trials, top)
    seconds = format_duration(result.run.elapsed_s)
    click.echo(f"{result.certificate}")
    click.echo(f"{result.run.new:,} new trials in {seconds}; the search ended: {_ENDS[result.run.end.value]}.")
    if result.cache is not None:
        cache = result.cache
        click.echo(
            f"Shared values: {cache.hits:,} hits, {cache.misses:,} misses, {cache.evictions:,} let go, "
            f"at most {cache.peak_bytes / 2**20:,.1f} of {cache.budget / 2**20:,.0f} MiB held."
        )
    files = result.files
    click.echo(f"\nIn {files.folder}:")
    for path, what in (
        (files.config, "the resolved configuration"),
        (files.study, "every trial (SQLite)"),
        (files.trials, "every trial (CSV)"),
        (files.front, "the plans of the Pareto front, for `dovetail transform CONFIG --plan`"),
        (files.plot, "the Pareto front as a picture"),
        (files.best_plan, "the best plan"),
        (files.best_model, f'the best model\'s weights; load it by dovetail.api.load("{files.folder}")'),
    ):
        if path.exists():
            click.echo(f"  {path.name:18} {what}")


_GO_ON = "Run the same command again to go on from there."

_ENDS = {
    "exhausted": "nothing is left to evaluate",
    "budget": "all trials asked for are done",
    "timeout": "its time was up",
    "interrupted": "it was stopped",
}
