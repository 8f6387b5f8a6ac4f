"""GenEval 2 (2026): 800 prompts with questions, scored by Soft-TIFA. Its data are non-commercial, so they are not
downloaded: only a folder that is named is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from refcore.errors import RefcoreError
from refcore.text_files import parse_json
from refcore_bench.published.task import SMALL, Elsewhere, MetricUse, Prompted, PublishedTask, text
from refcore_bench.task import TaskPrompt, Wording

DATA: Final = "geneval2_data.jsonl"
SPLIT: Final = "all"
ATOMS: Final = tuple(f"{count} atoms" for count in range(3, 11))


class GenEval2(PublishedTask):
    """One image a prompt; columns are the numbers of atoms, the facts that a prompt names."""

    name = "geneval2"
    wording = Wording(title="GenEval 2", prompts="prompts", source="the prompts {}")
    licence = "CC BY-NC 4.0, facebookresearch/GenEval2: not for commercial use"
    files = ()
    metrics: ClassVar[Mapping[str, MetricUse]] = MappingProxyType({"soft-tifa": MetricUse("soft-tifa")})
    seeds = "0"
    overall: ClassVar[Literal["groups", "images"] | None] = "images"
    quick_prompts = (
        TaskPrompt(
            "three red circles",
            ATOMS[0],
            SMALL,
            {"vqa_list": [["How many circles are there?", "three"], ["Are the circles red?", "yes"]]},
        ),
    )

    def prompts(self, folder: Path | None) -> list[TaskPrompt]:
        """The prompts, from a folder.

        Raises:
            RefcoreError: none is named, or it lacks the file.
        """
        if folder is None:
            raise RefcoreError(
                f"--prompts is missing; {self.wording.title} is under CC BY-NC 4.0 and is not downloaded: get {DATA} "
                "from facebookresearch/GenEval2, and name its folder with --prompts"
            )
        return self.read(folder)

    def read(self, folder: Path) -> list[TaskPrompt]:
        """The public file, one JSON object a line."""
        found = []
        for number, line in enumerate(text(folder, DATA).splitlines(), start=1):
            try:
                entry = parse_json(line)
                questions = [[str(question), str(answer)] for question, answer in entry["vqa_list"]]
                atoms = f"{int(entry['atom_count'])} atoms"
                if atoms not in ATOMS:
                    raise ValueError(f"atom_count is {entry['atom_count']}, expected 3 to 10")
                found.append(TaskPrompt(str(entry["prompt"]), atoms, SPLIT, {"vqa_list": questions}))
            except (ValueError, KeyError, TypeError) as error:
                raise RefcoreError(
                    f'--prompts "{folder}": line {number} of {DATA} is no prompt of GenEval 2 ({error}); expected the '
                    "public file"
                ) from error
        return found

    def groups(self) -> tuple[str, ...]:
        return ATOMS

    def groups_of(self, prompt: Prompted) -> tuple[str, ...]:
        return (prompt["category"],)

    def made_elsewhere(self, folder: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
        """There is no such layout: the public code takes a table of prompts and paths, as `--csv` does."""
        raise RefcoreError(
            f'"{folder}": images of {self.wording.title} have no names of their own; list file and prompt in a CSV '
            "(--csv)"
        )


GENEVAL2: Final = GenEval2()
