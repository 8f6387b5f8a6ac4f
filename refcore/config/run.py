"""The config of a run: what is optimised, who judges, what keeps it natural, and how the parameters move.

No plugin is imported here: `config` sections hold a plugin's own fields as they were given, and
`refcore.engine.build` validates them when it has the class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from refcore.config.combine import Combine, ConflictAware, NormBalance, Sum
from refcore.config.optimize import Best, EarlyStop, Ema, Optimizer
from refcore.config.panel import Labelled, PanelConfig
from refcore.config.schedule import Schedule, values
from refcore.config.section import Section
from refcore.config.start import SAMPLE, Candidates, SampleStart
from refcore.config.terms import Autocast, CanvasConfig, PriorTerm, RefereeTerm, Witness, _Term
from refcore.config.views import CLEAN, ViewGroup
from refcore.errors import nearest
from refcore.explain import validated

Chunk = Annotated[int, Field(ge=1)]


class RunConfig(Section):
    """Everything that a run depends on; with the same versions and machine it reproduces the run.

    Example:
        >>> config = RunConfig.from_settings({"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}], "steps": 20})
        >>> config.referees[0].weight_at(step=0, steps=20)
        1.0
    """

    prompts: list[str] = Field(default_factory=list, description="What to make, one prompt or more.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="One image per prompt and seed; prompts are the outer loop."
    )
    canvas: CanvasConfig = Field(description="Where the image lives, and how parameters become pixels.")
    size: int | tuple[int, int] | None = Field(
        None, description="Pixels: one number for a square, or [height, width]; null is the canvas's own default."
    )
    init: SampleStart | str | None = Field(
        None,
        description="Path of an image to start from; sample (or its settings): an image that the prior's diffusion "
        "model makes of the prompt, which is then refined; null starts from noise.",
    )
    candidates: Candidates = Field(
        default_factory=Candidates, description="Several tries at every sample, of which the referees keep the best."
    )
    referees: list[RefereeTerm] = Field(default_factory=list, description="Frozen models whose losses are minimised.")
    priors: list[PriorTerm] = Field(default_factory=list, description="What keeps the image natural.")
    witnesses: list[Witness] = Field(
        default_factory=list, description="Referees that only score the result and are never optimised for."
    )
    views: dict[str, ViewGroup] = Field(
        default_factory=lambda: {"main": ViewGroup()},
        description='Named groups of random views; "clean", the image as it is, is always there.',
    )
    combine: Combine = Field(default_factory=Sum, discriminator="name", description="How many gradients become one.")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="How a gradient becomes an update.")
    steps: int = Field(100, ge=1, description="Steps of the run.")
    noise: Schedule = Field(0.0, description="Std of the noise added to the parameters after each update.")
    ema: Ema | None = Field(None, description="Moving average of the parameters; null for none.")
    output: Literal["current", "ema", "best"] = Field(
        "current", description="The result: the last parameters, their average, or the best that `best` saw."
    )
    best: Best = Field(default_factory=Best, description="How `output: best` looks for the best.")
    early_stop: EarlyStop | None = Field(None, description="When single samples stop; null: all run to the end.")
    chunk: Chunk | dict[str, Chunk] | None = Field(
        None,
        description="Views (over all samples) judged at a time, one number or one by a referee's label: less needs "
        "less memory and gives the same gradient up to rounding. null: as many as fit into the device's free memory; "
        "the run's config.yaml has what was found. Where it does not fit after all, it is halved.",
    )
    device: str = Field("auto", description="auto (CUDA, else MPS, else the CPU), or a torch device such as cuda:1.")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = Field(
        "float32", description="Dtype of the frozen models' weights. Parameters stay float32 (float64 with float64)."
    )
    autocast: Autocast | None = Field(
        None, description="Autocast dtype while referees and priors are asked; null for none."
    )
    strict: bool = Field(False, description="Refuse a prompt that is longer than a model's context instead of warning.")

    @field_validator("init", mode="before")
    @classmethod
    def _sample(cls, init: Any) -> Any:
        return SampleStart() if init == SAMPLE else init

    @classmethod
    def from_settings(cls, data: Any) -> RunConfig:
        """A config from nested dicts and lists, as YAML gives them.

        Raises:
            ConfigError: naming each wrong field, dotted, with its value and what was expected.
        """
        return validated(cls, data)

    def settings(self) -> dict[str, Any]:
        """Nested plain dicts and lists that `from_settings` reads back to an equal config."""
        return self.model_dump(mode="json")

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width), or None for the canvas's default."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def samples(self) -> list[tuple[str, int]]:
        """(prompt, seed) of every sample, prompts outermost."""
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
            strict=self.strict,
        )

    @property
    def view_groups(self) -> dict[str, ViewGroup]:
        """`views`, with the clean group."""
        return {CLEAN: ViewGroup(count=1), **self.views}

    @property
    def referee_labels(self) -> list[str]:
        """What each referee's loss is called, in order."""
        return self._labels[: len(self.referees)]

    @property
    def prior_labels(self) -> list[str]:
        """What each prior's value is called, in order."""
        return self._labels[len(self.referees) : len(self.referees) + len(self.priors)]

    @property
    def witness_labels(self) -> list[str]:
        """What each witness's score is called, in order."""
        return self._labels[len(self.referees) + len(self.priors) :]

    @property
    def _labels(self) -> list[str]:
        terms: Sequence[_Term] = [*self.referees, *self.priors, *self.witnesses]
        taken = {term.label for term in terms if term.label}
        labels = []
        for term in terms:
            label, n = term.label or term.name, 2
            while not term.label and label in taken:
                label, n = f"{term.name}-{n}", n + 1
            taken.add(label)
            labels.append(label)
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Any:
        for i, prompt in enumerate(self.prompts):
            if not prompt.strip():
                yield f'prompts.{i} is "{prompt}", which is empty; expected some words'
        if self.image_size and min(self.image_size) < 1:
            yield f"size is {self.size}; expected pixels above 0"
        if isinstance(self.chunk, dict) and (others := set(self.chunk) - set(self.referee_labels)):
            known = ", ".join(self.referee_labels) or "none"
            yield f'chunk has "{min(others)}", which is the label of no referee of this run; known: {known}'
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
        labels = Counter(term.label for term in (*self.referees, *self.priors, *self.witnesses) if term.label)
        for label, times in labels.items():
            if times > 1:
                yield f'the label "{label}" is given to {times} terms; expected each once'
        for i, term in enumerate(self.referees):
            if term.satisfied_at is not None and min(values(term.weight, self.steps, term.window), default=0.0) < 0:
                yield f"referees.{i} has `satisfied_at`, but its weight is negative, which has no end"
        for i, prior in enumerate(self.priors):
            lowest = min(values(prior.weight, self.steps, prior.window), default=0.0)
            if lowest < 0:
                yield f"priors.{i}.weight falls to {lowest:g}; a prior pushed away has no minimum; expected 0 or more"
        if min(values(self.noise, self.steps)) < 0:
            yield "noise falls below 0; expected a standard deviation"
        if isinstance(self.combine, NormBalance):
            if not self.referees or not self.priors:
                missing = "priors" if self.referees else "referees"
                yield f"combine is norm_balance, but {missing} is empty; expected both, or combine.name=sum"
            if min(values(self.combine.factor, self.steps)) < 0:
                yield "combine.factor falls below 0; expected a ratio of norms"
        if isinstance(self.combine, ConflictAware):
            factor = 0.0 if self.combine.factor is None else self.combine.factor
            if min(values(factor, self.steps)) < 0:
                yield "combine.factor falls below 0; expected a ratio of norms"
        if self.output == "ema" and self.ema is None:
            yield "output is ema, but ema is null; set ema, for example ema.decay=0.95"
        if self.output == "best" and not self.referees:
            yield "output is best, but there is no referee to say which is; expected current or ema"
        if self.candidates.count > 1 and not any(term.largest_weight(self.steps) for term in self.referees):
            yield f"candidates.count is {self.candidates.count}, but no referee takes part that could compare them"
        if isinstance(self.init, SampleStart) and self.init.prior not in (None, *self.prior_labels):
            known = ", ".join(self.prior_labels) or "none"
            yield f'init.prior is "{self.init.prior}", which is no prior of this run; known: {known}'
        if isinstance(self.init, SampleStart):
            count = self.candidates.count
            for number, (kept, _) in enumerate(self.init.rounds):
                if kept >= count:
                    expected = f"but candidates.count is {count}; expected fewer, or init.rounds=[] for no search"
                    yield f"init.rounds.{number} keeps {kept} candidates, {expected}"
        stop = self.early_stop
        if stop and stop.patience is None and all(term.satisfied_at is None for term in self.referees):
            yield "early_stop never stops: set early_stop.patience, or `satisfied_at` of a referee"
