"""dovetail formats"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dovetail.cli.console import json_option, print_json

if TYPE_CHECKING:
    from dovetail.formats import Format

__all__ = ["formats"]

_EXAMPLES = (
    "float32", "float16", "bfloat16", "fixed(16,8)", "fixed(8,4)", "fixed(8,auto)", "ufixed(8,4)", "int(8)", "int(4)",
    "minifloat_ieee(8,4,7)", "minifloat_denorm(8,4,7)", "E4M3FN", "E5M2", "E3M2FN", "E2M3FN", "E2M1FN", "mxint8",
    "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "nvfp4", "block_fp(8,8,127)",
    "block_minifloat(8,4,8)", "block_log(4,8)", "log(8,63)", "binary", "binary(zero_one)", "ternary(mean)",
)  # fmt: skip
_LISTED = 256


@click.command()
@click.argument("name", required=False)
@click.option("--png", type=click.Path(path_type=Path), help="Draw the values of NAME as a number line into this file.")
@json_option
def formats(name: str | None, png: Path | None, as_json: bool) -> None:
    """List number formats, or describe one, such as 'fixed(8,4)'."""
    from dovetail.formats import parse

    if name is None:
        if png is not None:
            raise click.UsageError("--png draws one format: say which, for instance 'fixed(8,4)'.")
        _list(as_json)
        return
    fmt = parse(name)
    values = _values(fmt)
    if png is not None:
        from dovetail.report.plots import plot_number_line

        if values is None:
            raise click.UsageError(f"--png: {name} has no list of values of its own to draw.")
        plot_number_line(png, str(fmt), values)
    if as_json:
        listed = values if values is not None and len(values) <= _LISTED else None
        print_json({**_facts(fmt), "values": listed, "num_values": None if values is None else len(values)})
        return
    for key, value in _facts(fmt).items():
        click.echo(f"{key:18} {value}")
    _print_values(values)
    if png is not None:
        click.echo(f"drawn into {png}")


def _list(as_json: bool) -> None:
    """A member of every family, with its facts."""
    from dovetail.formats import FORMATS, parse
    from dovetail.report import Table, print_table

    facts = [_facts(parse(text)) for text in _EXAMPLES]
    if as_json:
        print_json({"formats": facts, "names": list(FORMATS)})
        return
    heads = ("name", "bits", "element_bits", "minimum", "maximum", "step", "block_size", "calibrated")
    rows = tuple(tuple("from data" if fact[head] is None else str(fact[head]) for head in heads) for fact in facts)
    print_table(Table(title="Number formats", columns=heads, rows=rows, numeric=heads[1:-1]))
    click.echo(f"Names: {', '.join(FORMATS)}. docs/formats.md has their arguments.")


def _facts(fmt: Format) -> dict[str, Any]:
    def known(read: str) -> Any:
        """A derived fact; None where it follows from data that the format has not seen."""
        value = getattr(fmt, read)
        return None if isinstance(value, float) and math.isnan(value) else value

    return {
        "name": str(fmt),
        "bits": fmt.bits,
        "element_bits": fmt.element_bits,
        "minimum": known("minimum"),
        "maximum": known("maximum"),
        "step": known("step"),
        "is_float": fmt.is_float,
        "block_size": fmt.block_size,
        "calibrated": "from data" if fmt.needs_calibration else "no",
    }


def _values(fmt: Format) -> list[float] | None:
    """Every value that the format represents; None where they follow from data or are too many to list."""
    from dovetail.errors import FormatError

    try:
        return [float(value) for value in fmt.values()]
    except (FormatError, NotImplementedError):
        return None


def _print_values(values: list[float] | None) -> None:
    if values is None:
        click.echo("values             follow from the data, or are too many to list")
        return
    if len(values) > _LISTED:
        click.echo(f"values             {len(values):,}")
        return
    click.echo(_number_line(values))
    click.echo(f"{len(values)} values: {' '.join(f'{value:g}' for value in values)}")


def _number_line(values: list[float], width: int = 100) -> str:
    """The values on a line of characters: a mark where there is one, a double one where there are several."""
    low, high = min(values), max(values)
    cells = [0] * width
    for value in values:
        cells[round((value - low) / (high - low or 1.0) * (width - 1))] += 1
    marks = "".join(" |‖"[min(count, 2)] for count in cells)
    return f"{marks}\n{f'{low:g}'}{f'{high:g}':>{width - len(f'{low:g}')}}"
