"""Public files that a benchmark's prompts are in: downloaded once into the user's cache, each checked by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from refcore import checkpoints
from refcore.errors import RefcoreError
from refcore_bench.storing.storage import Folder

LARGEST = 1 << 26
"""Bytes of the largest file that is downloaded."""
SECONDS = 60.0


@dataclass(frozen=True)
class PublicFile:
    """A file of a public repository, at one commit."""

    name: str
    url: str
    hash: str
    """`sha256:...` of its bytes, or `git:...`, the name of its blob in the repository."""

    def check(self, data: bytes, place: str | Path, remedy: str) -> None:
        """Raises unless these are the bytes of the file.

        Args:
            data: its bytes.
            place: where they are from, for the message.
            remedy: what to do, for the message.

        Raises:
            RefcoreError: they are others.
        """
        kind, _, wanted = self.hash.partition(":")
        found = blob(data) if kind == "git" else hashlib.sha256(data).hexdigest()
        if found != wanted:
            raise RefcoreError(
                f'"{place}" is not the file that the benchmark was defined with: its hash is {found}, expected '
                f"{wanted}; {remedy}"
            )


def blob(data: bytes) -> str:
    """The name that git gives to a file's bytes.

    >>> blob(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def brought(name: str, files: Sequence[PublicFile]) -> Path:
    """The folder of a benchmark's files in the user's cache; those that it lacks are downloaded.

    Args:
        name: of the benchmark.
        files: that the folder is to hold.

    Raises:
        RefcoreError: a file cannot be downloaded, or is another one than it should be.
    """
    folder = checkpoints.cache() / "prompts" / name
    for file in files:
        path = folder / file.name
        if path.is_file():
            file.check(Folder(folder).read(file.name), path, "remove it, and it is downloaded again")
            continue
        data = _downloaded(file)
        file.check(data, file.url, "get that version by hand, and name its folder with --prompts")
        Folder(folder).write(file.name, data)
    return folder


def _downloaded(file: PublicFile) -> bytes:
    try:
        with urlopen(file.url, timeout=SECONDS) as answer:  # the addresses are constants of this package
            data: bytes = answer.read(LARGEST + 1)
    except (HTTPException, OSError, ValueError) as error:
        raise RefcoreError(
            f"{file.url} cannot be downloaded ({error}); connect to the network, or name a folder that holds "
            f"{file.name} with --prompts"
        ) from error
    if len(data) > LARGEST:
        raise RefcoreError(f"{file.url} has more than {LARGEST:,} bytes; expected the file of the benchmark")
    return data
