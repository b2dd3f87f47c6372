"""A table as a value, and how it is printed."""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import dataclass
from typing import TextIO

__all__ = ["Table", "fits", "print_table"]

_LOG_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under a title.

    Args:
        title: what the table shows.
        columns: the heads.
        rows: one text per column; a text may have several lines.
        numeric: columns whose texts are flush right.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[str, ...] = ()


def fits(table: Table, file: TextIO | None = None) -> bool:
    """Whether a table can be printed without breaking a text over lines."""
    out = sys.stdout if file is None else file
    room = shutil.get_terminal_size().columns if out.isatty() else _LOG_WIDTH
    columns = zip(table.columns, *table.rows, strict=True)
    widths = [max(len(line) for cell in cells for line in (cell.splitlines() or [""])) for cells in columns]
    return sum(widths) + 3 * len(widths) + 1 <= room  # each with a space on both sides, and lines between and around


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print a table: as wide as the terminal, or 160 columns where the output goes elsewhere."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    out = sys.stdout if file is None else file
    shown = RichTable(title=Text(table.title), box=SIMPLE_HEAD, title_justify="left")
    for column in table.columns:
        shown.add_column(Text(column), justify="right" if column in table.numeric else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    if out.isatty():
        Console(file=out).print(shown)
        return
    console = Console(file=io.StringIO(), width=_LOG_WIDTH)
    with console.capture() as captured:
        console.print(shown)
    out.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())
