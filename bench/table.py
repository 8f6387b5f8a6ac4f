"""A table of text, for the terminal and for Markdown, and how shares, points and means are written in its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

NONE = "-"


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of text, and a note for the reader."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", grid(self.columns, self.rows)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table's columns and rows in Markdown, without title and note."""
    return "\n".join(
        "| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in row) + " |"
        for row in [columns, ["---"] * len(columns), *rows]
    )


def markdown(found: Iterable[Table]) -> str:
    """Tables in Markdown, one after the other."""
    return "\n".join(table.markdown() for table in found)


def share(estimate: dict[str, float]) -> str:
    """`83 % (61 to 94)`."""
    if not estimate["n"]:
        return NONE
    return f"{percent(estimate['value'])} %{_interval(estimate, percent)}"


def points(estimate: dict[str, float]) -> str:
    """`+12 (3 to 21)`, in percentage points."""
    if not estimate["n"]:
        return NONE
    return f"{_signed(estimate['value'])}{_interval(estimate, _signed)}"


def number(estimate: dict[str, float], sign: str = "", digits: int = 2) -> str:
    """`0.83 (0.61 to 0.94)`; with the sign "+", `+0.12 (+0.03 to +0.21)`."""
    if not estimate["n"]:
        return NONE
    return f"{estimate['value']:{sign}.{digits}f}{_interval(estimate, lambda x: f'{x:{sign}.{digits}f}')}"


def _interval(estimate: dict[str, float], form: Callable[[float], str]) -> str:
    if math.isnan(estimate["low"]):
        return ""
    return f" ({form(estimate['low'])} to {form(estimate['high'])})"


def _signed(x: float) -> str:
    return f"{round(100 * x):+d}"  # rounded first: no "-0"


def percent(x: float) -> str:
    """A share as a whole number of percent."""
    return f"{100 * x:.0f}"
