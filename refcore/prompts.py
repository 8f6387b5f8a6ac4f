"""Prompts and seeds as people give them: what a prompt may be, files of prompts, and lists of seeds."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path
from typing import Final

from refcore.errors import RefcoreError, printable

MOST_CHARACTERS: Final = 10_000
"""Length of the longest prompt: no model reads more than some thousand words, most read under a hundred."""
MOST_BYTES: Final = 2**24
"""Size of the largest file of prompts; /dev/zero has no end."""
MOST_SEEDS: Final = 10_000
"""All images of a run are made side by side."""
LAYOUT: Final = frozenset("\t\n\r")
"""Control characters that are white space in a prompt."""
MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, and the encodings that they declare."""


def problem_of(prompt: str) -> str | None:
    """What is wrong with a prompt, as the end of a sentence about it; None for a good one.

    >>> problem_of("a cat"), problem_of(" ")
    (None, 'is empty; expected some words')
    """
    if not prompt.strip():
        return "is empty; expected some words"
    if len(prompt) > MOST_CHARACTERS:
        return f"has {len(prompt):,} characters; expected at most {MOST_CHARACTERS:,}, more than any model reads"
    for character in prompt:
        kind = unicodedata.category(character)
        if kind == "Cs":  # what Python makes of bytes on a command line that are not text in its encoding
            return f'"{shown(prompt)}" holds bytes that are not UTF-8 text; give it in UTF-8'
        if kind == "Cc" and character not in LAYOUT:
            return f'"{shown(prompt)}" holds the control character U+{ord(character):04X}; remove it'
    return None


def shown(prompt: str, length: int = 60) -> str:
    """The beginning of a prompt that may hold anything, as one printable line."""
    text = prompt if len(prompt) <= length else f"{prompt[: length - 3]}..."
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def read_prompts(path: Path) -> list[str]:
    """The prompts in a text file, one a line, without the white space around them.

    Empty lines are skipped, and so are comments: lines that begin with `#`. A prompt that begins with that sign is
    written with a backslash before it, `\\#`. The file is UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises:
        RefcoreError: the file is missing, unreadable, too large, in another encoding, holds no prompt or a bad one.
    """
    text = _decoded(path)
    prompts = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        prompt = line.strip().lstrip("\ufeff").lstrip()  # a mark inside: files with marks, one after the other
        if not prompt or prompt.startswith("#"):
            continue
        prompt = prompt.removeprefix("\\") if prompt.startswith("\\#") else prompt
        problem = problem_of(prompt)
        if problem:
            raise RefcoreError(f'the prompts file "{path}", line {number}: the prompt {problem}')
        prompts.append(prompt)
    if not prompts:
        raise RefcoreError(f'the prompts file "{path}" holds no prompt; expected one a line')
    return prompts


def parse_seeds(text: str) -> list[int]:
    """`0,1,2`, or `0-9`, or both: `0-3,7`.

    Raises:
        RefcoreError: the text is malformed, names a seed twice, or more than MOST_SEEDS.

    >>> parse_seeds("0-3,7")
    [0, 1, 2, 3, 7]
    """
    seeds: list[int] = []
    given = shown(text)
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        last = last if dash else first
        if not all(re.fullmatch(r"[0-9]{1,19}", piece) for piece in (first, last)) or int(last) < int(first):
            raise RefcoreError(f'--seeds "{given}" is not a list of seeds; expected 0,1,2 or 0-9')
        if len(seeds) + int(last) - int(first) >= MOST_SEEDS:
            raise RefcoreError(
                f'--seeds "{given}" names more than {MOST_SEEDS:,} seeds; expected fewer, since all images of a run '
                "are made side by side"
            )
        seeds += range(int(first), int(last) + 1)
    if len(set(seeds)) < len(seeds):
        raise RefcoreError(f'--seeds "{given}" names a seed twice, which would make the same image twice')
    return seeds


def _decoded(path: Path) -> str:
    """The text of a file of prompts; a pipe will do, as in `--prompts-file <(sort FILE)`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RefcoreError(f'cannot read the prompts file "{path}": {reason}') from error
    if len(data) > MOST_BYTES:
        raise RefcoreError(f'the prompts file "{path}" has more than {MOST_BYTES:,} bytes; expected one prompt a line')
    mark, encoding = next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", "utf-8"))
    if not mark and b"\0" in data:
        line = 1 + data[: data.index(b"\0")].count(b"\n")
        raise RefcoreError(
            f'cannot read the prompts file "{path}": line {line} holds a NUL character; if it is UTF-16 without a byte '
            f'order mark, convert it: iconv -f UTF-16LE -t UTF-8 "{path}" > NEW'
        )
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        byte = error.object[error.start]
        remedy = f'if it is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 "{path}" > NEW'
        if encoding != "utf-8":
            remedy = "save it as UTF-8"
        raise RefcoreError(
            f'cannot read the prompts file "{path}": line {line} is not {encoding.upper()} text '
            f"(byte 0x{byte:02x}); {remedy}"
        ) from error
