"""GenEval (Ghosh et al., NeurIPS 2023): 553 prompts of six tags, each image right or wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from refcore.errors import RefcoreError, shortened
from refcore.text_files import parse_json
from refcore_bench.published.public_files import PublicFile
from refcore_bench.published.task import SMALL, Elsewhere, MetricUse, Prompted, PublishedTask, text
from refcore_bench.task import TaskPrompt, Wording

COMMIT: Final = "af4902f24d3ca90ebbb446dd9891a59e0f82725f"
METADATA: Final = "evaluation_metadata.jsonl"
TAGS: Final = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
SPLIT: Final = "all"
KEPT: Final = ("include", "exclude", "tag")
FOLDER: Final = re.compile(r"\d+")
PICTURE: Final = re.compile(r"\d+\.(?:png|jpe?g|webp)")
"""Name of an image; the public code reads PNG files alone."""


class GenEval(PublishedTask):
    """Four images a prompt; the score is the mean of the six tags' means."""

    name = "geneval"
    wording = Wording(title="GenEval", prompts="prompts", source="the prompts {}")
    licence = "MIT, djghosh13/geneval"
    files = (
        PublicFile(
            METADATA,
            f"https://raw.githubusercontent.com/djghosh13/geneval/{COMMIT}/prompts/{METADATA}",
            "sha256:5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
        ),
    )
    metrics: ClassVar[Mapping[str, MetricUse]] = MappingProxyType({"geneval": MetricUse("geneval")})
    seeds = "0-3"
    overall: ClassVar[Literal["groups", "images"] | None] = "groups"
    quick_prompts = (
        TaskPrompt(
            "a photo of a stop sign",
            "single_object",
            SMALL,
            {"tag": "single_object", "include": [{"class": "stop sign", "count": 1}]},
        ),
        TaskPrompt(
            "a photo of a red ball left of a blue kite",
            "position",
            SMALL,
            {
                "tag": "position",
                "include": [
                    {"class": "kite", "count": 1},
                    {"class": "sports ball", "count": 1, "position": ["left of", 0]},
                ],
            },
        ),
    )

    def read(self, folder: Path) -> list[TaskPrompt]:
        """The metadata of the public code, one JSON object a line."""
        found = []
        for number, line in enumerate(text(folder, METADATA).splitlines(), start=1):
            try:
                entry = parse_json(line)
                facts = {key: entry[key] for key in KEPT if key in entry}
                found.append(TaskPrompt(entry["prompt"], entry["tag"], SPLIT, facts))
                if not isinstance(entry["prompt"], str) or entry["tag"] not in TAGS or "include" not in entry:
                    raise ValueError("expected prompt, tag and include")
            except (ValueError, KeyError, TypeError) as error:
                raise RefcoreError(
                    f'--prompts "{folder}": line {number} of {METADATA} is no prompt of GenEval ({error}); expected '
                    "the file of the public repository"
                ) from error
        return found

    def groups(self) -> tuple[str, ...]:
        return TAGS

    def groups_of(self, prompt: Prompted) -> tuple[str, ...]:
        return (prompt["category"],)

    def made_elsewhere(self, folder: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
        """`NUMBER/samples/NUMBER.png` beside `NUMBER/metadata.jsonl`, as the public code writes them."""
        by_prompt = {one.prompt: one for one in prompts}
        found: list[Elsewhere] = []
        counts: dict[str, int] = {}
        for own in sorted(path for path in folder.iterdir() if path.is_dir() and FOLDER.fullmatch(path.name)):
            prompt = _prompt_of(own)
            if prompt not in by_prompt:
                raise RefcoreError(
                    f'"{own}" has images of "{shortened(prompt, 80)}", which is no prompt of the benchmark; expected '
                    "its metadata.jsonl as the public code writes it"
                )
            names = (path for path in (own / "samples").glob("*") if PICTURE.fullmatch(path.name))
            pictures = sorted(names, key=lambda path: (int(path.stem), path.name))
            first = counts.get(prompt, 0)  # of folders of one prompt, the later ones go on counting
            found += [Elsewhere(path, by_prompt[prompt], number) for number, path in enumerate(pictures, first)]
            counts[prompt] = first + len(pictures)
        return found


def _prompt_of(folder: Path) -> str:
    try:
        entry: Any = parse_json(text(folder, "metadata.jsonl"))
        return str(entry["prompt"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefcoreError(
            f'"{folder}" has no metadata.jsonl with a prompt ({error}); expected the folders that the public code '
            "writes, or a CSV (--csv)"
        ) from error


GENEVAL: Final = GenEval()
