"""Text and JSON in files of other people: regular files only, within a size, so that no pipe waits and no device fills
the memory."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from refcore.errors import RefcoreError

MOST_BYTES: Final = 2**26
"""Size of the largest text that is read: a run of a million steps writes no more of a history."""
KINDS: Final = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
    (stat.S_ISSOCK, "it is a socket"),
)
"""Tests of a file's mode, and what such a file is."""


def special(path: str | Path) -> str | None:
    """What a path leads to that is no regular file, such as "it is a pipe"; None for a regular file.

    Raises:
        OSError: there is nothing.
        ValueError: the path has a null character.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return None
    return next((what for is_kind, what in KINDS if is_kind(mode)), "it is no regular file")


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """The text of a regular file in UTF-8 of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, or not UTF-8; the message is the end of a sentence about it.
    """
    if "\0" in str(path):
        raise ValueError("its name holds a null character")
    if (kind := special(path)) is not None:
        raise ValueError(f"{kind}; expected a file")
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start})") from error


def read_named(path: str | Path, what: str) -> str:
    """The text of a file that a user has named; otherwise as `read_text`.

    Args:
        path: of the file.
        what: named it, such as "init.image", for the message.

    Raises:
        RefcoreError: naming it, with the reason.
    """
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RefcoreError(f'{what}: cannot read "{path}": {reason}') from error


def read_json(path: str | Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file; otherwise as `read_text`.

    Raises:
        OSError: it cannot be read.
        ValueError: as for `read_text`, and what is no JSON, or nested too deeply.
    """
    return parse_json(read_text(path, most))


def parse_json(text: str) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: it is no JSON, or nested too deeply; the message is the end of a sentence about it.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON: {str(error)[:100]}") from error
