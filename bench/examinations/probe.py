"""Probes a referee on the playground: its agreement with the truth, the images its gradient makes, the cost of a view.

Agreement compares a true caption of a scene with one that has a single wrong fact. Then the referee's loss alone is
minimised from noise, and the judge, which takes no part in the run, gives a verdict on each image.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from refcore import images
from refcore.config.run import RunConfig
from refcore.config.settings import override
from refcore.engine.build import resolve
from refcore.engine.inversion import Inversion
from refcore.engine.loading import load_panel
from refcore.engine.offload import resident
from refcore.engine.panel import Panel
from refcore.engine.precision import autocast
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.observers import Observer
from refcore.runs.run import Run
from refcore.testing.case import tensors_of
from refcore.testing.cost import measure
from refcore_bench.statistics.intervals import Estimate, rate
from refcore_playground.draw import NEGATIVES, applies, draw_negative, draw_pair, draw_prompts, draw_scene
from refcore_playground.grammar import parse, write
from refcore_playground.judge import judge
from refcore_playground.render import render_batch
from refcore_playground.world import Scene

RUN: dict[str, Any] = {
    "canvas": {"name": "latent", "config": {"model": "playground:diffusion"}},
    "priors": [],
    "views": {
        "main": {
            "count": 3,
            "augment": [
                {"name": "affine", "config": {"degrees": 5.0, "translate": 0.05}},
                {"name": "gaussian_noise", "config": {"std": [0.0, 0.05]}},
            ],
            "padding": "border",
        }
    },
    "optimizer": {"name": "adam", "lr": 0.07, "schedule": "cosine", "final": 0.1, "warmup": 5},
    "steps": 60,
    "ema": {"decay": 0.9},
    "output": "ema",
}
"""The run of a probe: the referee alone, from noise, without a prior; only the decoder regularises the pictures."""
AT_ONCE = 16
"""Scenes per batch."""
COSTED = 8
"""Views per batch when the cost is measured."""
Z = 1.96
"""Standard deviations on each side of a 95 % interval."""
ALL = "all"
"""Name of all kinds of error together."""


class Pair(NamedTuple):
    """A scene, a true caption of it, and one with a single wrong fact."""

    scene: Scene
    caption: str
    wrong: str


@dataclass(frozen=True)
class Agreement:
    """How well losses separate true captions from wrong ones."""

    auc: float
    """Area under the ROC curve; 0.5 is chance."""
    plus_minus: float
    """Half the width of its 95 % confidence interval."""
    preferred: float
    """Share of scenes whose true caption has the lower loss; a tie counts half."""
    scenes: int

    @classmethod
    def of(cls, right: Sequence[float], wrong: Sequence[float]) -> Agreement:
        """The agreement of the losses of n scenes under their true and their wrong captions."""
        area = auc(right, wrong)
        wins = sum((a < b) + 0.5 * (a == b) for a, b in zip(right, wrong, strict=True))
        return cls(area, auc_interval(area, len(right)), wins / len(right), len(right))


@dataclass(frozen=True)
class ViewCost:
    """Cost of one view in a batch of `views`."""

    forward: float
    """Seconds."""
    backward: float
    """Seconds."""
    megabytes: float
    """Memory held for the backward pass, without frozen weights."""
    views: int
    height: int
    width: int


@dataclass(frozen=True)
class Attempt:
    """An image made by the loss alone, and its verdict."""

    prompt: str
    satisfied: bool
    """The judge's verdict."""
    facts: float
    """Share of the prompt's facts that hold."""
    loss_first: float
    """Loss of the initial noise; all three losses are of the image without augmentation."""
    loss_last: float
    loss_of_true_scene: float
    """Loss of a render that satisfies the prompt."""
    image: str | None = None
    """File name in the output folder, if there is one."""

    @property
    def fooled(self) -> bool:
        """Whether the referee prefers the image to a true scene, and the judge says no."""
        return not self.satisfied and self.loss_last < self.loss_of_true_scene


@dataclass(frozen=True)
class Ascent:
    """Images made from prompts by minimising the loss alone."""

    steps: int
    seconds_per_step: float
    """Seconds for all prompts side by side."""
    attempts: tuple[Attempt, ...]

    @property
    def satisfied(self) -> Estimate:
        """Fraction of prompts with verdict yes, with its 95 % Wilson interval."""
        return rate([attempt.satisfied for attempt in self.attempts])

    @property
    def fooled(self) -> Estimate:
        """Fraction of prompts with verdict no and a loss below a true scene's, with its 95 % Wilson interval."""
        return rate([attempt.fooled for attempt in self.attempts])

    @property
    def facts(self) -> float:
        """Mean share of facts that hold."""
        return sum(attempt.facts for attempt in self.attempts) / len(self.attempts)


@dataclass(frozen=True)
class ProbeReport:
    """The results of a probe."""

    referee: str
    config: Mapping[str, Any]
    seed: int
    agreement: Mapping[str, Agreement]
    """Agreement by kind of error; the first entry is of `all` kinds together."""
    ascent: Ascent
    cost: ViewCost

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        ascent = {
            "satisfied": self.ascent.satisfied.to_dict(),
            "fooled": self.ascent.fooled.to_dict(),
            "facts": self.ascent.facts,
            **asdict(self.ascent),
        }
        return {
            "referee": self.referee,
            "config": dict(self.config),
            "seed": self.seed,
            "agreement": {kind: asdict(found) for kind, found in self.agreement.items()},
            "ascent": ascent,
            "cost": asdict(self.cost),
        }


def run_of(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The run of a probe, with overrides as in `--set`.

    Raises:
        RefcoreError: an override of an unknown field, or one that adds a referee or a prior.
    """
    config = RunConfig.from_settings(override({**RUN, "referees": [{"name": name}]}, list(overrides)))
    if len(config.referees) != 1 or config.priors:
        raise RefcoreError("a probe has one referee and no prior; remove the --set that changes referees or priors")
    if not config.referees[0].wanted:
        raise RefcoreError("referees.0.wanted is false, but a probe needs a wanted prompt; leave it true")
    return config


def probe(config: RunConfig, scenes: int, prompts: int, seed: int = 0, out: Path | None = None) -> ProbeReport:
    """Measures a referee.

    Args:
        config: a run of this referee alone, from `run_of`; its prompts and seeds are replaced.
        scenes: scenes per kind of error, for the agreement with the truth.
        prompts: number of prompts to make images of, cycling through the grammar's categories.
        seed: random seed of scenes, prompts and the start.
        out: folder for the images; by default they are not kept.

    Raises:
        RefcoreError: the referee cannot be loaded or cannot read the playground's prompts, or `out` is taken.
    """
    if out is not None:
        rundir.refuse_taken(out)
    wanted = prompts_with_scenes(prompts, seed)
    samples = {"prompts": [prompt for prompt, _ in wanted], "seeds": [seed]}
    config = resolve(RunConfig.from_settings({**config.settings(), **samples}))
    panel, found = agreement(config, hard_negatives(scenes, seed))
    (judge,) = panel.referees
    return ProbeReport(
        referee=judge.term.name,
        config=judge.term.config,
        seed=seed,
        agreement=found,
        cost=view_cost(panel),
        ascent=ascend(config, [scene for _, scene in wanted], out),
    )


def agreement(config: RunConfig, pairs: Mapping[str, Sequence[Pair]]) -> tuple[Panel, dict[str, Agreement]]:
    """Agreement of a config's only referee, by kind of error; the first entry is of `all` kinds together.

    Returns:
        The panel that judged the captions, and the agreement.
    """
    drawn = [pair for several in pairs.values() for pair in several]
    captions = [caption for pair in drawn for caption in (pair.caption, pair.wrong)]
    judged = replace(config.panel, samples=[(caption, 0) for caption in captions], chunk=config.chunk or AT_ONCE)
    panel = load_panel(judged)
    losses: list[float] = []
    for first in range(0, len(drawn), AT_ONCE):
        batch = drawn[first : first + AT_ONCE]
        twice = _pixels([pair.scene for pair in batch]).repeat_interleave(2, 0).to(panel.device)
        places = range(2 * first, 2 * (first + len(batch)))
        (found,) = panel.losses(twice, places).values()
        losses += found.float().tolist()
    rights, wrongs = losses[::2], losses[1::2]
    by_kind, begin = {ALL: Agreement.of(rights, wrongs)}, 0
    for kind, several in pairs.items():
        own = slice(begin, begin + len(several))
        by_kind[kind] = Agreement.of(rights[own], wrongs[own])
        begin += len(several)
    return panel, by_kind


class _Before(Observer):
    """Losses of the start, before the first step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_start(self, inversion: Inversion) -> None:
        self.losses = _losses(inversion, inversion.images())


def ascend(config: RunConfig, truths: Sequence[Scene], out: Path | None = None) -> Ascent:
    """Runs a config with one referee to its end.

    Args:
        config: with one seed.
        truths: for each prompt, a scene that satisfies it, to compare losses with.
        out: new folder for the images.
    """
    before = _Before()
    run = Run(config, observers=[before])
    inversion = run.loop()
    if run.error is not None:
        raise run.error
    made = inversion.images()
    after, true = _losses(inversion, made), _losses(inversion, _pixels(truths).to(made))
    folder = rundir.RunDir.claim(out) if out is not None else None
    attempts = []
    for b, (prompt, _) in enumerate(inversion.samples):
        verdict = judge(images.levels(made[b]), prompt)
        attempts.append(
            Attempt(
                prompt=prompt,
                satisfied=verdict.verdict,
                facts=sum(fact.ok for fact in verdict.facts) / len(verdict.facts),
                loss_first=before.losses[b],
                loss_last=after[b],
                loss_of_true_scene=true[b],
                image=folder.write_image(b, made[b]) if folder is not None else None,
            )
        )
    if folder is not None:
        folder.release()
    seconds = sum(record["seconds"] for record in run.history)
    return Ascent(inversion.step, seconds / max(1, inversion.step), tuple(attempts))


def view_cost(panel: Panel) -> ViewCost:
    """Cost of a view for a panel's only referee: the fastest of a few batches of `COSTED` views."""
    (use,) = panel.referees
    device = use.device or panel.device
    conditioning = use.conditioning
    prompt_index = torch.arange(COSTED, device=device) % len(conditioning)
    views = torch.rand(COSTED, 3, *use.referee.input_size, generator=torch.Generator().manual_seed(0))
    views = views.to(device).requires_grad_()

    def forward() -> Tensor:
        with autocast(device, use.autocast):
            return use.referee.judge(views, conditioning, prompt_index)

    with resident(use.referee):
        cost = measure(forward, [views], COSTED, tensors_of(use.referee).values())
    return ViewCost(cost.forward, cost.backward, cost.megabytes, COSTED, *use.referee.input_size)


def hard_negatives(n: int, seed: int) -> dict[str, list[Pair]]:
    """Kind of error -> n scenes, each with a true caption and one with a single wrong fact of that kind."""
    found: dict[str, list[Pair]] = {}
    for kind in NEGATIVES:
        rng = random.Random(f"negatives-{seed}-{kind}")
        found[kind] = []
        while len(found[kind]) < n:
            scene, request = draw_pair(rng)
            if not applies(kind, request):
                continue
            try:
                wrong, _ = draw_negative(scene, request, rng, kind)
            except ValueError:  # every such change would be true of this scene
                continue
            found[kind].append(Pair(scene, write(request), write(wrong)))
    return found


def prompts_with_scenes(n: int, seed: int) -> list[tuple[str, Scene]]:
    """n prompts, cycling through the categories, each with a scene that satisfies it."""
    rng = random.Random(f"scenes-{seed}")
    return [(prompt, draw_scene(parse(prompt), rng)) for prompt in draw_prompts(n, seed)]


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Area under the ROC curve: probability that a true caption has a lower loss than a wrong one; ties count half.

    >>> auc([0.1, 0.2], [0.15, 0.3])
    0.75
    """
    return float(mannwhitneyu(wrong, right).statistic) / (len(right) * len(wrong))


def auc_interval(area: float, n: int) -> float:
    """Half the width of the 95 % confidence interval of an area from n true and n wrong captions.

    Hanley and McNeil, "The meaning and use of the area under a ROC curve" (Radiology 1982), eqs. 1 and 2. The interval
    treats the two captions of a scene as independent, which makes it too wide if anything; its width is 0 at an area
    of 1.
    """
    both, twice = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (n - 1) * (both - area * area) + (n - 1) * (twice - area * area)
    return Z * math.sqrt(max(0.0, variance)) / n


def _losses(inversion: Inversion, pictures: Tensor) -> list[float]:
    """[B] losses of the only referee for pictures of a run's samples."""
    (found,) = inversion.engine.panel.losses(pictures).values()
    return found.float().tolist()  # type: ignore[no-any-return]


def _pixels(scenes: Sequence[Scene]) -> Tensor:
    """Renders [N, 3, H, W], float32 in [0, 1]."""
    return torch.from_numpy(render_batch(scenes))
