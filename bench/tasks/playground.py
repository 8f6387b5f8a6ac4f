"""The world whose truth is known: prompts drawn by its grammar, judged by a reading of the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.contracts.judge import Verdict
from refcore.images import Levels
from refcore_bench.scorers import Scorer
from refcore_bench.task import REPORTING, TUNING, Accepts, Recipe, Score, Settings, Tell, Words, World
from refcore_bench.tasks import baselines
from refcore_bench.tasks.prompts import REPORTING_SEED, TUNING_SEED
from refcore_bench.thresholds import Threshold, by_threshold, calibrate
from refcore_playground.draw import CATEGORIES, SPLITS
from refcore_playground.judge import judge

QUICK = ("sampling-7.5", "{first}-alone")
"""Baselines of `--quick`, beside the preset; {first} is its first referee."""


class Playground(World):
    """Scenes of the playground; a referee accepts what scores as high as nearly all clean renders do."""

    name = presets.DEFAULT
    words = Words(
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

    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        return baselines.inversions(settings)

    def samplings(self) -> dict[str, Settings]:
        return baselines.samplings()

    def names(self) -> list[str]:
        return baselines.names()

    def quick(self) -> list[str]:
        first = RunConfig.from_settings(presets.get(self.name).settings).referee_labels[0]
        return [self.name, *(name.format(first=first) for name in QUICK)]

    def set_of(self, source: int | str | None) -> str:
        sets: dict[int | str | None, str] = {TUNING_SEED: TUNING, REPORTING_SEED: REPORTING}
        return sets.get(source, "other")

    def clash(self, asked: Sequence[Mapping[str, str]], before: Sequence[Mapping[str, str]]) -> str | None:
        """Of two sets of one seed, the shorter list of a split and category is how the longer one begins."""
        ours, theirs = _by_kind(asked), _by_kind(before)
        for kind in ours.keys() & theirs.keys():
            for a, b in zip(ours[kind], theirs[kind], strict=False):
                if a != b:
                    return b
        return None

    def calibrate(self, scorers: Iterable[Scorer], tell: Tell) -> dict[str, Threshold]:
        scorers = list(scorers)
        tell(f"calibrating {', '.join(scorer.label for scorer in scorers)} on clean renders")
        return calibrate(scorers)

    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        return by_threshold(thresholds)

    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict:
        return judge(levels, prompt)


def _by_kind(asked: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in asked:
        kinds.setdefault((row["split"], row["category"]), []).append(row["prompt"])
    return kinds


PLAYGROUND = Playground()
