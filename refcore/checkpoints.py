"""Locations of checkpoints: the embedded ones (`playground:NAME`), and errors for those that cannot be loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from os.path import exists, expanduser  # Path's own raise where a name is too long, or no user's
from pathlib import Path

from refcore.errors import CheckpointError, unknown

EMBEDDED = "playground:"
"""Prefix of the checkpoints that ship with refcore: `playground:clip`, `playground:blip2`, `playground:turbo`."""
PLAYGROUND = "refcore_playground"
"""The package that holds them."""
HUB = re.compile(r"(?:hf-hub:)?(\w[\w.-]*/\w[\w.-]*)(?:@[\w./-]+)?")
"""A hub id, owner/name, with open_clip's prefix and a revision if need be."""
PATH = re.compile(r"[/.~]|local-dir:|.*\.(safetensors|pth|pt|bin|ckpt|json|png|jpe?g)$")
"""Begins what can only be a file or folder, or matches it whole."""


@dataclass(frozen=True)
class Download:
    """What a plugin reads of a checkpoint on a hub."""

    include: tuple[str, ...] = ("*.json", "*.txt", "*.model", "*.safetensors")
    """Patterns of its files, as `hf download --include` takes them."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Part -> its number of parameters, where it is known."""
    reading: frozenset[str] = frozenset()
    """Parts that only read the prompts, and are dropped after that."""

    def __or__(self, other: Download) -> Download:
        """What two plugins read of the same checkpoint."""
        include = tuple(dict.fromkeys((*self.include, *other.include)))
        return Download(include, {**self.parts, **other.parts}, self.reading | other.reading)

    def command(self, repository: str) -> str:
        """The command line that brings it into the hub's cache.

        >>> Download(("*.json",)).command("owner/name")
        "hf download owner/name --include '*.json'"
        """
        return " ".join(["hf download", repository, *(f"--include {shlex.quote(part)}" for part in self.include)])


def hub_id(model: str) -> str | None:
    """The hub id that a config's `model` may be; None for files, folders, embedded checkpoints and other names.

    >>> hub_id("hf-hub:owner/name"), hub_id("./owner/name"), hub_id("ViT-B-32")
    ('owner/name', None, None)
    """
    found = HUB.fullmatch(model)
    return found[1] if found and not PATH.match(model) else None


def refuse_absent(model: str, field: str) -> None:
    """Raises for an embedded checkpoint that does not exist, and for a path where there is nothing.

    Raises:
        CheckpointError: naming the field.
    """
    place = resolve(model).removeprefix(LOCAL)
    if PATH.match(model) and not exists(expanduser(place)):
        raise CheckpointError(f'{field} is "{model}", and there is no such file or folder')


HASHES = "hashes.json"
"""File beside the embedded checkpoints: name -> digest."""
LOCAL = "local-dir:"
"""Prefix of folders in the names of open_clip and timm."""
MOST_FILES = 10_000
"""Files of a checkpoint's folder; the largest models have some hundreds."""
WHOLE = 1 << 30
BLOCK = 1 << 20


def resolve(model: str) -> str:
    """The folder of an embedded checkpoint (`playground:NAME`); any other model (hub id, path) is returned unchanged.

    The package that holds it is located, not imported, so that no referee ever loads the playground's code.

    Raises:
        CheckpointError: no embedded checkpoint has this name, or its files are missing or were changed.
    """
    long = len(model) > 4000 or any(len(part.encode(errors="replace")) > 255 for part in model.split("/"))
    if long or "\0" in model:
        problem = "is longer than a path can be" if long else "has a null character"
        raise CheckpointError(f'model "{json.dumps(model[:60])[1:-1]}..." {problem}; check the name')
    if not model.startswith(EMBEDDED):
        return model
    name = model.removeprefix(EMBEDDED)
    folder = zoo() / name
    if name not in embedded():
        raise CheckpointError(str(unknown("embedded checkpoint", model, [EMBEDDED + known for known in embedded()])))
    if not any(path.is_file() and path.stat().st_size for path in folder.rglob("*.safetensors")):
        raise CheckpointError(
            f'embedded checkpoint "{model}" has no weights in {folder}; '
            f"reinstall refcore, or train it: python -m refcore_playground.train {name} --out {folder}"
        )
    _verify(model, folder)
    return str(folder)


def cache() -> Path:
    """Folder of files converted once for this user: `$XDG_CACHE_HOME/refcore` or `~/.cache/refcore`; not created."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path(expanduser("~")) / ".cache") / "refcore"


_KEEPS: ContextVar[bool] = ContextVar("keeps", default=True)


@contextmanager
def keeping_nothing() -> Iterator[None]:
    """Within it no converted file is written to the cache; for those who only look."""
    token = _KEEPS.set(False)
    try:
        yield
    finally:
        _KEEPS.reset(token)


def keeps() -> bool:
    """Whether converted files are kept in the cache."""
    return _KEEPS.get()


def digest(path: Path) -> str:
    """First 16 digits of the SHA-256 of a file, or of all files of a folder with their names.

    A folder of more than WHOLE bytes is sampled, which its digest says: of each large file, the size and 64 evenly
    spaced blocks of a mebibyte. That tells models and versions apart, not every flipped bit.
    """
    files = files_in(path) if path.is_dir() else [path]
    return _digest(path, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


def files_in(folder: Path) -> list[Path]:
    """All regular files in a folder and below it, sorted.

    Raises:
        CheckpointError: there are more than MOST_FILES, as below the root of a disk.
    """
    found: list[Path] = []
    for number, path in enumerate(folder.rglob("*")):
        if number >= MOST_FILES:
            raise CheckpointError(
                f'"{folder}" holds more than {MOST_FILES:,} files; expected the folder of one checkpoint'
            )
        if path.is_file():
            found.append(path)
    return sorted(found)


def digests(models: Iterable[str]) -> dict[str, str]:
    """Name -> digest of each model that is embedded or a local file or folder; hub ids have none."""
    found = {}
    for model in sorted(set(models) - {""}):
        path = Path(expanduser(resolve(model).removeprefix(LOCAL)))
        if path.is_dir() or path.is_file():  # no pipe, which waits
            found[model] = digest(path)
    return found


def _verify(model: str, folder: Path) -> None:
    """Refuses an embedded checkpoint whose files are not those that were shipped.

    Raises:
        CheckpointError: naming both digests.
    """
    shipped = folder.parent / HASHES
    expected = json.loads(shipped.read_text("utf-8")).get(folder.name) if shipped.is_file() else None
    if expected is not None and (found := digest(folder)) != expected:
        raise CheckpointError(
            f'embedded checkpoint "{model}" is not as it was shipped (hash {found}, expected {expected}): files in '
            f"{folder} were changed; reinstall refcore, or copy the folder elsewhere and name it by its path"
        )


@lru_cache(maxsize=64)
def _digest(path: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Cached by file, size and time of change."""
    state = hashlib.sha256()
    sampled = sum(size for _, size, _ in files) > WHOLE
    for file, size, _ in files:
        name = str(file.relative_to(path)) if file != path else file.name
        state.update(f"{name}\0{size}\0".encode())
        if sampled and size > 64 * BLOCK:
            with file.open("rb") as content:
                for place in range(64):
                    content.seek(place * (size - BLOCK) // 63)
                    state.update(content.read(BLOCK))
        else:
            state.update(file.read_bytes())
    return ("sampled:" if sampled else "") + state.hexdigest()[:16]


def embedded() -> list[str]:
    """The names of the embedded checkpoints, sorted."""
    return sorted(path.name for path in zoo().iterdir() if path.is_dir()) if zoo().is_dir() else []


def zoo() -> Path:
    """The folder of the embedded checkpoints, whether or not it exists.

    Raises:
        CheckpointError: the package that holds them is not installed.
    """
    spec = find_spec(PLAYGROUND)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"{PLAYGROUND}, the package of the embedded checkpoints, is not installed; reinstall refcore"
        )
    return Path(spec.submodule_search_locations[0]) / "zoo"


def offline_error(model: str, cause: BaseException | None = None, remedy: str = "") -> CheckpointError:
    """The error to raise for a model that is neither on disk nor downloadable.

    Args:
        model: as written in the config, for example a hub id.
        cause: the library's error; only its type is shown, since its message may have many lines.
        remedy: what to do, in place of the usual advice.
    """
    why = f" ({type(cause).__name__})" if cause is not None else ""
    remedy = remedy or (
        f"connect to the network, or run `hf download {model}` on a machine that is connected, "
        "copy the folder here, and set `model` to it"
    )
    return CheckpointError(f'model "{model}" is not on this machine and cannot be downloaded{why}; {remedy}')


@contextmanager
def needed_by(preset: str | None) -> Iterator[None]:
    """Names the preset in checkpoint errors raised inside; with None they pass unchanged."""
    try:
        yield
    except CheckpointError as error:
        if not preset or f'preset "{preset}"' in str(error):
            raise
        raise CheckpointError(f'preset "{preset}" cannot run: {error}') from error
