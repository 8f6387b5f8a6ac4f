"""The task on prompts of one's own: nobody gives a verdict, a panel of witnesses scores every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refcore.contracts.judge import Verdict
from refcore.images import Levels
from refcore_bench.task import Accepts, Score, TaskPrompt, Wording
from refcore_bench.tasks.playground_baselines import WithBaselines
from refcore_bench.thresholds import Threshold

OWN = "own"
"""Source of the prompts: whoever runs the benchmark."""


class Prompts(WithBaselines):
    """Any prompts; the variants are compared with the first one, by the scores of a panel alone."""

    name = "prompts"
    wording = Wording(title="The benchmark on own prompts", prompts="prompts", source="{} prompts")
    categories = ()
    in_given_order = True

    def __init__(self, panel: Sequence[dict[str, Any]] = ()) -> None:
        """`panel`: labelled `witnesses` entries; none are needed to read results."""
        self._panel = list(panel)

    def panel(self) -> list[dict[str, Any]]:
        return self._panel

    def set_of(self, source: int | str | None) -> str:
        return OWN

    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        return lambda score: None

    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict | None:
        return None


def listed(prompts: Sequence[str]) -> list[TaskPrompt]:
    """Each prompt once, in order; own prompts have no categories."""
    return [TaskPrompt(prompt, "", OWN) for prompt in dict.fromkeys(prompts)]


PROMPTS = Prompts()
