"""The machine's device, memory and versions, and the checkpoints that a config needs."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal

import torch

from refcore import registry
from refcore.checkpoints import EMBEDDED, Download, embedded, files_in, hub_id, resolve
from refcore.config.run import RunConfig
from refcore.engine import memory
from refcore.engine.build import uses
from refcore.engine.loading import pick_device
from refcore.errors import CheckpointError, RefcoreError
from refcore.plugin import Plugin
from refcore.runs.rundir import LIBRARIES, versions
from refcore.text_files import special

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per number in the floating-point types of safetensors files."""
SKIPPED = ("safety_checker", ".fp16.", "non_ema")
"""Substrings of the names of files that no plugin loads."""

MOST_HEADER = 100_000_000
"""Bytes of the largest header of a safetensors file, as the library has it."""

State = Literal["embedded", "here", "package", "cached", "missing"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint named by a config, brought by a package, or embedded in refcore."""

    model: str
    """As written in the config."""
    used_by: tuple[str, ...]
    """Dotted fields of the config that name it."""
    state: State
    """embedded: ships with refcore. here: a folder or file. package: an installed package brings it. cached: in the
    hub's cache. missing: to be made or downloaded."""
    parameters: int | None
    """Number of parameters; None if they cannot be counted."""
    bytes: int | None
    """Size of its weights on disk; None if unknown."""
    reading: int = 0
    """Parameters that only read the prompts, and are dropped after that."""
    remedy: str = ""
    """Where it is missing: how to come by it."""

    def in_memory(self, dtype: torch.dtype) -> int | None:
        """Bytes of its weights when loaded in `dtype`; None if unknown."""
        return None if self.parameters is None else self.parameters * dtype.itemsize


def machine() -> dict[str, Any]:
    """This machine's device, name, total_bytes, free_bytes, threads, python, system and versions."""
    device = pick_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": str(device),
        "name": name,
        "total_bytes": memory.total_memory(device),
        "free_bytes": memory.free_memory(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions((*LIBRARIES, "torchjd", "huggingface_hub")),
    }


def own_checkpoints() -> list[Checkpoint]:
    """The checkpoints embedded in refcore."""
    return [_found(EMBEDDED + name, ()) for name in embedded()]


def needed_checkpoints(config: RunConfig) -> list[Checkpoint]:
    """The checkpoints that a config names, without repeats; its plugins are imported, no model is loaded.

    Raises:
        RefcoreError: the config names an unknown or broken plugin.
    """
    needs: dict[str, _Need] = {}
    for where, kind, use in uses(config):
        plugin: Plugin = registry.create(kind, use.name, use.config, where)
        own, downloads = plugin.config, plugin.downloads()
        for name, model in own.checkpoints().items():
            need = needs.setdefault(model, _Need(own.local_fields.get(name, "")))
            need.used_by.append(f"{where}.config.{name}")
            need.add(downloads.get(model))
        try:
            packaged = plugin.packaged()
        except CheckpointError:  # its package is missing, which `problems` reports
            packaged = {}
        for name, file in packaged.items():
            needs.setdefault(name, _Need(file=file)).used_by.append(where)
    return [_needed(model, need) for model, need in needs.items()]


@dataclass
class _Need:
    """What is wanted of one checkpoint, by all of its users together."""

    local: str = ""
    """How to come by it, for a file of this machine."""
    file: Path | None = None
    """Where a package has it."""
    download: Download | None = None
    used_by: list[str] = field(default_factory=list)

    def add(self, download: Download | None) -> None:
        if download is not None:
            self.download = download if self.download is None else self.download | download


def _needed(model: str, need: _Need) -> Checkpoint:
    used_by = tuple(need.used_by)
    if need.file is not None:
        found = replace(_found(str(need.file), used_by), model=model, state="package")
        # A file in another format than safetensors: taken as float32.
        return found if found.parameters is not None or not found.bytes else replace(found, parameters=found.bytes // 4)
    found = _found(model, used_by)
    if found.state != "missing":
        return found
    if need.download is not None:
        parts, dropped = need.download.parts, need.download.reading
        reading = sum(n for part, n in parts.items() if part in dropped)
        found = replace(found, parameters=sum(parts.values()) if parts else None, reading=reading)
    repository = hub_id(model)
    if need.local:
        remedy = need.local
    elif need.download is None or repository is None:
        remedy = "its library looks for it at the first run, and may download it"
    else:
        remedy = f"the first run downloads it, or now: {need.download.command(repository)}"
    return replace(found, remedy=remedy)


def weights_in_memory(checkpoints: Iterable[Checkpoint], dtype: torch.dtype) -> int | None:
    """Bytes of all weights in `dtype`; None if some cannot be counted."""
    sizes = [checkpoint.in_memory(dtype) for checkpoint in checkpoints]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _found(model: str, used_by: tuple[str, ...]) -> Checkpoint:
    state: State = "embedded" if model.startswith(EMBEDDED) else "here"
    try:
        place: Path | None = Path(expanduser(resolve(model).removeprefix("local-dir:")))
    except RefcoreError:  # an unknown embedded checkpoint
        place = None
    if place is not None and not place.exists():
        place, state = _cached(model.removeprefix("hf-hub:")), "cached"
    if place is None:
        return Checkpoint(model, used_by, "missing", None, None)
    try:
        files = [place] if place.is_file() else [file for file in files_in(place) if file.suffix == ".safetensors"]
    except CheckpointError:  # the root of a disk, in place of a checkpoint
        return Checkpoint(model, used_by, state, None, None)
    counted = [_counted(file) for file in files if not any(part in str(file) for part in SKIPPED)]
    if not counted or None in counted:
        sizes = [file.stat().st_size for file in files if file.is_file()]
        return Checkpoint(model, used_by, state, None, sum(sizes) if sizes else None)
    whole = [found for found in counted if found is not None]
    return Checkpoint(model, used_by, state, sum(n for n, _ in whole), sum(size for _, size in whole))


def _counted(file: Path) -> tuple[int, int] | None:
    """(parameters, bytes) of a safetensors file, from its header; None if it is not one."""
    try:
        if special(file) is not None:
            return None
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header: Any = json.loads(opened.read(length)) if length <= MOST_HEADER else None
        tensors = [entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"] in BYTES]
        sizes = [(prod(map(int, entry["shape"])), BYTES[entry["dtype"]]) for entry in tensors]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return sum(n for n, _ in sizes), sum(n * each for n, each in sizes)


def _cached(repository: str) -> Path | None:
    return _cache().get(repository)


@cache
def _cache() -> dict[str, Path]:
    """Hub id -> the folder of its newest revision in the hub's cache."""
    # Imported on use: only checkpoints that are not on disk need it.
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    newest = {repo.repo_id: max(repo.revisions, key=lambda r: r.last_modified, default=None) for repo in repositories}
    return {name: revision.snapshot_path for name, revision in newest.items() if revision is not None}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
