"""Images that were made elsewhere as a variant of a results folder, so that they are measured and shown like others."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os.path import abspath, isfile, relpath
from pathlib import Path
from typing import Final

from refcore import images
from refcore.errors import RefcoreError, shortened
from refcore.prompts import parse_seeds
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
LARGEST_SEED: Final = 2**63 - 1
"""Largest seed that the column of seeds holds."""


def take_in(
    out: str | Path,
    folder: Path,
    table: Path | None,
    name: str,
    task: PublishedTask,
    prompts: Sequence[TaskPrompt],
    progress: Progress,
    chosen: Sequence[TaskPrompt] | None = None,
    check: Callable[[Sequence[TaskPrompt]], object] = lambda prompts: None,
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
        chosen: the prompts whose images are taken; None: all.
        check: called with the prompts that have images, before anything is copied.

    Raises:
        RefcoreError: there is no such folder, no image of a prompt, one that cannot be read, or the folder of results
            has other images under this name.
    """
    if not folder.is_dir():
        raise RefcoreError(f'"{folder}" is no folder; expected one with images')
    if not NAME.fullmatch(name):
        raise RefcoreError(f'--name "{name}" is no name of a variant; use letters, digits, -, _, + and .')
    asked = {_key(one) for one in (prompts if chosen is None else chosen)}
    first = parse_seeds(task.seeds)[0]  # of the first image of a prompt, so that it has a pair among ours
    if table is None:
        every = [replace(one, number=first + one.number) for one in task.made_elsewhere(folder, prompts)]
    else:
        every = _listed(folder, table, prompts, first)
    found = [one for one in every if _key(one.prompt) in asked]
    if not found:
        raise RefcoreError(
            f'"{folder}" has no image of a prompt of {task.wording.title}; name the files as its public code does, or '
            "list file and prompt in a CSV (--csv)"
        )
    _refuse_twice(found)
    have = {_key(one.prompt) for one in found}
    own = [one for one in prompts if _key(one) in have]
    check(own)
    settings = {"images": len(every), "digest": _digest(folder, every)}  # of all, so that more may be chosen later
    variant = Variant(name, "images", settings, (), {})
    results = Results(out)
    before = results.variants().get(name) if results.source is not None else None
    if before is None:
        for path in dict.fromkeys(one.path for one in found):
            images.read_levels(path)  # a broken file is found before the name stands for these files
    elif before.hash != variant.hash:
        raise RefcoreError(
            f'"{results.storage}" holds other images as "{name}"; give these another name (--name), or choose another '
            "--out"
        )
    results.claim([variant], own[0].split, own, task)
    done = results.done().get(variant.name, set())
    missing = [one for one in found if (*_key(one.prompt), one.number) not in done]
    by_number: dict[int, list[Elsewhere]] = {}
    for one in missing:
        by_number.setdefault(one.number, []).append(one)
    for number, same in by_number.items():
        for first in range(0, len(same), BATCH):
            part = same[first : first + BATCH]
            levels = [_levels(one) for one in part]
            made = Made(levels, {}, 0, 0.0, 0.0, dict.fromkeys(KINDS, 0.0))
            results.add(variant, [one.prompt for one in part], number, made, 0)
    progress(f"{name}: {len(found)} images of {len(own)} of {len(asked)} prompts")
    results.gather()
    contact_sheets.write_sheets(results)
    return results


def _listed(folder: Path, table: Path, prompts: Sequence[TaskPrompt], first: int) -> list[Elsewhere]:
    """The images that a CSV names: file, prompt, and perhaps category and seed; seeds count from `first` without."""
    try:
        text = read_text(table).removeprefix("\ufeff")  # which spreadsheets write
        rows = list(csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError, csv.Error) as error:
        raise RefcoreError(f'--csv "{table}" cannot be read: {error}') from error
    by_prompt: dict[str, list[TaskPrompt]] = {}
    for one in prompts:
        by_prompt.setdefault(one.prompt.strip(), []).append(one)
    counts: dict[tuple[str, ...], int] = {}
    found = []
    for number, row in enumerate(rows, start=2):
        where = f'--csv "{table}", line {number}'
        if not row.get("file") or not row.get("prompt"):
            raise RefcoreError(
                f"{where} has no file or no prompt; expected the columns file and prompt in its first line"
            )
        one = _prompt_in(row, by_prompt, where)
        path = Path(abspath(folder / row["file"]))
        if not path.is_relative_to(abspath(folder)) or not isfile(path):
            raise RefcoreError(f'{where}: there is no file "{row["file"]}" in "{folder}"')
        seed = (row.get("seed") or "").strip()
        if seed and not (seed.isdecimal() and int(seed) <= LARGEST_SEED):
            raise RefcoreError(f'{where}: seed is "{seed}"; expected a number from 0 to {LARGEST_SEED}')
        counts[_key(one)] = counts.get(_key(one), first - 1) + 1
        found.append(Elsewhere(path, one, int(seed) if seed else counts[_key(one)]))
    return found


def _prompt_in(row: Mapping[str, str], by_prompt: Mapping[str, Sequence[TaskPrompt]], where: str) -> TaskPrompt:
    """The prompt that a row of the CSV names, with its category where two have it."""
    category = (row.get("category") or "").strip()
    same = by_prompt.get(row["prompt"].strip(), ())
    found = [one for one in same if category in ("", one.category)]
    text = shortened(row["prompt"], 80)
    if not found:
        others = f' in the category "{category}", but of {_categories(same)}' if same else ""
        raise RefcoreError(f'{where}: "{text}" is no prompt of the benchmark{others}')
    if len(found) > 1:
        raise RefcoreError(f'{where}: "{text}" is a prompt of {_categories(found)}; name one in the column category')
    return found[0]


def _categories(prompts: Sequence[TaskPrompt]) -> str:
    return " and ".join(dict.fromkeys(one.category for one in prompts))


def _refuse_twice(found: Sequence[Elsewhere]) -> None:
    """Raises where two files are the same image of a prompt: one of them would be left out in silence."""
    seen: dict[tuple[object, ...], Elsewhere] = {}
    for one in found:
        other = seen.setdefault((*_key(one.prompt), one.number), one)
        if other is not one:
            raise RefcoreError(
                f'"{other.path}" and "{one.path}" are both the image of seed {one.number} of '
                f'"{shortened(one.prompt.prompt, 80)}"; '
                "remove one of them, or give each a seed of its own in a CSV (--csv)"
            )


def _levels(one: Elsewhere) -> images.Levels:
    """The image: its file, or its quarter of that."""
    whole = images.read_levels(one.path)
    if one.quarter is None:
        return whole
    height, width = whole.shape[0] // 2, whole.shape[1] // 2
    row, column = divmod(one.quarter, 2)
    return whole[row * height : (row + 1) * height, column * width : (column + 1) * width].copy()


def _digest(folder: Path, found: Sequence[Elsewhere]) -> str:
    """Hash of the files' names and contents, the same however the folder is spelled."""
    total = hashlib.sha256()
    for name, path in sorted({Path(relpath(one.path, folder)).as_posix(): one.path for one in found}.items()):
        total.update(name.encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _key(prompt: TaskPrompt) -> tuple[str, str, str]:
    return prompt.split, prompt.category, prompt.prompt
