"""dovetail space"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dovetail.cli.console import config_argument, json_option, print_json, read, say

if TYPE_CHECKING:
    from dovetail.session import Session
    from dovetail.space_csv import Extremes
    from dovetail.space_report import CostRange

__all__ = ["space"]

_SHOWN_LABELS = 8


@click.command()
@config_argument
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), help="Price every plan into this file; none is evaluated."
)
@json_option
def space(config: Path, csv_file: Path | None, as_json: bool) -> None:
    """Show decisions, width groups, the size of the space and the range of each cost."""
    run_config = read(config)

    from dovetail.report import print_table
    from dovetail.session import Session
    from dovetail.space_report import cost_ranges, decision_table, group_table, range_table

    session = Session(run_config, on_stage=lambda stage: say(f"{stage} ..."))
    ranges = cost_ranges(session, None if csv_file is None else _write(session, csv_file))
    if as_json:
        print_json(_dict(session, ranges))
        return
    print_table(decision_table(session.space))
    print_table(group_table(session.graph))
    print_table(range_table(ranges))
    found = session.space
    same = "" if found.distinct == found.size else f", {found.distinct:,} of which differ in effect"
    click.echo(f"{found.size:,} plans{same}.")
    for note in found.notes:
        click.echo(f"note: {note}")


def _write(session: Session, path: Path) -> Extremes:
    """Price the space into the file, and say how long that took once the graph is there."""
    from dovetail.space_csv import write_priced_space

    found, costs = session.space, session.costs
    start = time.perf_counter()
    extremes = write_priced_space(found, costs, path)
    say(f"{found.size:,} plans priced into {path} in {time.perf_counter() - start:.1f} s.")
    return extremes


def _dict(session: Session, ranges: Sequence[CostRange]) -> dict[str, Any]:
    from dovetail.space_report import growth_obstacles

    found, obstacles = session.space, growth_obstacles(session.graph)
    return {
        "size": found.size,
        "distinct": found.distinct,
        "decisions": [{"name": d.name, "kind": d.kind, "choices": list(d.labels)} for d in found.decisions],
        "groups": [
            {"name": g.name, "width": g.base, "frozen": g.frozen, "not_grown_exactly": obstacles.get(g.name)}
            for g in session.graph.groups
        ],
        "costs": {r.name: {"minimum": r.minimum, "base": r.base, "maximum": r.maximum, "unit": r.unit} for r in ranges},
        "exact_ranges": all(r.is_exact for r in ranges),
        "notes": list(found.notes),
    }
