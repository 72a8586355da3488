"""Tables on standard output."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


WIDEST = 100_000
_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)
"""Spaces at the end of a line, before what ends its colours: a terminal would wrap them into an empty line."""


def new_table(*columns: str) -> Table:
    """Return a table without frames, whose cells can be copied, and cut out with the tools of the shell.

    Args:
        *columns: Headers of the columns; never taken for markup.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(escape(name), no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Print a table in its full width; a terminal wraps long lines, so that nothing is cut or torn apart."""
    from rich.console import Console

    console = Console(highlight=False, width=WIDEST)
    console.width = console.measure(table).maximum
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write(_PADDING.sub(r"\1", captured.get()))


def short(value: Any) -> str:
    """Return a value in a cell: numbers with four significant digits, nothing for `None`; never taken for markup."""
    from rich.markup import escape

    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
