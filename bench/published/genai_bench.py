"""GenAI-Bench (Li et al., CVPR workshop 2024): 527 or 1,600 prompts with skills, scored by VQAScore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from refcore.errors import RefcoreError
from refcore.text_files import parse_json
from refcore_bench.published.task import SMALL, Elsewhere, MetricUse, Prompted, PublishedTask, of_ids, text
from refcore_bench.task import TaskPrompt, Wording

REPOSITORIES: Final[Mapping[str, str]] = MappingProxyType(
    {"genai-bench": "BaiqiL/GenAI-Bench-1600", "genai-bench-527": "zhiqiulin/GenAI-Bench-527"}
)
"""Task -> the dataset on the hub that its prompts are in."""
PROMPTS, SKILLS = "genai_image.json", "genai_skills.json"
BASIC: Final = ("attribute", "scene", "spatial relation", "action relation", "part relation")
ADVANCED: Final = ("counting", "comparison", "differentiation", "negation", "universal")
GROUPS: Final = (*BASIC, "basic", *ADVANCED, "advanced")
ALL: Final = "all"
PICTURES: Final = (".jpeg", ".jpg", ".png", ".webp")


class GenAIBench(PublishedTask):
    """One image a prompt. A prompt counts in every skill that it needs, so in several columns."""

    name = "genai-bench"
    wording = Wording(title="GenAI-Bench", prompts="prompts", source="the prompts {}")
    licence = "of the dataset's card; the code is Apache-2.0, linzhiqiu/t2v_metrics"
    files = ()
    metrics: ClassVar[Mapping[str, MetricUse]] = MappingProxyType({"vqa-score": MetricUse("vqa-score")})
    seeds = "0"
    overall: ClassVar[Literal["groups", "images"] | None] = "images"
    quick_prompts = (
        TaskPrompt("A red circle above a blue square.", ALL, SMALL, {"id": "00000", "skills": ["attribute", "basic"]}),
        TaskPrompt("Three rings and no star.", ALL, SMALL, {"id": "00001", "skills": ["negation", "advanced"]}),
    )

    def prompts(self, folder: Path | None) -> list[TaskPrompt]:
        """The prompts, from a folder, or from the dataset on the hub."""
        return self.read(folder if folder is not None else self._downloaded())

    def read(self, folder: Path) -> list[TaskPrompt]:
        """`genai_image.json` and `genai_skills.json` of the dataset."""
        try:
            listed: Any = parse_json(text(folder, PROMPTS))
            skills: Any = parse_json(text(folder, SKILLS))
            return [
                TaskPrompt(
                    str(entry["prompt"]),
                    ALL,
                    str(len(listed)),
                    {"id": key, "skills": [skill for skill in GROUPS if int(key) in skills.get(skill, ())]},
                )
                for key, entry in listed.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefcoreError(
                f'--prompts "{folder}": {PROMPTS} and {SKILLS} are not those of the dataset ({error}); download '
                f"{REPOSITORIES[self.name]} again"
            ) from error

    def groups(self) -> tuple[str, ...]:
        return GROUPS

    def groups_of(self, prompt: Prompted) -> tuple[str, ...]:
        return tuple(prompt["facts"]["skills"])

    def metrics_of(self, prompt: Prompted) -> tuple[str, ...]:
        return tuple(self.metrics)

    def made_elsewhere(self, folder: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
        """`ID.jpeg`, as in the dataset."""
        by_id = {one.facts["id"]: one for one in prompts}
        return [Elsewhere(*found) for found in of_ids(folder, PICTURES, by_id)]

    def _downloaded(self) -> Path:
        from huggingface_hub import hf_hub_download

        from refcore_plugins.models.hub_reach import offline_unless_reachable

        offline_unless_reachable()
        repository = REPOSITORIES[self.name]
        try:
            paths = [Path(hf_hub_download(repository, name, repo_type="dataset")) for name in (PROMPTS, SKILLS)]
        except Exception as error:  # the library passes on those of its own and of the network
            raise RefcoreError(
                f'the dataset "{repository}" is not on this machine and cannot be downloaded ({type(error).__name__}); '
                f"connect to the network, or name a folder with {PROMPTS} and {SKILLS} by --prompts"
            ) from error
        return paths[0].parent


class GenAIBench527(GenAIBench):
    """The prompts of the VQAScore paper (Lin et al., ECCV 2024)."""

    name = "genai-bench-527"
    wording = Wording(title="GenAI-Bench of 527 prompts", prompts="prompts", source="the prompts {}")


GENAI_BENCH: Final = GenAIBench()
GENAI_BENCH_527: Final = GenAIBench527()
