"""Images that were made elsewhere as a variant of a results folder, so that they are measured and shown like others."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from refcore import images
from refcore.errors import RefcoreError, shortened
from refcore.text_files import read_text
from refcore_bench.evaluations import KINDS
from refcore_bench.making import Made
from refcore_bench.published.task import Elsewhere, PublishedTask
from refcore_bench.storing import contact_sheets
from refcore_bench.storing.results import Results
from refcore_bench.task import Progress, TaskPrompt
from refcore_bench.variants import NAME, Variant

BATCH: Final = 20
"""Images in a file of the results folder."""


def take_in(
    out: str | Path,
    folder: Path,
    table: Path | None,
    name: str,
    task: PublishedTask,
    prompts: Sequence[TaskPrompt],
    progress: Progress,
) -> Results:
    """Copies the images into a results folder, as those of a variant.

    Args:
        out: results folder.
        folder: where the images are.
        table: CSV with the columns file and prompt, or None: by the file names of the benchmark's public code.
        name: name of the variant.
        task: the benchmark.
        prompts: its prompts.
        progress: progress callback; receives one line.

    Raises:
        RefcoreError: there is no such folder, no image of a prompt, or the folder of results has other images under
            this name.
    """
    if not folder.is_dir():
        raise RefcoreError(f'"{folder}" is no folder; expected one with images')
    if not NAME.fullmatch(name):
        raise RefcoreError(f'--name "{name}" is no name of a variant; use letters, digits, -, _, + and .')
    found = task.made_elsewhere(folder, prompts) if table is None else _listed(folder, table, prompts)
    if not found:
        raise RefcoreError(
            f'"{folder}" has no image of a prompt of {task.wording.title}; name the files as its public code does, or '
            "list file and prompt in a CSV (--csv)"
        )
    settings = {"images": len(found), "digest": _digest(folder, found)}
    variant = Variant(name, "images", settings, (), {})
    results = Results(out)
    results.claim([variant], found[0].prompt.split, prompts, task)
    done = results.done().get(variant.name, set())
    missing = [one for one in found if (*_key(one.prompt), one.number) not in done]
    by_number: dict[int, list[Elsewhere]] = {}
    for one in missing:
        by_number.setdefault(one.number, []).append(one)
    for number, own in by_number.items():
        for first in range(0, len(own), BATCH):
            part = own[first : first + BATCH]
            levels = [_levels(one) for one in part]
            made = Made(levels, {}, 0, 0.0, 0.0, dict.fromkeys(KINDS, 0.0))
            results.add(variant, [one.prompt for one in part], number, made, 0)
    asked = len({_key(one.prompt) for one in found})
    progress(f"{name}: {len(found)} images of {asked} of {len(prompts)} prompts")
    results.gather()
    contact_sheets.write_sheets(results)
    return results


def _listed(folder: Path, table: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
    """The images that a CSV names: file, prompt, and perhaps category and seed."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(table))))
    except (OSError, ValueError, csv.Error) as error:
        raise RefcoreError(f'--csv "{table}" cannot be read: {error}') from error
    by_prompt = {(category, one.prompt): one for one in prompts for category in (one.category, "")}
    counts: dict[tuple[str, ...], int] = {}
    found = []
    for number, row in enumerate(rows, start=2):
        where = f'--csv "{table}", line {number}'
        if not row.get("file") or not row.get("prompt"):
            raise RefcoreError(
                f"{where} has no file or no prompt; expected the columns file and prompt in its first line"
            )
        one = by_prompt.get((row.get("category") or "", row["prompt"].strip()))
        if one is None:
            raise RefcoreError(f'{where}: "{shortened(row["prompt"], 80)}" is no prompt of the benchmark')
        path = (folder / row["file"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise RefcoreError(f'{where}: there is no file "{row["file"]}" in "{folder}"')
        seed = row.get("seed") or ""
        if seed and not seed.isdigit():
            raise RefcoreError(f'{where}: seed is "{seed}"; expected a number from 0')
        counts[_key(one)] = counts.get(_key(one), -1) + 1
        found.append(Elsewhere(path, one, int(seed) if seed else counts[_key(one)]))
    return found


def _levels(one: Elsewhere) -> images.Levels:
    """The image: its file, or its quarter of that."""
    whole = images.read_levels(one.path)
    if one.quarter is None:
        return whole
    height, width = whole.shape[0] // 2, whole.shape[1] // 2
    row, column = divmod(one.quarter, 2)
    return whole[row * height : (row + 1) * height, column * width : (column + 1) * width].copy()


def _digest(folder: Path, found: Sequence[Elsewhere]) -> str:
    """Hash of the files' names and contents."""
    total = hashlib.sha256()
    for path in sorted({one.path for one in found}):
        total.update(str(path.relative_to(folder.resolve()) if path.is_absolute() else path.name).encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _key(prompt: TaskPrompt) -> tuple[str, str, str]:
    return prompt.split, prompt.category, prompt.prompt
