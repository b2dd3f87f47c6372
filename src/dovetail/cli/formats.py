"""dovetail formats"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dovetail.cli.console import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from dovetail.formats import Format

__all__ = ["formats"]

_EXAMPLES = (
    "float32", "float16", "bfloat16", "fixed(16,8)", "fixed(8,4)", "fixed(8,auto)", "ufixed(8,4)", "int(8)", "int(4)",
    "minifloat_ieee(8,4,7)", "minifloat_denorm(8,4,7)", "E4M3FN", "E5M2", "E3M2FN", "E2M3FN", "E2M1FN", "mxint8",
    "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "nvfp4", "block_fp(8,8,127)",
    "block_minifloat(8,4,8)", "block_log(4,8)", "log(8,63)", "binary", "binary(zero_one)", "ternary(mean)",
)  # fmt: skip
_LISTED = 256
"""Values that are printed one by one."""

_WIDE = 2**20
"""From which ratio of its largest to its smallest magnitude a float format is drawn by the logarithm."""


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
    values = _values(fmt.values)
    drawn = _values(fmt.element_values)
    if png is not None:
        from dovetail.report.plots import plot_number_line

        if drawn is None:
            raise click.UsageError(f"--png: {name} has more values than can be drawn.")
        title = f"{fmt}: {_count(drawn, is_scaled=values is None)}"
        plot_number_line(png, title, drawn, logarithmic=_is_wide(fmt, drawn))
    if as_json:
        counts = {"num_values": None if values is None else len(values)}
        listed = {"values": _short(values), "element_values": _short(drawn)}
        print_json({**_facts(fmt), **listed, **counts})
        return
    for key, value in _facts(fmt).items():
        click.echo(f"{key:18} {'from data' if value is None else value}")
    if drawn is None:
        click.echo("values             too many to draw: more than 65,536")
    else:
        click.echo(_number_line(drawn, logarithmic=_is_wide(fmt, drawn)))
        listed_here = f": {' '.join(f'{value:g}' for value in drawn)}" if _short(drawn) else ""
        click.echo(_count(drawn, is_scaled=values is None) + listed_here)
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
    rows = tuple(tuple(_cell(fact[head]) for head in heads) for fact in facts)
    print_table(Table(title="Number formats", columns=heads, rows=rows, numeric=heads[1:-1]))
    click.echo(f"Names: {', '.join(FORMATS)}. docs/formats.md has their arguments.")


def _cell(value: object) -> str:
    """Six digits suffice to compare formats; one format's page has them all."""
    return "from data" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


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


def _values(read: Callable[[], NDArray[np.float64]]) -> list[float] | None:
    """Every value that the format, or an element of it, represents; None where data decides or they are too many."""
    from dovetail.errors import FormatError

    try:
        return [float(value) for value in read()]
    except FormatError:
        return None


def _count(values: list[float], *, is_scaled: bool) -> str:
    return f"{len(values):,} values{' of an element, before its scale' if is_scaled else ''}"


def _short(values: list[float] | None) -> list[float] | None:
    return values if values is not None and len(values) <= _LISTED else None


def _is_wide(fmt: Format, values: list[float]) -> bool:
    """Whether the values lie so far apart that all but the largest would fall together on an even line."""
    magnitudes = [abs(value) for value in values if value]
    return fmt.is_float and max(magnitudes) > _WIDE * min(magnitudes)


def _number_line(values: list[float], *, logarithmic: bool, width: int = 100) -> str:
    """The values on a line of characters: a mark where there is one, a double one where there are several."""
    smallest = min(abs(value) for value in values if value)

    def place(value: float) -> float:
        if not logarithmic:
            return value
        return math.copysign(1 + math.log2(abs(value) / smallest), value) if value else 0.0

    low, high = place(min(values)), place(max(values))
    cells = [0] * width
    for value in values:
        cells[round((place(value) - low) / (high - low) * (width - 1))] += 1
    marks = "".join(" |‖"[min(count, 2)] for count in cells)
    first, last = f"{min(values):g}", f"{max(values):g}"
    middle = "powers of two at equal distances" if logarithmic else ""
    return f"{marks}\n{first}{middle:^{width - len(first) - len(last)}}{last}"
