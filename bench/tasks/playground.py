"""The playground task: prompts drawn from the grammar, images judged by reading the scene from its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from refcore.config import presets
from refcore.contracts.judge import Verdict
from refcore.images import Levels
from refcore_bench.scorers import Scorer
from refcore_bench.task import REPORTING, TUNING, Accepts, Progress, Score, Wording
from refcore_bench.tasks.playground_baselines import WithBaselines
from refcore_bench.tasks.playground_prompts import REPORTING_SEED, TUNING_SEED
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

    def set_of(self, source: int | str | None) -> str:
        sets: dict[int | str | None, str] = {TUNING_SEED: TUNING, REPORTING_SEED: REPORTING}
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


def _by_kind(prompts: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in prompts:
        kinds.setdefault((row["split"], row["category"]), []).append(row["prompt"])
    return kinds


PLAYGROUND = Playground()
