"""The playground task: prompts drawn from the grammar, images judged by reading the scene from its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from refcore.config import presets
from refcore.config.terms import PROMPT
from refcore.contracts.judge import Verdict
from refcore.images import Levels
from refcore_bench.scorers import Scorer
from refcore_bench.task import REPORTING, TUNING, Accepts, Progress, Recipe, Score, Settings, Wording
from refcore_bench.tasks import playground_baselines
from refcore_bench.tasks.playground_baselines import WithBaselines
from refcore_bench.tasks.playground_prompts import (
    BLIND_REPORTING_SEED,
    BLIND_TUNING_SEED,
    REPORTING_SEED,
    TUNING_SEED,
)
from refcore_bench.thresholds import Threshold, by_threshold, measure_thresholds
from refcore_playground.draw import CATEGORIES, SPLITS
from refcore_playground.judge import judge


class Playground(WithBaselines):
    """Scenes of the playground; a referee accepts an image that scores as high as nearly all clean renders do."""

    name = presets.DEFAULT
    wording = Wording(
        title="The playground benchmark",
        prompts="prompts",
        source="prompts of seed {}",
        right="whole prompts",
        judge="the judge",
        facts="single facts",
        hack="accepted by every referee that the variant optimises for (all of the preset's, where it has none), "
        "rejected by the judge",
        suffix=" right",
    )
    categories = CATEGORIES
    splits = SPLITS
    tuning_seed, reporting_seed = TUNING_SEED, REPORTING_SEED
    """Seeds of the prompts on which settings may be chosen, and of those for reported numbers."""

    def set_of(self, source: int | str | None) -> str:
        sets: dict[int | str | None, str] = {self.tuning_seed: TUNING, self.reporting_seed: REPORTING}
        return sets.get(source, "other")

    def clash(self, prompts: Sequence[Mapping[str, str]], before: Sequence[Mapping[str, str]]) -> str | None:
        """Within a split and category, the longer of two sets of one seed begins with the shorter."""
        ours, theirs = _by_kind(prompts), _by_kind(before)
        for kind in ours.keys() & theirs.keys():
            for a, b in zip(ours[kind], theirs[kind], strict=False):
                if a != b:
                    return b
        return None

    def measure_thresholds(self, scorers: Iterable[Scorer], progress: Progress) -> dict[str, Threshold]:
        scorers = list(scorers)
        progress(f"measuring the thresholds of {', '.join(scorer.label for scorer in scorers)} on clean renders")
        return measure_thresholds(scorers)

    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        return by_threshold(thresholds)

    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict:
        return judge(levels, prompt)


class Blind(Playground):
    """The same scenes, drawn by a prior that is told nothing: what is right in a picture comes from the referees.

    Every prior has the empty prompt, whatever the variant, and samples are unconditional.
    """

    name = "playground-blind"
    wording = replace(Playground.wording, title="The playground benchmark, the prior told nothing")
    tuning_seed, reporting_seed = BLIND_TUNING_SEED, BLIND_REPORTING_SEED

    @property
    def preset(self) -> str:
        return self.name

    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        return playground_baselines.blind_inversions(settings)

    def samplings(self) -> dict[str, Settings]:
        return playground_baselines.blind_samplings()

    def names(self) -> list[str]:
        return [self.name, *self.samplings(), *self.inversions(presets.get(self.name).settings)]

    def quick(self) -> list[str]:
        return [self.name, playground_baselines.SAMPLING, super().quick()[-1]]

    def prepared(self, settings: Settings) -> Settings:
        canvas = settings["canvas"]
        told_nothing = {**canvas, "prompt": ""} if isinstance(canvas, dict) else canvas
        priors = [{**prior, "prompt": ""} for prior in settings.get("priors") or []]
        return {**settings, "canvas": told_nothing, "priors": priors}

    def refusal(self, settings: Settings) -> str | None:
        if "pipeline" in settings:
            if PROMPT not in settings["prompt"]:
                return None
            return (
                f'the pipeline is told the prompt: prompt is "{settings["prompt"]}"; in the task of the blind prior it '
                'has prompt=""'
            )
        if settings.get("guidance", 0) != 0:
            return (
                f"guidance is {settings['guidance']:g}, which tells the prior the prompt; in the task of the blind "
                "prior a sample has guidance=0"
            )
        return None


def _by_kind(prompts: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in prompts:
        kinds.setdefault((row["split"], row["category"]), []).append(row["prompt"])
    return kinds


PLAYGROUND = Playground()
BLIND = Blind()
