"""dovetail profile"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dovetail.cli.console import config_argument, json_option, print_json, read, say

if TYPE_CHECKING:
    from dovetail.costs import ProfileRow

__all__ = ["profile"]


@click.command()
@config_argument
@click.option("--plan", type=click.Path(path_type=Path), help="Profile the model under this plan.")
@click.option("--formula", is_flag=True, help="Print each cost in closed form in the widths of the groups.")
@click.option("--no-latency", is_flag=True, help="Leave the measurement of latency out.")
@json_option
def profile(config: Path, plan: Path | None, formula: bool, no_latency: bool, as_json: bool) -> None:
    """Show what each operation costs: parameters, MACs, FLOPs, activations, and the latency of the whole."""
    run_config = read(config)

    from dovetail import costs
    from dovetail.plan import Plan
    from dovetail.plan_file import errors_name_file, read_plan
    from dovetail.session import Session

    session = Session(run_config, on_stage=lambda stage: say(f"{stage} ..."))
    if formula:
        formulas = {name: str(session.costs.formula(name)) for name in costs.COSTS}
        if as_json:
            print_json(formulas)
        else:
            for name, text in formulas.items():
                click.echo(f"{name} = {text}")
        return
    wanted = Plan() if plan is None else read_plan(plan)
    batch = run_config.evaluation.cost_batch
    with errors_name_file(plan):
        session.graph.check(wanted)
    rows = costs.profile(session.graph, batch, wanted)
    unpriced = session.costs.unpriced("flops")
    latency = None if no_latency else dict(session.measure(wanted))
    if as_json:
        import dataclasses

        print_json(
            {
                "batch": batch,
                "operations": [dataclasses.asdict(row) for row in rows],
                "costs": {name: cost.value for name, cost in session.costs.price(wanted).items()},
                "unpriced": list(unpriced),
                "notes": list(session.graph.notes),
                "latency": latency,
            }
        )
        return
    _print(rows, batch)
    if unpriced:
        click.echo(f"Without a counting rule, and so not in MACs and FLOPs: {', '.join(unpriced)}.")
    for note in session.graph.notes:
        click.echo(f"note: {note}")
    if latency is not None:
        click.echo(
            f"latency of a batch of {batch} on {session.device}: median {latency['latency_ms']:.4g} ms, "
            f"95 % within {latency['latency_p95_ms']:.4g} ms, deviation {latency['latency_std_ms']:.3g} ms"
        )


def _print(rows: tuple[ProfileRow, ...], batch: int) -> None:
    from dovetail.report import Table, format_figure, print_table

    def count(value: int | None) -> str:
        return "unpriced" if value is None else f"{value:,}"

    print_table(
        Table(
            title=f"Costs per operation, batch {batch}",
            columns=("operation", "type", "output", "params", "MACs", "FLOPs", "activation bytes", "share of FLOPs"),
            rows=tuple(
                (
                    row.operation,
                    row.type,
                    " x ".join(map(str, row.output)),
                    f"{row.params:,}",
                    count(row.macs),
                    count(row.flops),
                    format_figure(row.activation_bytes),
                    f"{row.share:.1%}",
                )
                for row in rows
            ),
            numeric=("params", "MACs", "FLOPs", "activation bytes", "share of FLOPs"),
        )
    )
