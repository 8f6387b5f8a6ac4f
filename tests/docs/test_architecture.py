"""docs/architecture.md names files that exist and what they define; docs/glossary.md defines each term once."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")


def section(title: str) -> str:
    return ARCHITECTURE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(title: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


PLACES = cells("Where things are")
THINGS = cells("If you look for")


def defined(source: str) -> set[str]:
    """Names of the classes, functions and constants at the top of a module, and `Class.method`."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name, body=body):
                found |= {name, *(f"{name}.{inner.name}" for inner in body if isinstance(inner, ast.FunctionDef))}
            case ast.FunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


@pytest.mark.parametrize("row", PLACES, ids=lambda row: row[0])
def test_every_place_exists(row: list[str]) -> None:
    first, *others = [name for name in re.findall(r"`([^`]+)`", row[0]) if not name.startswith("refcore_")]
    assert (ROOT / first).exists(), first
    assert first.endswith("/") == (ROOT / first).is_dir(), first
    for name in others:
        assert (ROOT / first).with_name(name).is_file(), name


def test_every_room_of_the_core_has_its_place() -> None:
    rooms = {path.parent.name for path in (ROOT / "refcore").glob("*/__init__.py")}
    assert rooms == {row[0].split("/")[1] for row in PLACES if re.fullmatch(r"`refcore/\w+/`", row[0])}


@pytest.mark.parametrize("row", THINGS, ids=lambda row: row[0])
def test_every_thing_is_defined_where_the_table_says(row: list[str]) -> None:
    _, file, name = (cell.strip("`") for cell in row)
    path = ROOT / file
    assert path.is_file(), file
    assert (path.suffix == ".yaml") == (name == ""), row
    if name:
        assert name in defined(path.read_text("utf-8")), f"{file} does not define {name}"


def test_the_table_has_what_a_newcomer_looks_for() -> None:
    assert len(THINGS) >= 40
    assert len({row[0] for row in THINGS}) == len(THINGS)


def test_the_glossary_is_alphabetical_and_defines_each_term_once() -> None:
    terms = [term.strip("`").lower() for term in re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)]
    assert len(terms) > 50
    assert terms == sorted(set(terms))
    for group in re.split(r"^## ", GLOSSARY, flags=re.MULTILINE)[1:]:
        first, *last = group.splitlines()[0].lower().split(" to ")
        initials = {term.strip("`").lower()[0] for term in re.findall(r"^### (.+)$", group, re.MULTILINE)}
        assert initials
        assert min(initials) >= first
        assert max(initials) <= (last or [first])[0]
