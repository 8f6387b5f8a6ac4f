"""What a line of GenEval's metadata asks for, read from the facts of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import RefcoreError

RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class Requirement:
    """At least so many things of a class, in a colour and a place; or, excluded, fewer than so many."""

    name: str
    """The detector's name of the class."""
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None
    """Relation, and the index of the requirement whose things it refers to."""
    excluded: bool = False
    called: str = ""
    """The benchmark's name of the class, by which its colour is asked for; "": as the detector's."""

    def __str__(self) -> str:
        return f"fewer than {self.count} {self.name}" if self.excluded else f"{self.count} {self.name}"


def requirements_of(prompt: BenchmarkPrompt, name_of: Callable[[str], str]) -> list[Requirement]:
    """The requirements of a prompt: those of `include` in their order, then those of `exclude`.

    Args:
        prompt: Its facts are `include`, [{class, count, color?, position?: [relation, index]}], and perhaps `exclude`,
            [{class, count}].
        name_of: the benchmark's name of a class -> the detector's.

    Raises:
        RefcoreError: naming the prompt and the fact of another form.
    """
    found = [_requirement(prompt, "include", entry, name_of) for entry in _list(prompt, "include")]
    for index, one in enumerate(found):
        if one.position is not None and not 0 <= one.position[1] < index:
            raise _wrong(prompt, "include", f"position {list(one.position)}", "an earlier entry of include")
    if not found:
        raise _wrong(prompt, "include", "[]", "at least one class")
    return found + [_requirement(prompt, "exclude", entry, name_of) for entry in _list(prompt, "exclude")]


def _list(prompt: BenchmarkPrompt, fact: str) -> list[Any]:
    entries = prompt.facts.get(fact, [])
    if not isinstance(entries, list | tuple):
        raise _wrong(prompt, fact, repr(entries)[:60], "a list of {class, count, ...}")
    return list(entries)


def _requirement(prompt: BenchmarkPrompt, fact: str, entry: Any, name_of: Callable[[str], str]) -> Requirement:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class"), str):
        raise _wrong(prompt, fact, repr(entry)[:60], "{class, count, ...}")
    count, colour, position = entry.get("count", 1), entry.get("color"), entry.get("position")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise _wrong(prompt, fact, f"count {count!r}", "a whole number from 1")
    if position is not None:
        if not (
            isinstance(position, list | tuple)
            and len(position) == 2
            and position[0] in RELATIONS
            and isinstance(position[1], int)
        ):
            raise _wrong(prompt, fact, f"position {position!r:.60}", f"[one of {', '.join(RELATIONS)}, index]")
        position = (position[0], position[1])
    return Requirement(
        name_of(entry["class"]), count, colour, position, excluded=fact == "exclude", called=entry["class"]
    )


def _wrong(prompt: BenchmarkPrompt, fact: str, value: str, expected: str) -> RefcoreError:
    return RefcoreError(f'geneval: {fact} of "{prompt.text}" has {value}; expected {expected}')
