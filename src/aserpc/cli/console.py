"""Output of the command line: rich where a person looks, plain text where a pipe reads."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence

from aserpc.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers stand right."""
    texts = [[str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in texts) for i in range(len(columns))]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title), title_justify="left")
        for column, right in zip(columns, numeric, strict=True):
            table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
        for row in texts:
            table.add_row(*(Text(cell) for cell in row))  # Text: [brackets] are no markup
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for row in ([*columns], *texts):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        print("  ".join(cells).rstrip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("", "-")
    return True


def complain(text: str) -> None:
    """Tell a person what is wrong, in one line."""
    print(f"aserpc: {' '.join(text.split())}", file=sys.stderr)


def configure_logging(level: str) -> None:
    """Log to standard error from a level on.

    Raises
    ------
    SettingsError
        If there is no such level.
    """
    if level.upper() not in LOG_LEVELS:
        where = "ASERPC_LOG_LEVEL" if level == os.environ.get("ASERPC_LOG_LEVEL") else "--log-level"
        raise SettingsError(f"{where} = {level!r} is no log level: {', '.join(LOG_LEVELS)}")
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
