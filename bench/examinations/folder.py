"""Data of other people in a folder: JSON, JSON lines, Parquet and pictures, none from outside the folder.

Each mistake is one message with the file, the row, the field and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from errno import ENOENT
from os.path import expanduser
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from refcore import images
from refcore.errors import RefcoreError, shortened
from refcore.images import Levels
from refcore.prompts import problem_of
from refcore.text_files import read_json, read_text
from refcore_bench.extras import need

if TYPE_CHECKING:
    import polars

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""Of pictures whose names are written without one."""
MISSING = object()


class Record(Mapping[str, Any]):
    """A row of a file, with the errors of its fields."""

    def __init__(self, file: str, row: int | str, values: Mapping[str, Any]) -> None:
        """`row`: its number from 1, or its key."""
        self.file, self.row, self._fields = file, row, values

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def wrong(self, field: str, problem: str) -> RefcoreError:
        """The error of a field, to be raised; the problem says what it is and what is expected."""
        return RefcoreError(f'{self.file}, row {self.row}, "{field}": {problem}')

    def text(self, field: str, default: Any = MISSING) -> str:
        """A caption or name: text that a prompt can be.

        Raises:
            RefcoreError: it is missing, no text, empty, or holds control characters.
        """
        value = self._value(field, "a text", default)
        if not isinstance(value, str):
            raise self.wrong(field, f"it is {_shown(value)}; expected a text")
        if (problem := problem_of(value)) is not None:
            raise self.wrong(field, f"the text {problem}")
        return value

    def listed(self, field: str, of: type | tuple[type, ...], what: str) -> list[Any]:
        """A list whose values are all of a type.

        Raises:
            RefcoreError: it is missing, no list, or holds other values.
        """
        value = self._value(field, f"a list of {what}")
        if not isinstance(value, list):
            raise self.wrong(field, f"it is {_shown(value)}; expected a list of {what}")
        for each in value:
            if not isinstance(each, of) or isinstance(each, bool):
                raise self.wrong(field, f"it holds {_shown(each)}; expected {what}")
        return value

    def _value(self, field: str, what: str, default: Any = MISSING) -> Any:
        value = self._fields.get(field)
        if value is None and default is not MISSING:
            return default
        if value is None:
            known = ", ".join(map(str, self._fields)) or "nothing"
            raise self.wrong(field, f"it is missing; expected {what} (the row has {shortened(known, 200)})")
        return value


class DataFolder:
    """A folder that a user names. Only files inside of it are opened, links that lead out of it included."""

    def __init__(self, path: str | Path, task: str) -> None:
        """`task`: for messages.

        Raises:
            RefcoreError: there is no such folder.
        """
        self.path, self.task = Path(expanduser(path)), task
        try:
            found = self.path.is_dir()
        except (OSError, ValueError):
            found = False
        if not found:
            raise RefcoreError(f'--data "{path}" is no folder; expected the folder with the data of "{task}"')
        self._root = self.path.resolve()

    def __str__(self) -> str:
        return str(self.path)

    def named(self, pattern: str, places: Sequence[str] = (".", "data")) -> list[str]:
        """Names of the regular files that match a pattern in the first of several places that has some, sorted."""
        for place in places:
            found = sorted(path for path in (self.path / place).glob(pattern) if path.is_file())
            if found:
                return [str(path.relative_to(self.path)) for path in found]
        return []

    def missing(self, expected: str) -> RefcoreError:
        """The error for a folder without the files of its task, to be raised."""
        held = sorted(path.name for path in self.path.iterdir())[:8]
        return RefcoreError(
            f'--data "{self.path}" holds {", ".join(held) or "nothing"}; expected {expected} for the task "{self.task}"'
        )

    def file(self, name: str) -> Path:
        """The path of a file inside the folder.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the name is absolute, or leads out of the folder, by ".." or a link; the message is the end of a
                sentence about it.
        """
        parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
        if "\0" in name or not name.strip():
            raise ValueError("is no name of a file")
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
            raise ValueError("is absolute; expected a name inside the folder")
        if ".." in parts:
            raise ValueError('leads out of the folder by ".."; expected a name inside it')
        path = self.path / name
        try:
            if not path.exists():
                raise FileNotFoundError(ENOENT, "it does not exist", str(path))
            if not path.resolve().is_relative_to(self._root):
                raise ValueError(
                    "is a link that leads out of the folder; copy the data into it (`hf download --local-dir FOLDER`)"
                )
        except FileNotFoundError:
            raise
        except OSError as error:  # such as a name that is too long
            raise ValueError(f"cannot be read: {error.strerror or error}") from error
        return path

    def find_picture(self, record: Record, field: str, name: str, places: Sequence[str] = (".",)) -> str:
        """The name, inside the folder, of a picture that a field names, with or without its ending.

        Args:
            record: the row.
            field: that names it.
            name: as the field has it.
            places: folders in which it may lie.

        Raises:
            RefcoreError: it is in none of them, or its name leads out of the folder.
        """
        candidates = [name, *(name + ending for ending in ENDINGS)] if not _has_ending(name) else [name]
        for place in places:
            for candidate in candidates:
                inside = candidate if place == "." else f"{place}/{candidate}"
                try:
                    self.file(candidate if _leads_out(candidate) else inside)
                except FileNotFoundError:
                    continue
                except ValueError as error:
                    raise record.wrong(field, f'the picture "{shortened(name)}" {error}') from error
                return inside
        looked = ", ".join(str(self.path) if place == "." else f"{self.path}/{place}" for place in places)
        raise record.wrong(field, f'there is no picture "{shortened(name)}" in {looked}; unpack the pictures there')

    def levels(self, record: Record, field: str, name: str) -> Levels:
        """The pixels of a picture inside the folder.

        Raises:
            RefcoreError: it cannot be read, as `refcore.images.read_levels`, with the row and field.
        """
        try:
            return images.read_levels(self.path / name)
        except RefcoreError as error:
            raise record.wrong(field, str(error)) from error

    def json(self, name: str) -> Any:
        """The value of a JSON file.

        Raises:
            RefcoreError: it cannot be read, or is no JSON.
        """
        try:
            return read_json(self.file(name))
        except (OSError, ValueError) as error:
            raise RefcoreError(
                f'"{self.path / name}": {_reason(error)}; expected the JSON file as published'
            ) from error

    def json_lines(self, name: str) -> list[Record]:
        """The rows of a file with one JSON object a line; empty lines are skipped.

        Raises:
            RefcoreError: it cannot be read, or a line is no JSON object.
        """
        where = f'"{self.path / name}"'
        try:
            text = read_text(self.file(name))
        except (OSError, ValueError) as error:
            raise RefcoreError(f"{where}: {_reason(error)}; expected one JSON object a line") from error
        found = []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RefcoreError(f"{where}, row {number}: it is not JSON ({shortened(str(error))})") from error
            found.append(self.record(name, number, value))
        return found

    def record(self, name: str, row: int | str, value: Any) -> Record:
        """A row of a file as a record.

        Raises:
            RefcoreError: it is no object with named fields.
        """
        where = f'"{self.path / name}"'
        if not isinstance(value, Mapping):
            raise RefcoreError(f"{where}, row {row}: it is {_shown(value)}; expected an object with named fields")
        return Record(where, row, value)

    def table(self, name: str, columns: Iterable[str]) -> polars.LazyFrame:
        """A Parquet file, with none of its rows read yet.

        Raises:
            RefcoreError: it cannot be read, or lacks a column.
        """
        pl = need("polars")
        where = f'"{self.path / name}"'
        try:
            frame: polars.LazyFrame = pl.scan_parquet(self.file(name), glob=False)
            known = frame.collect_schema().names()
        except Exception as error:  # polars raises many kinds on files that are no Parquet
            raise RefcoreError(
                f"{where}: it is no readable Parquet file ({_reason(error)}); download it again"
            ) from error
        for column in columns:
            if column not in known:
                raise RefcoreError(f'{where}: no column "{column}"; expected it among {", ".join(known)}')
        return frame


def part(frame: polars.LazyFrame, first: int, count: int, name: str) -> list[dict[str, Any]]:
    """Rows first .. first + count of a Parquet file.

    Raises:
        RefcoreError: they cannot be read.
    """
    try:
        return frame.slice(first, count).collect().to_dicts()
    except Exception as error:  # polars raises many kinds on files that are cut off
        raise RefcoreError(
            f'"{name}": rows {first + 1} to {first + count} cannot be read ({_reason(error)})'
        ) from error


def decoded(record: Record, field: str, data: Any) -> Levels:
    """The pixels of a picture in a cell: its bytes, or a struct with `bytes`.

    Raises:
        RefcoreError: there are none, or they are no image; with the row and field.
    """
    value = data.get("bytes") if isinstance(data, Mapping) else data
    if not isinstance(value, bytes):
        raise record.wrong(field, f"it is {_shown(value)}; expected the bytes of a picture (the release with images)")
    return images.decode(value, f'{record.file}, row {record.row}, "{field}"')


def _has_ending(name: str) -> bool:
    return name.lower().endswith((*ENDINGS, ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm"))


def _leads_out(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


def _shown(value: Any) -> str:
    return shortened(f"{value!r}", 60)


def _reason(error: BaseException) -> str:
    return shortened(" ".join(((getattr(error, "strerror", None) or str(error)) or type(error).__name__).split()), 200)
