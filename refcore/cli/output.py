"""Output of commands: results on stdout, as tables or JSON; progress and warnings on stderr.

rich is imported by the first table or coloured line, so that a run starts without it. Names, prompts and labels may
come from other people's files, and a terminal obeys control characters: they are written as escapes everywhere.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from refcore.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    stdout: Console
    stderr: Console

CONTROLS: Final = re.compile("[\x7f-\x9f]")
"""Control characters that JSON may hold as they are; a terminal takes U+009B for the start of a command."""


def __getattr__(name: str) -> Any:
    """`stdout` and `stderr`: rich consoles, made on first use."""
    if name in ("stdout", "stderr"):
        return _console(name == "stderr")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _console(stderr: bool) -> Console:
    return console(stderr=stderr)


def console(stderr: bool = False, width: int | None = None) -> Console:
    """A rich console whose texts cannot command the terminal; styles are those of rich's markup alone.

    Args:
        stderr: whether it writes to stderr.
        width: characters a line; None: the terminal's.
    """
    from rich.console import Console

    class Plain(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)

    return Plain(stderr=stderr, width=width, highlight=False)


def print_json(value: Any) -> None:
    """Prints JSON, never wrapped or coloured, so that pipes can read it."""
    echo_json(json.dumps(value, indent=2, ensure_ascii=False))


def echo_json(text: str) -> None:
    """Prints JSON text, with control characters as JSON's own escapes."""
    sys.stdout.write(CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def echo(text: str) -> None:
    """Prints text as it is, never wrapped or coloured, but for control characters."""
    sys.stdout.write(printable(text) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Column, Table

    table = Table(
        *(Column(cell_text(name), overflow="fold") for name in columns), box=None, pad_edge=False, header_style="bold"
    )
    for row in rows:
        table.add_row(*(cell_text(cell) for cell in row))
    _console(False).print(table)


def cell_text(cell: object) -> str:
    """What a cell of a table shows, as rich's markup: its text, and no style or command that it may hold."""
    from rich.markup import escape

    return escape(printable(str(cell)))


def warn(message: str) -> None:
    """Prints a warning, as one line on stderr."""
    print(f"warning: {printable(' '.join(message.split()))}", file=sys.stderr)


class _Warnings(logging.Handler):
    """Prints what a run logs."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Prints the warnings of the logger "refcore" while it lasts."""
    log, handler = logging.getLogger("refcore"), _Warnings(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
