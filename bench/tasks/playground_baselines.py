"""Baselines on the same frozen checkpoints, each derived from a preset, so that it follows the preset's changes.

A recipe turns the settings of a preset into those of a variant. Settings are plain nested dicts, as in a YAML file.
"""

from __future__ import annotations

import copy
from itertools import combinations

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.start import SampleStart
from refcore_bench.task import Recipe, Settings, Task
from refcore_playground.world import SIZE

GUIDANCES = (3.0, 7.5, 30.0)
"""Classifier-free guidance scales of the plain samples: mild, the usual one, and score distillation's."""
DDIM_STEPS = 50
TURBO = "turbo"
"""The sample of the one-step generator, without guidance."""
BEST_OF_N = "best-of-n"
BEST_IN_TIME = "best-in-time"
"""Best of as many samples as take the preset's seconds."""
SAMPLING = "sampling"
SEARCH_STEPS = 10
"""DDIM steps of a sample to choose from where the prior is told nothing, few, so that there are many samples."""
QUICK = ("sampling-7.5", "{first}-alone")
"""Baselines of `--quick`, beside the preset; {first} is its first referee."""


class WithBaselines(Task):
    """A task whose named variants are the default preset and its baselines, whatever the prompts."""

    @property
    def preset(self) -> str:
        return presets.DEFAULT

    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        return inversions(settings)

    def samplings(self) -> dict[str, Settings]:
        return samplings()

    def names(self) -> list[str]:
        return names()

    def quick(self) -> list[str]:
        first = RunConfig.from_settings(presets.get(self.preset).settings).referee_labels[0]
        return [self.preset, *(name.format(first=first) for name in QUICK)]


def inversions(settings: Settings) -> dict[str, Recipe]:
    """Name -> recipe of every baseline that is an inversion; the referees are those of `settings`."""
    alone = {f"{label}-alone": _only(label) for label in RunConfig.from_settings(settings).referee_labels}
    return {"sds-alone": without_referees, **alone, "no-prior": without_prior, "pixels": on_pixels}


def samplings() -> dict[str, Settings]:
    """Name -> settings (see `refcore_bench.samples.sampling.Sampling`) of every baseline that samples.

    best-of-n draws samples as the default preset does for its start, and chooses as the preset chooses candidates: they
    differ only in how they spend the rest of the evaluations.
    """
    plain = {f"sampling-{g:g}": {"guidance": g, "steps": DDIM_STEPS} for g in GUIDANCES}
    config = RunConfig.from_settings(presets.get(presets.DEFAULT).settings)
    start = config.init if isinstance(config.init, SampleStart) else SampleStart()
    chosen = {"guidance": start.guidance, "steps": start.steps, "choose": True, "by": config.candidates.by}
    turbo = {"model": "playground:turbo", "guidance": 1.0, "steps": 1}
    return {**plain, TURBO: turbo, BEST_OF_N: chosen}


def blind_inversions(settings: Settings) -> dict[str, Recipe]:
    """`inversions`, and each pair of referees."""
    labels = RunConfig.from_settings(settings).referee_labels
    pairs = {"+".join(pair): _only(*pair) for pair in combinations(labels, 2)}
    own = inversions(settings)
    return {**{f"{label}-alone": own[f"{label}-alone"] for label in labels}, **pairs, **own}


def blind_samplings() -> dict[str, Settings]:
    """Name -> settings of samples that are told nothing: one, and the referees' choice among many."""
    chosen = {"guidance": 0.0, "steps": SEARCH_STEPS, "choose": True, "by": "loss"}
    return {
        SAMPLING: {"guidance": 0.0, "steps": DDIM_STEPS},
        BEST_OF_N: chosen,
        BEST_IN_TIME: {**chosen, "equal": "seconds"},
    }


def names() -> list[str]:
    """Every variant with a name of its own: the default preset, then its baselines."""
    return [presets.DEFAULT, *samplings(), *inversions(presets.get(presets.DEFAULT).settings)]


def without_referees(settings: Settings) -> Settings:
    """SDS alone: no referee, and no other prior."""
    changed = copy.deepcopy(settings)
    changed["referees"] = []
    sds = [prior for prior in changed.get("priors") or [] if prior["name"] == "sds"]
    changed["priors"] = sds or [{"name": "sds"}]
    if changed.get("output") == "best":  # no referee is left to rank them
        changed["output"] = "ema" if changed.get("ema") else "current"
    for needs_referees in ("candidates", "early_stop"):
        changed.pop(needs_referees, None)
    if isinstance(changed.get("init"), dict):
        changed["init"].pop("rounds", None)
    return _startable(_one_sided(changed))


def only_referees(settings: Settings, *wanted: str) -> Settings:
    """Some of the referees, by label; else only `candidates.until` changes, which cannot ask one that is not there."""
    changed = copy.deepcopy(settings)
    labels = RunConfig.from_settings(settings).referee_labels
    terms = zip(changed["referees"], labels, strict=True)
    changed["referees"] = [{**term, "label": own} for term, own in terms if own in wanted]
    candidates = changed.get("candidates") or {}
    if isinstance(candidates.get("until"), dict):
        until = {label: loss for label, loss in candidates["until"].items() if label in wanted}
        candidates |= {"until": until} if until else {"until": None, "tries": 1}
    return changed


def without_prior(settings: Settings) -> Settings:
    """The referees without any prior, starting from noise, since a sample would bring the diffusion model back."""
    return _startable(_one_sided({**copy.deepcopy(settings), "priors": []}))


def on_pixels(settings: Settings) -> Settings:
    """Pixels instead of latents, at the size of a scene; priors on latents see them through their encoder."""
    changed = {**copy.deepcopy(settings), "canvas": {"name": "pixel"}, "size": SIZE}
    return _from_noise(changed)


def _only(*labels: str) -> Recipe:
    return lambda settings: only_referees(settings, *labels)


def _one_sided(settings: Settings) -> Settings:
    """A balance of referees against priors is a plain sum where one side is missing."""
    combine = settings.get("combine") or {}
    if combine.get("name") == "norm_balance":
        settings["combine"] = {"name": "sum", "votes": combine.get("votes", "weighted")}
    return settings


def _startable(settings: Settings) -> Settings:
    """Replaces a start from a sample if the prior it names is gone."""
    labels = RunConfig.from_settings({**settings, "init": None}).prior_labels
    start = settings.get("init")
    if not labels:
        return _from_noise(settings)
    if isinstance(start, dict) and start.get("prior") not in (None, *labels):
        settings["init"] = {**start, "prior": None}
    return settings


def _from_noise(settings: Settings) -> Settings:
    """Replaces a start from a sample by noise; a start from an image file stays, without a prior's name."""
    start = settings.get("init")
    if isinstance(start, dict) and "image" in start:
        settings["init"] = {**start, "prior": None}
    elif not isinstance(start, str) or start == "sample":
        settings.pop("init", None)
    return settings
