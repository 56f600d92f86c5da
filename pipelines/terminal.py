"""What commands print: JSON for machines, tables for people."""

import json
import sys
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_ROUNDING = 1e-12
_PLAIN_WIDTH = 120  # of a table that goes to a file or a pipe

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]


def group(about: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode="markdown")


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(value), flush=True)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, in full width where nobody's window sets a limit."""
    if not rows:
        print("nothing to show")
        return
    table = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and abs(value) < _ROUNDING:
        return "0.000"
    if isinstance(value, float):
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
    return str(value)
