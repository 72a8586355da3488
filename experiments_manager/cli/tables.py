"""Tables on standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without frames, which can be copied and cut with the tools of the shell.

    Args:
        *columns: Headers of the columns that are set flush left.
        right: Headers of the columns after these, set flush right.
    """
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Prints a table as wide as the terminal; in full width where the output is none, so that nothing is cut."""
    from rich.console import Console

    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console.width = 100_000
        console.width = max(console.measure(table).maximum, 1)
    console.print(table)


def short(value: Any) -> str:
    """A value in a cell: numbers with four significant digits, nothing for `None`; never taken for markup."""
    from rich.markup import escape

    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
