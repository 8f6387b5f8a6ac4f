"""The config of a run: canvas, referees, priors, views, combiner, optimiser and all other settings.

No plugin is imported here: `config` sections hold a plugin's own fields as given, and `refcore.engine.build`
validates them once it has the class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from refcore.config.combine import Combine, ConflictAware, NormBalance, Sum
from refcore.config.labels import labels
from refcore.config.optimize import Best, EarlyStop, Ema, Optimizer
from refcore.config.panel import Labelled, PanelConfig
from refcore.config.schedule import LARGEST, Schedule, changed_from, extremes
from refcore.config.section import Section
from refcore.config.start import Candidates, ImageStart, SampleStart, Start, read_start
from refcore.config.terms import (
    Autocast,
    BaseTerm,
    CanvasConfig,
    PriorTerm,
    RefereeTerm,
    TransformUse,
    Weights,
    Witness,
    with_single_prompts,
)
from refcore.config.views import CLEAN, ViewGroup
from refcore.errors import RefcoreError, nearest, unknown
from refcore.explain import validated
from refcore.prompts import MOST_SEEDS, problem_of

Chunk = Annotated[int, Field(ge=1)]
MOST_STEPS = 1_000_000
MOST_TRACKS = 100_000
"""Most candidates of all samples together: they are made side by side, each with its own parameters and generators."""


class RunConfig(Section):
    """Everything that a run depends on; the same config, versions and machine reproduce the run.

    Example:
        >>> config = RunConfig.from_settings({"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}], "steps": 20})
        >>> config.referees[0].weight_at(step=0, steps=20)
        1.0
    """

    prompts: list[str] = Field(default_factory=list, description="One or more prompts.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        [0],
        min_length=1,
        max_length=MOST_SEEDS,
        description="Seeds; there is one image per prompt and seed, with prompts as the outer loop. At most 10,000, "
        "since all images of a run are made side by side.",
    )
    canvas: CanvasConfig = Field(description="The parameterisation of the image: pixels or latents, for example.")
    size: int | tuple[int, int] | None = Field(
        None, description="Image size in pixels: the side of a square, or [height, width]; null: the canvas's default."
    )
    init: Start | None = Field(
        None,
        description="Start of the run. A path, or {image, strength}: this image, or one for each sample. sample, or "
        "its settings: an image sampled from the prior's diffusion model for the prompt. null: noise.",
    )
    candidates: Candidates = Field(
        default_factory=Candidates,
        description="Several candidates for every sample, of which the referees keep the best.",
    )
    referees: list[RefereeTerm] = Field(default_factory=list, description="Frozen models whose losses are minimised.")
    priors: list[PriorTerm] = Field(default_factory=list, description="Terms that keep the image natural.")
    witnesses: list[Witness] = Field(
        default_factory=list, description="Referees that only score the result and are never optimised."
    )
    views: dict[str, ViewGroup] = Field(
        default_factory=lambda: {"main": ViewGroup()},
        description='Named groups of random views. The group "clean", the unchanged image, always exists.',
    )
    combine: Combine = Field(
        default_factory=Sum, discriminator="name", description="Combination of all gradients into one."
    )
    transforms: list[TransformUse] = Field(
        default_factory=list,
        description="Changes of the gradients on their way to the optimiser, and of the parameters after it: those of "
        "each place in the order of the list.",
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="Optimiser and learning rate.")
    steps: int = Field(
        100,
        ge=1,
        le=MOST_STEPS,
        description="Number of steps; at most a million, which take days on the smallest models.",
    )
    noise: Schedule = Field(
        0.0, description="Standard deviation of the noise added to the parameters after each update."
    )
    ema: Ema | None = Field(None, description="Moving average of the parameters; null: none.")
    output: Literal["current", "ema", "best"] = Field(
        "current", description="The result: the last parameters, their moving average, or the best that `best` found."
    )
    best: Best = Field(default_factory=Best, description="Settings of `output: best`.")
    early_stop: EarlyStop | None = Field(
        None, description="Early stopping of single samples; null: all run to the end."
    )
    chunk: Chunk | dict[str, Chunk] | None = Field(
        None,
        description="Views, over all samples, judged at a time: one number, or one per referee's label. Smaller chunks "
        "need less memory and give the same gradient up to rounding. null: as many as fit into the device's free "
        "memory, as recorded in the run's config.yaml. A chunk that runs out of memory is halved.",
    )
    device: str = Field(
        "auto", description="auto (CUDA if available, then MPS, then the CPU), or a torch device such as cuda:1."
    )
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = Field(
        "float32", description="Dtype of the frozen models' weights. Parameters are float32, or float64 with float64."
    )
    autocast: Autocast | None = Field(
        None, description="Autocast dtype in which referees and priors are evaluated; null: none."
    )
    weights: Weights | None = Field(
        None,
        description="int8: the linear layers of referees, witnesses and priors are stored in 8 bits, one scale a row. "
        "null: in `dtype`.",
    )
    offload: Literal["cpu"] | None = Field(
        None,
        description="cpu: each referee, witness and prior is on the device only while it is evaluated, one at a time, "
        "and its weights wait in the CPU's memory. Same bits, more time. null: all stay on the device.",
    )
    strict: bool = Field(
        False, description="Refuse a prompt longer than a model's context instead of truncating it with a warning."
    )

    @field_validator("referees", mode="before")
    @classmethod
    def _single_prompts(cls, referees: Any) -> Any:
        if not isinstance(referees, list):
            return referees
        return [single for referee in referees for single in with_single_prompts(referee)]

    @field_validator("init", mode="before")
    @classmethod
    def _start(cls, init: Any) -> Any:
        return read_start(init)

    @classmethod
    def from_settings(cls, data: Any) -> RunConfig:
        """The config of nested dicts and lists, as in YAML.

        Raises:
            ConfigError: some fields are wrong; the message names each by its dotted path, with what was expected.
        """
        return validated(cls, data)

    def settings(self) -> dict[str, Any]:
        """Nested plain dicts and lists, from which `from_settings` makes an equal config."""
        return self.model_dump(mode="json")

    def with_weight(self, label: str, weight: float, step: int) -> RunConfig:
        """The config in which a referee or prior has another weight from a step on.

        Raises:
            RefcoreError: no term of the run has the label, or the weight is no number of at least 0.
        """
        labels = [*self.terms]
        if label not in labels:
            raise unknown("label of a referee or prior", label, labels)
        if not 0 <= weight <= LARGEST:
            raise RefcoreError(f'the weight of "{label}" would be {weight}; expected a number of at least 0')
        settings = self.settings()
        term = [*settings["referees"], *settings["priors"]][labels.index(label)]
        changed = changed_from(self.terms[label].weight, step, weight)
        term["weight"] = changed if isinstance(changed, float) else changed.model_dump(mode="json")
        return RunConfig.from_settings(settings)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width), or None for the canvas's default."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def samples(self) -> list[tuple[str, int]]:
        """(prompt, seed) of every sample; prompts are the outer loop."""
        return [(prompt, seed) for prompt in self.prompts for seed in self.seeds]

    @property
    def panel(self) -> PanelConfig:
        """The judging part of the config."""
        return PanelConfig(
            samples=self.samples,
            referees=[
                Labelled(label, term, f"referees.{i}")
                for i, (label, term) in enumerate(zip(self.referee_labels, self.referees, strict=True))
            ],
            witnesses=[
                Labelled(label, term, f"witnesses.{i}")
                for i, (label, term) in enumerate(zip(self.witness_labels, self.witnesses, strict=True))
            ],
            views=self.views,
            steps=self.steps,
            chunk=self.chunk,
            device=self.device,
            dtype=self.dtype,
            autocast=self.autocast,
            weights=self.weights,
            offload=self.offload,
            strict=self.strict,
        )

    @property
    def view_groups(self) -> dict[str, ViewGroup]:
        """`views` and the clean group."""
        return {CLEAN: ViewGroup(count=1), **self.views}

    @property
    def referee_labels(self) -> list[str]:
        """The label of each referee, in order."""
        return self._labels[: len(self.referees)]

    @property
    def prior_labels(self) -> list[str]:
        """The label of each prior, in order."""
        return self._labels[len(self.referees) : len(self.referees) + len(self.priors)]

    @property
    def terms(self) -> dict[str, RefereeTerm | PriorTerm]:
        """Label -> each referee and prior, in order."""
        return dict(zip((*self.referee_labels, *self.prior_labels), (*self.referees, *self.priors), strict=True))

    @property
    def witness_labels(self) -> list[str]:
        """The label of each witness, in order."""
        return self._labels[len(self.referees) + len(self.priors) :]

    @property
    def _labels(self) -> list[str]:
        terms: Sequence[BaseTerm] = [*self.referees, *self.priors, *self.witnesses]
        return labels((term.name, term.label) for term in terms)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Any:
        for i, prompt in enumerate(self.prompts):
            if problem := problem_of(prompt):
                yield f"prompts.{i} {problem}"
        tracks = len(self.prompts) * len(self.seeds) * self.candidates.count
        if tracks > MOST_TRACKS:
            yield (
                f"prompts x seeds x candidates.count is {tracks:,}; expected at most {MOST_TRACKS:,} in one run, "
                "since they are made side by side"
            )
        if self.image_size and min(self.image_size) < 1:
            yield f"size is {self.size}; expected at least 1 pixel"
        if isinstance(self.chunk, dict) and (others := set(self.chunk) - set(self.referee_labels)):
            known = ", ".join(self.referee_labels) or "none"
            yield f'chunk: no referee of this run has the label "{min(others)}"; known: {known}'
        if not self.referees and not self.priors:
            yield "referees and priors are both empty; expected at least one term to optimise"
        groups = self.view_groups
        uses = [(f"referees.{i}.views", term.views) for i, term in enumerate(self.referees)]
        looks = [("best.views", self.best.views), ("candidates.views", self.candidates.views)]
        for field, group in [*uses, *looks]:
            if group not in groups:
                guess = nearest(group, groups)
                hint = f'; did you mean "{guess}"?' if guess else ""
                yield f'{field}: unknown view group "{group}"; known: {", ".join(sorted(groups))}{hint}'
        given = Counter(term.label for term in (*self.referees, *self.priors, *self.witnesses) if term.label)
        for label, times in given.items():
            if times > 1:
                yield f'the label "{label}" is given to {times} terms; labels must be unique'
        for i, term in enumerate(self.referees):
            if term.satisfied_at is not None and extremes(term.weight, self.steps, term.window)[0] < 0:
                yield f"referees.{i} has `satisfied_at`, which needs a weight of 0 or more; its weight falls below 0"
        for i, prior in enumerate(self.priors):
            lowest, _ = extremes(prior.weight, self.steps, prior.window)
            if lowest < 0:
                yield f"priors.{i}.weight falls to {lowest:g}; expected 0 or more, since a negated prior has no minimum"
        if extremes(self.noise, self.steps)[0] < 0:
            yield "noise falls below 0; expected a standard deviation"
        if isinstance(self.combine, NormBalance):
            if not self.referees or not self.priors:
                missing = "priors" if self.referees else "referees"
                yield f"combine is norm_balance, but {missing} is empty; expected both, or combine.name=sum"
            if extremes(self.combine.factor, self.steps)[0] < 0:
                yield "combine.factor falls below 0; expected a ratio of norms"
        if isinstance(self.combine, ConflictAware):
            factor = 0.0 if self.combine.factor is None else self.combine.factor
            if extremes(factor, self.steps)[0] < 0:
                yield "combine.factor falls below 0; expected a ratio of norms"
        if self.optimizer.name == "lbfgs":
            yield from self._problems_of_lbfgs()
        if self.output == "ema" and self.ema is None:
            yield "output is ema, but ema is null; set ema, for example ema.decay=0.95"
        if self.output == "best" and not self.referees:
            yield "output is best, but there is no referee to decide; expected current or ema"
        if self.candidates.most > 1 and not any(term.largest_weight(self.steps) for term in self.referees):
            several = "count" if self.candidates.count > 1 else "tries"
            number = getattr(self.candidates, several)
            yield f"candidates.{several} is {number}, but no referee ever has a weight to compare candidates by"
        if isinstance(self.candidates.until, dict):
            for label in self.candidates.until:
                if label not in self.referee_labels:
                    known = ", ".join(self.referee_labels) or "none"
                    yield f'candidates.until: no referee of this run has the label "{label}"; known: {known}'
        if self.init is not None and self.init.prior not in (None, *self.prior_labels):
            known = ", ".join(self.prior_labels) or "none"
            yield f'init.prior is "{self.init.prior}", which is not a prior of this run; known: {known}'
        if isinstance(self.init, ImageStart) and isinstance(self.init.image, list) and self.prompts:
            paths, samples = len(self.init.image), len(self.samples)
            if paths != samples:
                yield f"init.image has {paths} paths; expected {samples}, one for each prompt and seed"
        if isinstance(self.init, SampleStart):
            count = self.candidates.count
            for number, (kept, _) in enumerate(self.init.rounds):
                if kept >= count:
                    expected = f"but candidates.count is {count}; expected fewer, or init.rounds=[] for no search"
                    yield f"init.rounds.{number} keeps {kept} candidates, {expected}"
        stop = self.early_stop
        if stop and stop.patience is None and all(term.satisfied_at is None for term in self.referees):
            yield "early_stop never stops: set early_stop.patience, or `satisfied_at` of a referee"

    def _problems_of_lbfgs(self) -> Any:
        """Whatever makes the gradient another than that of the weighted sum of the losses."""
        searches = "but optimizer.name is lbfgs, whose line search needs the gradient of the weighted sum of the losses"
        if not isinstance(self.combine, Sum):
            yield f"combine is {self.combine.name}, {searches}; expected combine.name=sum, or another optimizer"
        elif self.combine.votes != "weighted":
            yield f"combine.votes is equal, {searches}; expected combine.votes=weighted, or another optimizer"
        for i, term in enumerate(self.referees):
            if term.satisfied_at is not None:
                loss, file = term.satisfied_at.loss, term.satisfied_at.calibration
                told = f"referees.{i}.satisfied_at is {file if loss is None else loss}"
                yield f"{told}, {searches}; expected null, or another optimizer"
        if self.canvas.autocast is not None:
            told = f"canvas.autocast is {self.canvas.autocast}, but optimizer.name is lbfgs"
            yield f"{told}, whose line search needs exact losses; expected null, or another optimizer"
