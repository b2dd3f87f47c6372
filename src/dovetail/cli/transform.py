"""dovetail transform"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dovetail.cli.console import config_argument, default_out, json_option, print_json, read, say

if TYPE_CHECKING:
    from dovetail.api import Transformed

__all__ = ["transform"]


@click.command()
@config_argument
@click.option(
    "--plan", required=True, type=click.Path(path_type=Path), help="A plan's TOML, as in a run's pareto folder."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the new model; default: runs/CONFIG/transform."
)
@click.option("--device", help="auto, cpu, cuda or cuda:1.")
@json_option
def transform(config: Path, plan: Path, out: Path | None, device: str | None, as_json: bool) -> None:
    """Apply one plan: resize, quantise, compare with the model as it is, score, save."""
    run_config = read(config, device=device)
    folder = default_out(run_config, config, out, "transform")

    from dovetail.api import transform as run_transform
    from dovetail.plan_file import errors_name_file, read_plan

    wanted = read_plan(plan)
    with errors_name_file(plan):
        result = run_transform(run_config, wanted, out=folder, on_stage=lambda stage: say(f"{stage} ..."))
    if as_json:
        print_json(
            {
                "plan": result.plan.to_dict(),
                "before": {name: cost.value for name, cost in result.before.items()},
                "after": {name: cost.value for name, cost in result.after.items()},
                "score_before": result.base.score.to_dict()["metrics"] if result.base.score else None,
                "score_after": result.outcome.score.to_dict()["metrics"] if result.outcome.score else None,
                "weights": str(result.weights),
            }
        )
        return
    _print(result)
    click.echo(f'Weights: {result.weights}; load the model by dovetail.api.load("{folder}")')


def _print(result: Transformed) -> None:
    from dovetail.report import Table, format_figure, format_measured, print_table

    base = dict(result.base.score.metrics) if result.base.score else {}
    scores = result.outcome.score.metrics if result.outcome.score else ()
    rows = [
        (name, format_measured(base[name]) if name in base else "", format_measured(after), "")
        for name, after in scores
    ]
    for name, after in result.after.items():
        before = result.before[name].value
        ratio = f"{after.value / before:.3g}" if before else ""
        rows.append((name, format_figure(before), format_figure(after.value), ratio))
    columns = ("figure", "model as it is", "under the plan", "ratio")
    print_table(Table(title="Before and after", columns=columns, rows=tuple(rows), numeric=columns[1:]))
