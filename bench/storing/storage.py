"""A folder of results wherever it is: on this machine, or in a storage that fsspec reaches by its URL, such as S3."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from refcore import text_files
from refcore.errors import RefcoreError, described
from refcore.runs import rundir

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory")
"""Protocols of storages where an object appears whole or not at all; elsewhere a file is renamed when it is whole."""
TOGETHER = 64
"""Objects that are asked for at the same time."""
Stamp = list[Any]
"""What tells a file from an earlier one of the same name: its size, and its time of change or its tag."""


class Storage(ABC):
    """Files by names such as `parts/plain/1a2b.parquet`, in one folder."""

    place: str
    """The folder as it was given, for messages."""
    shared: ClassVar[bool] = True
    """Whether other processes see the files."""

    def __str__(self) -> str:
        return self.place

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            RefcoreError: it is missing, or cannot be read.
        """

    def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of files, in their order; at most `TOGETHER` are in memory."""
        return (self.read(name) for name in names)

    @abstractmethod
    def read_text(self, name: str) -> str:
        """The text of a file of other people, as `refcore.text_files.read_text` reads it.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no regular file, too large, or not UTF-8.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all, and the folders above it.

        Raises:
            RefcoreError: it cannot be written.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def listed(self, pattern: str) -> dict[str, Stamp]:
        """Name -> stamp of the files that match a pattern, whose * stands for any part of one name; sorted by name."""

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Removes files; those that are gone already do not matter."""


def open_storage(place: str | Path) -> Storage:
    """The storage at a path or a URL: `runs/first`, `file:///data/first`, `s3://bucket/first`; nothing is written.

    Raises:
        RefcoreError: an unknown protocol, or one whose package is not installed.
    """
    protocol = URL.match(str(place))
    if protocol is None:
        return Folder(Path(place))
    if protocol[1].lower() == "file":
        return Folder(Path(url2pathname(urlsplit(str(place)).path)))
    return Remote(str(place))


class Folder(Storage):
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise _unreadable(self.path / name, error) from error

    def read_text(self, name: str) -> str:
        return text_files.read_text(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        path = self.path / name
        self.make(path.parent)
        rundir.write(path, data)

    def make(self, folder: Path | None = None) -> None:
        """Makes this folder, or one in it, where it is missing.

        Raises:
            RefcoreError: it cannot be made.
        """
        path = folder or self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rundir.refuse_unwritable(path)
            raise RefcoreError(f'cannot write "{path}": {described(error)}; name another --out') from error

    def exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def listed(self, pattern: str) -> dict[str, Stamp]:
        found = {}
        for path in sorted(self.path.glob(pattern)):
            facts = path.stat()
            found[path.relative_to(self.path).as_posix()] = [facts.st_size, facts.st_mtime_ns]
        return found

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)


class Remote(Storage):
    """A folder in a storage of fsspec, whose settings (keys, endpoint) are those of its environment."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.place = url.rstrip("/")
        protocol = url.partition("://")[0]
        try:
            self._fs, root = url_to_fs(self.place)
        except ImportError as error:
            package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol)
            remedy = f"pip install {package}" if package else described(error)
            raise RefcoreError(f'"{url}": storage of the kind {protocol}:// needs a package: {remedy}') from error
        except ValueError as error:
            raise RefcoreError(
                f'"{url}": {described(error)}; expected a path, or a URL of a storage that fsspec knows, such as s3://'
            ) from error
        self._root = root.rstrip("/")
        self._whole = protocol in WHOLE
        self.shared = protocol != "memory"  # type: ignore[misc]

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes:
        try:
            found: bytes = self._fs.cat_file(self._at(name))
        except Exception as error:  # each storage has its own
            raise _unreadable(f"{self.place}/{name}", error) from error
        return found

    def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
        for first in range(0, len(names), TOGETHER):
            some = names[first : first + TOGETHER]
            try:
                found = self._fs.cat([self._at(name) for name in some])
            except Exception as error:
                raise _unreadable(self.place, error) from error
            yield from (found[self._at(name)] for name in some)

    def read_text(self, name: str) -> str:
        size = self._asked(name, lambda: self._fs.info(self._at(name))["size"])
        if size is not None and size > text_files.MOST_BYTES:
            raise ValueError(f"it has more than {text_files.MOST_BYTES:,} bytes")
        try:
            return self.read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 text (byte {error.start})") from error

    def write(self, name: str, data: bytes) -> None:
        target = self._at(name)
        try:
            if self._whole:
                self._fs.pipe_file(target, data)
                return
            folder, _, last = target.rpartition("/")
            self._fs.makedirs(folder, exist_ok=True)
            beside = f"{folder}/{rundir.partial(Path(last)).name}"
            self._fs.pipe_file(beside, data)
            self._fs.mv(beside, target)
        except Exception as error:
            raise RefcoreError(f'"{self.place}/{name}" cannot be written: {described(error)}') from error

    def exists(self, name: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._asked(name, lambda: self._fs.isfile(self._at(name))))

    def listed(self, pattern: str) -> dict[str, Stamp]:
        self._fs.invalidate_cache()  # other processes write, too
        found = self._asked(pattern, lambda: self._fs.glob(self._at(pattern), detail=True))
        start = len(self._fs._strip_protocol(self._root)) + 1
        return {
            name[start:]: [facts.get("size"), str(facts.get("ETag") or facts.get("mtime") or facts.get("created"))]
            for name, facts in sorted(found.items())
            if facts.get("type", "file") == "file"
        }

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self._fs.rm_file(self._at(name))
            except FileNotFoundError:
                continue
            except Exception as error:
                raise RefcoreError(f'"{self.place}/{name}" cannot be removed: {described(error)}') from error

    def _asked(self, name: str, ask: Any) -> Any:
        try:
            return ask()
        except Exception as error:
            raise _unreadable(f"{self.place}/{name}", error) from error


def _unreadable(what: object, error: Exception) -> RefcoreError:
    return RefcoreError(f'"{what}" cannot be read: {described(error)}')
