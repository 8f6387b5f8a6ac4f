"""DPG-Bench (Hu et al., "ELLA", 2024): 1,065 dense prompts, each with questions that depend on one another."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from refcore.errors import RefcoreError
from refcore_bench.published.public_files import PublicFile
from refcore_bench.published.task import SMALL, Elsewhere, MetricUse, Prompted, PublishedTask, of_ids, text
from refcore_bench.task import TaskPrompt, Wording

COMMIT: Final = "3c228f1dc6c4d3cad0a47493816151a419f14db3"
TABLE: Final = "dpg_bench.csv"
SPLIT: Final = "all"
DENSE: Final = "dense"
"""The one category of the prompts; the categories of the benchmark are those of questions."""
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")


class DpgBench(PublishedTask):
    """Four images a prompt; the score is the mean over images.

    As published, the first row of the table, a question of the first prompt, is skipped (TencentQQGYLab/ELLA, issue
    61). Where another question depends on it, the public code fails on the prompt's images and leaves them out of the
    mean: so is the prompt here.
    """

    name = "dpg-bench"
    wording = Wording(title="DPG-Bench", prompts="prompts", source="the prompts {}")
    licence = "Apache-2.0, TencentQQGYLab/ELLA"
    files = (
        PublicFile(
            TABLE,
            f"https://raw.githubusercontent.com/TencentQQGYLab/ELLA/{COMMIT}/dpg_bench/{TABLE}",
            "git:98457fc9901943f51ff9a30367250fc292533bed",
        ),
    )
    metrics: ClassVar[Mapping[str, MetricUse]] = MappingProxyType({"dpg": MetricUse("dpg")})
    seeds = "0-3"
    overall: ClassVar[Literal["groups", "images"] | None] = "images"
    quick_prompts = (
        TaskPrompt(
            "A red circle lies to the left of a blue square, and both are small.",
            DENSE,
            SMALL,
            {
                "id": "0",
                "questions": [
                    {"id": 1, "text": "Is there a circle?", "dependency": [], "category": "entity"},
                    {"id": 2, "text": "Is the circle red?", "dependency": [1], "category": "attribute"},
                ],
            },
        ),
    )

    def read(self, folder: Path) -> list[TaskPrompt]:
        """The public table, one question a row."""
        prompts: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        try:
            rows = list(csv.DictReader(io.StringIO(text(folder, TABLE))))
        except csv.Error as error:
            raise RefcoreError(
                f'--prompts "{folder}": {TABLE} is no table ({error}); expected that of the public repository'
            ) from error
        for number, row in enumerate(rows):
            try:
                own = prompts.setdefault(row["item_id"], (row["text"], []))
                parents = [int(part) for part in row["dependency"].split(",")]
                if number > 0:  # as published
                    own[1].append(
                        {
                            "id": int(row["proposition_id"]),
                            "text": row["question_natural_language"],
                            "dependency": [parent for parent in parents if parent != 0],
                            "category": row["category_broad"],
                        }
                    )
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise RefcoreError(
                    f'--prompts "{folder}": row {number + 1} of {TABLE} is no question ({error}); expected the table '
                    "of the public repository"
                ) from error
        return [
            TaskPrompt(prompt, DENSE, SPLIT, {"id": item, "questions": questions})
            for item, (prompt, questions) in prompts.items()
            if _is_whole(questions)
        ]

    def groups(self) -> tuple[str, ...]:
        return (DENSE,)

    def groups_of(self, prompt: Prompted) -> tuple[str, ...]:
        return (DENSE,)

    def made_elsewhere(self, folder: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
        """`ID.png`, each a grid of 2 x 2 images, as the public code takes them."""
        by_id = {one.facts["id"]: one for one in prompts}
        found = []
        for path, one, place in of_ids(folder, PICTURES, by_id):
            found += [Elsewhere(path, one, 4 * place + quarter, quarter) for quarter in range(4)]
        return found


def _is_whole(questions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are questions, and each has those that it depends on."""
    ids = {question["id"] for question in questions}
    return bool(ids) and all(ids.issuperset(question["dependency"]) for question in questions)


DPG_BENCH: Final = DpgBench()
