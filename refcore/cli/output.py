"""How commands print: results on stdout, as tables for people or as JSON; progress and warnings on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Plain JSON, never wrapped or coloured, so that a pipe can read it."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    stdout.print(table)


def warn(message: str) -> None:
    """A line on stderr that does not stop the command."""
    print(f"warning: {' '.join(message.split())}", file=sys.stderr)
