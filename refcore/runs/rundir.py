"""The folder of a run: images, config, history, checkpoints and result, each file written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from refcore import images
from refcore.config.settings import dump_yaml
from refcore.errors import RefcoreError
from refcore.runs import points
from refcore.runs.lock import LOCK, FolderLock

if TYPE_CHECKING:
    from torch import Tensor

    from refcore.config.run import RunConfig

CONFIG = "config.yaml"
HISTORY = "history.jsonl"
RESULT = "result.json"
FACTS = "run.json"
"""What a run's folder says of it beside the config: preset, threads, versions, and when it was resumed."""
CHECKPOINTS = "checkpoints"
"""Folder of its checkpoints."""
FLUSH_SECONDS = 5.0
"""Longest time between two writes of the history."""
PARTIAL = ".refcore-{}.partial"
"""File that is being written; a killed process may leave one, which the next claim of the folder removes."""
RECORDING, REPORT = "recording", "report.html"
"""Folder of what is recorded for the report, and the report."""
IMAGES = "image_*.png"
OWN = (
    FACTS,
    CONFIG,
    HISTORY,
    RESULT,
    REPORT,
    IMAGES,
    *(f"image_*{ending}" for ending in images.BESIDE),
    PARTIAL.format("*"),
    LOCK,
)
"""Patterns of what a run writes into its folder."""
OWN_INSIDE = {
    CHECKPOINTS: ("*-step-*.safetensors", PARTIAL.format("*")),
    RECORDING: ("*.png", "*.json", PARTIAL.format("*")),
}
"""Folder in a run's folder -> patterns of what it writes there."""
LIBRARIES = ("refcore", "torch", "torchvision", "open_clip_torch", "transformers", "diffusers", "kornia", "numpy")


class Writable(Protocol):
    """What `RunDir.finish` writes; a `Result` is one."""

    @property
    def images(self) -> Tensor:
        """[B, 3, H, W] in [0, 1]."""

    @property
    def beside(self) -> Sequence[Mapping[str, str]]:
        """[B] what is written beside each image, ending -> text."""

    def to_dict(self, names: Sequence[str], versions: Mapping[str, str]) -> dict[str, Any]:
        """The contents of `result.json`."""


class RunDir:
    """A folder that belongs to one run, locked until `release`. Made by `claim`, or `reopen` for a second time."""

    def __init__(self, path: Path, lock: FolderLock, is_new: bool = True) -> None:
        self.path = path
        self._lock = lock
        self._is_new = is_new
        """Whether the folder was made for this run."""
        self._history: list[str] = []
        self._flushed = time.monotonic()

    @classmethod
    def claim(cls, path: str | Path) -> RunDir:
        """Takes a folder for a run, and makes it where there is none.

        Raises:
            RefcoreError: the folder holds another run, is being written by one, is a file, or cannot be made.
        """
        refuse_taken(path)
        path = Path(path)
        try:
            is_new = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            _sync_folder(path.parent)
            run = cls(path, FolderLock.take(path), is_new)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            refuse_taken(path)  # again, now that nobody else can take it
            run._clear_partial()
        except BaseException:
            run.release()
            raise
        return run

    @classmethod
    def reopen(cls, path: str | Path) -> RunDir:
        """Takes the folder of a run that has ended, however it ended, to go on with it.

        Raises:
            RefcoreError: there is no run, it is still running, or the folder cannot be written to.
        """
        path = Path(path)
        refuse_no_run(path)
        refuse_unwritable(path)
        try:
            run = cls(path, FolderLock.take(path, "it is still running: wait for its end, or end it"), is_new=False)
            run._clear_partial()
        except OSError as error:
            raise _unwritable(path, error) from error
        return run

    @classmethod
    def claim_next(cls, parent: str | Path, prompt: str) -> RunDir:
        """Takes the first free `PARENT/SLUG-N`; two runs that start together get two folders.

        Raises:
            RefcoreError: the folder cannot be made.
        """
        parent = Path(parent)
        n = 0
        while True:
            path = parent / f"{slug(prompt)}-{n}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                n += 1
            except OSError as error:
                raise _unwritable(path, error) from error
            else:
                run = cls.claim(path)
                run._is_new = True
                return run

    def release(self) -> None:
        """Gives the folder back; nothing is written to it afterwards."""
        self._lock.release()

    def abandon(self) -> None:
        """Removes what this run has written, and the folder if it was made for it, and gives it back."""
        for path in own_files(self.path):
            if path.name != LOCK:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.path / CHECKPOINTS).rmdir()
        self.release()
        if self._is_new:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _clear_partial(self) -> None:
        """Removes the files that a killed process was writing."""
        for left in own_files(self.path):
            if fnmatch(left.name, PARTIAL.format("*")):
                left.unlink(missing_ok=True)

    def files(self) -> list[str]:
        """The names of the run's files that are there, sorted."""
        return held(self.path)

    def room(self, name: str) -> Path:
        """A folder inside, made where there is none."""
        path = self.path / name
        try:
            if not path.is_dir():
                path.mkdir()
                _sync_folder(self.path)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes what there is to know of the run beside its config."""
        write_text(self.path / FACTS, to_json(facts, indent=2) + "\n")

    def write_config(self, config: RunConfig) -> None:
        """Writes the resolved config, which reproduces the run."""
        write_text(self.path / CONFIG, dump_yaml(config.settings()))

    def write_image(self, index: int, pixels: Tensor) -> str:
        """Writes `image_INDEX.png` from `pixels`, [3, H, W] floats in [0, 1], and returns the file's name."""
        name = image_name(index)
        write(self.path / name, images.png(images.levels(pixels)))
        return name

    def append_history(self, record: dict[str, Any]) -> None:
        """One line of the history. It reaches the disk every few seconds if there is room, and by `flush_history`."""
        self._history.append(to_json(record) + "\n")
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            try:
                self.flush_history()
            except RefcoreError as error:  # all of it is still here: the run goes on, and there may be room at its end
                self._flushed = time.monotonic()
                logging.getLogger(__name__).warning("%s; the run goes on, and tries again", error)

    def restore_history(self, lines: Sequence[str]) -> None:
        """Begins the history with lines of an earlier process."""
        self._history = [f"{line}\n" for line in lines]

    def flush_history(self) -> None:
        """Writes the whole history, so that a reader never meets half a line."""
        write_text(self.path / HISTORY, "".join(self._history))
        self._flushed = time.monotonic()

    def finish(self, result: Writable, on_images: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Writes what is left of the history, the images, and last the result, whose existence says that all is there.

        A result that an interrupted run has left is replaced.

        Args:
            result: of the run.
            on_images: called between the images and the result.

        Returns:
            The contents of `result.json`.
        """
        self.flush_history()
        remove(self.path / RESULT)  # that of an earlier end, which would go with other images
        names = [self.write_image(index, image) for index, image in enumerate(result.images)]
        for name, files in zip(names, result.beside, strict=True):
            for ending, text in files.items():
                write_text(self.path / beside_name(name, ending), text)
        on_images()
        contents = result.to_dict(names, versions())
        write_text(self.path / RESULT, to_json(contents, indent=2) + "\n")
        return contents


def image_name(index: int) -> str:
    """File name of a sample's image."""
    return f"image_{index}.png"


def beside_name(image: str, ending: str) -> str:
    """File name of what a canvas has written beside an image.

    >>> beside_name("image_0.png", ".svg")
    'image_0.svg'
    """
    return f"{image.removesuffix('.png')}{ending}"


def refuse_taken(path: str | Path) -> None:
    """Refuses a folder that holds a run, before anything expensive is loaded.

    Raises:
        RefcoreError: `path` holds a run, or is a file.
    """
    if not str(path) or "\0" in str(path):
        raise RefcoreError(f"the output folder is {json.dumps(str(path))}; expected the name of a folder after --out")
    try:
        path = Path(path)
        if path.is_symlink() and not path.exists():
            raise RefcoreError(
                f'the output folder "{path}" is a link to "{os.readlink(path)}", which does not exist; '
                "make that folder, or name another with --out"
            )
        if path.exists() and not path.is_dir():
            raise RefcoreError(f'the output folder "{path}" is a file; name another with --out')
        if path.is_dir() and (found := held(path)):
            raise RefcoreError(
                f'the output folder "{path}" holds another run ({found[0]}), which is never overwritten; '
                "name another with --out"
            )
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    refuse_unwritable(path)


def held(folder: Path) -> list[str]:
    """The names of a run's files in a folder, sorted."""
    named = [name for name in (CONFIG, HISTORY, RESULT) if (folder / name).exists()]
    return sorted([*named, *(image.name for image in folder.glob(IMAGES))])


def refuse_no_run(path: Path) -> None:
    """Refuses what is no folder of a run.

    Raises:
        RefcoreError: naming it, with what was expected.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RefcoreError(f'"{path}" {what}; expected the folder of a run, as `refcore invert --out` writes it')
    if not (path / CONFIG).is_file():
        raise RefcoreError(
            f'"{path}" holds no run (no {CONFIG}); expected the folder of a run, as `refcore invert --out` writes it'
        )


def own_files(folder: Path) -> list[Path]:
    """What a run has written into its folder, sorted; no link is followed."""
    found = [path for pattern in OWN for path in folder.glob(pattern)]
    for inner, patterns in OWN_INSIDE.items():
        if not (folder / inner).is_symlink():
            found += [path for pattern in patterns for path in (folder / inner).glob(pattern)]
    return sorted(path for path in found if path.is_symlink() or path.is_file())


def refuse_unwritable(path: Path) -> None:
    """Refuses a file or folder that could not be written, before anything expensive is loaded.

    Raises:
        RefcoreError: it, or the nearest folder above it that exists, is no folder or is read-only.
    """
    place = path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise RefcoreError(f'cannot write "{path}": "{place}" is a file; name another place')
    if not os.access(place, os.W_OK | os.X_OK):
        raise RefcoreError(f'cannot write "{path}": the folder "{place}" is read-only; name another place')


def refuse_existing(path: str | Path, option: str = "") -> None:
    """Refuses to write over a file.

    Args:
        path: of the file.
        option: that named it, for the message: "--html".

    Raises:
        RefcoreError: it exists, as a link or folder too, or could not be written.
    """
    by = f" with {option}" if option else ""
    if str(path) in ("", ".") or "\0" in str(path):
        raise RefcoreError(f"the file to write is {json.dumps(str(path))}; expected the name of a file{by}")
    try:
        if os.path.lexists(path):
            raise RefcoreError(f'"{path}" exists, and is never overwritten; remove it, or name another{by}')
        refuse_unwritable(Path(path))
    except (OSError, ValueError) as error:
        raise _unwritable(Path(path), error) from error


def slug(prompt: str, length: int = 48) -> str:
    """A prompt as part of a folder name: lower case, ASCII words joined by hyphens, cut at a word.

    >>> slug("A red circle, left of a blue square!")
    'a-red-circle-left-of-a-blue-square'
    """
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    kept = ""
    for word in words:
        if len(kept) + len(word) + 1 > length:
            break
        kept = f"{kept}-{word}" if kept else word
    return kept or (words[0][:length] if words else "run")


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions, by distribution; what is not installed is left out."""
    return {name: version for name in libraries if (version := _version(name)) is not None}


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text; otherwise as `write`."""
    write(path, text.encode())


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, also where the power fails.

    Raises:
        RefcoreError: the disk is full, or the folder cannot be written to.
    """
    temporary = partial(path)
    try:
        points.reached(f"{path.name}: to be written")
        with temporary.open("xb") as file:
            points.reached(f"{path.name}: made")
            file.write(data)
            file.flush()
            points.reached(f"{path.name}: written")
            os.fsync(file.fileno())
        points.reached(f"{path.name}: synced")
        os.replace(temporary, path)
        points.reached(f"{path.name}: renamed")
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that is gone, or read-only by now
            temporary.unlink(missing_ok=True)
    points.reached(f"{path.name}: done")


def remove(path: Path) -> None:
    """Removes a file, if it is there. The next write into its folder settles that, too.

    Raises:
        RefcoreError: the folder cannot be written to.
    """
    points.reached(f"{path.name}: to be removed")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    points.reached(f"{path.name}: removed")


def _sync_folder(path: Path) -> None:
    """Brings the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):  # some file systems, and Windows, cannot
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def partial(path: Path) -> Path:
    """A file beside `path` that nobody else has, to write before it takes that name."""
    return path.with_name(PARTIAL.format(secrets.token_hex(8)))


def _unwritable(path: str | Path, error: OSError | ValueError) -> RefcoreError:
    shown = str(path) if len(str(path)) <= 100 else f"{str(path)[:97]}..."
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return RefcoreError(f'cannot write "{shown}": {reason}; free some space or name another --out')


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
