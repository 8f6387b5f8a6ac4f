"""The config of a run: what is optimised, who judges, what keeps it natural, and how the parameters move.

No plugin is imported here: `config` sections hold a plugin's own fields as they were given, and `refcore.build`
reads them when it has the class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from refcore.fields import parse
from refcore.names import nearest
from refcore.plugin import as_use
from refcore.schedule import Schedule, value_at, values

CLEAN = "clean"
"""The view group that is always there: the whole image, once, as it is."""
PROMPT = "{prompt}"


def _window(window: tuple[int, int | None]) -> tuple[int, int | None]:
    first, last = window
    if first < 0 or (last is not None and last <= first):
        raise ValueError(f"[{first}, {last}] is no window; expected [first step, first step after it or null]")
    return window


Window = Annotated[tuple[int, int | None], AfterValidator(_window)]
Autocast = Literal["bfloat16", "float16"]
Chunk = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every part of a config: unknown fields are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PluginUse(Section):
    """A plugin by name, with its own fields."""

    name: str = Field(description="Registered name; `refcore plugins` lists them.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="The plugin's own fields; `refcore plugins --check` lists them."
    )

    @model_validator(mode="before")
    @classmethod
    def _direct(cls, value: Any) -> Any:
        """A plugin, or its class, stands for its name and its fields."""
        return as_use(value)


class CanvasConfig(PluginUse):
    """Where the image lives."""

    autocast: Autocast | None = Field(
        None,
        description="Autocast dtype of decoding; null is none, whatever the run's is.",
    )


class _Term(PluginUse):
    label: str | None = Field(
        None, description="What losses and scores are called; null is the name (with -2, -3 where it occurs again)."
    )
    prompt: str = Field(PROMPT, description='What is asked; "{prompt}" stands for the sample\'s prompt.')
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = Field(
        None, description="Dtype of its weights; null is the run's."
    )
    autocast: Autocast | Literal["off"] | None = Field(
        None, description="Autocast dtype while it is asked; null is the run's."
    )


class _Weighted(_Term):
    weight: Schedule = Field(1.0, description="Factor of its gradient: a number or a schedule.")
    window: Window = Field(
        (0, None), description="Steps in which it takes part: first step and first step after; null is the run's end."
    )

    def weight_at(self, step: int, steps: int) -> float:
        """The weight at a step of a run of `steps`; 0 outside the window."""
        first, last = self.window
        inside = first <= step and (last is None or step < last)
        return value_at(self.weight, step, steps) if inside else 0.0

    def largest_weight(self, steps: int) -> float:
        """The weight of largest magnitude that it has in a run of `steps`; 0 where it never takes part."""
        return max(values(self.weight, steps, self.window), key=abs, default=0.0)


class Enough(Section):
    """The loss at which a referee is satisfied with a sample, and stops pushing.

    The loss is the term's own, unweighted, averaged over the views that a step uses. At or below the threshold the
    gradient of that sample is 0 in that step; it comes back when the loss rises again.
    """

    loss: float | None = Field(None, description="The threshold as a number.")
    quantile: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The threshold as a quantile of the losses of true matches in `calibration`: 0.5 is satisfied by "
        "what an average match reaches, 0.9 by nearly any.",
    )
    calibration: str | None = Field(
        None, description="A file of `python -m refcore_playground.calibrate`; playground:NAME is an embedded one."
    )
    per: Literal["all", "prompt"] = Field(
        "all",
        description="all: one threshold for every prompt. prompt: that of the sample's prompt, which the file has.",
    )
    width: float = Field(
        0.0,
        ge=0,
        description="Loss above the threshold over which the gradient fades, linearly, to 0; 0 is a hard step.",
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if (self.loss is None) == (self.quantile is None):
            raise ValueError("expected either `loss`, or `quantile` with `calibration`")
        if (self.quantile is None) != (self.calibration is None):
            raise ValueError("quantile and calibration belong together; expected both or none")
        if self.per == "prompt" and self.calibration is None:
            raise ValueError("per is prompt, which needs a calibration")
        return self


class ParserUse(PluginUse):
    """A parser by name, with its own fields; the name alone stands for both."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class JudgedParts(Section):
    """The parts of the prompt that a referee judges besides the whole of it.

    The loss of a view is `whole` * loss(prompt) + `weight` * reduce(loss of each part), where the parts are those of
    `refcore.parser.Parts.sentences`: each noun phrase with its count, and each relation of two of them.
    """

    parser: ParserUse = Field(description="What takes the prompt apart: a parser's name, or its name and config.")
    weight: float = Field(1.0, gt=0, description="Factor of the parts' reduced loss.")
    whole: float = Field(1.0, ge=0, description="Factor of the whole prompt's loss; 0 judges the parts alone.")
    reduce: Literal["mean", "max"] = Field(
        "mean", description="mean: of the parts' losses. max: the loss of the view's worst part alone."
    )


class RefereeTerm(_Weighted):
    """A referee that the image is optimised for."""

    wanted: bool = Field(
        True,
        description="false asks the negated question, for what must not be seen; bounded, unlike a negative weight.",
    )
    views: str = Field("main", description='The view group that it judges; "clean" is the image as it is.')
    enough: Enough | None = Field(
        None,
        description="Loss (a number, or its settings) at or below which this referee is satisfied and its gradient 0, "
        "sample by sample; early_stop waits until the clean loss of all that have one is there. null: never.",
    )
    parts: JudgedParts | None = Field(
        None,
        description="Judge the parts of the prompt (noun phrases, relations), too: a parser's name, or its settings. "
        "Scores stay those of the whole prompt. null: the whole alone.",
    )

    @field_validator("enough", mode="before")
    @classmethod
    def _number(cls, enough: Any) -> Any:
        return {"loss": enough} if isinstance(enough, (int, float)) and not isinstance(enough, bool) else enough

    @field_validator("parts", mode="before")
    @classmethod
    def _parser(cls, parts: Any) -> Any:
        return {"parser": parts} if isinstance(parts, str) else parts

    @model_validator(mode="after")
    def _of_whole_prompts(self) -> Self:
        if self.parts is not None and PROMPT not in self.prompt:
            raise ValueError(f'parts are of the run\'s prompts, but prompt is "{self.prompt}"; expected {PROMPT} in it')
        if self.parts is not None and self.enough is not None and self.enough.calibration is not None:
            raise ValueError(
                "enough.calibration is of losses on whole prompts, and with parts the loss is another; use enough.loss"
            )
        return self


class PriorTerm(_Weighted):
    """A prior that pulls the image toward natural ones."""


class Witness(_Term):
    """A referee that only scores the result and is never optimised for."""

    coarse: int | None = Field(
        None,
        ge=1,
        description="Shrink the image by area to this many pixels on the longer side before it looks; fine "
        "detail, which hacks live in, is then gone. null: as it is.",
    )


class ViewGroup(Section):
    """Random views of the image that one or several terms judge."""

    count: int = Field(8, ge=1, description="Views per sample and step.")
    hardest: int | None = Field(
        None, ge=1, description="Only this many views, those of highest loss, get gradients; null or `count` for all."
    )
    augment: list[PluginUse] = Field(
        default_factory=list,
        description="Augmentations. The geometric ones are applied first, in order, as one resampling of the image; "
        "then the others, in order.",
    )
    padding: Literal["zeros", "border", "reflection"] = Field(
        "zeros", description="What lies outside the image: black, its edge repeated, or its mirror image."
    )
    fit: Literal["stretch", "crop", "pad"] = Field(
        "stretch",
        description="How an image of another aspect than the referee's input becomes a view: stretched to it, its "
        "middle cut out, or the whole of it with `padding` beside it.",
    )
    shrink: Literal["antialias", "pool"] = Field(
        "antialias",
        description="How a large image is brought near the referee's input size: antialiased bicubic, or the mean of "
        "average and max pooling, as the paper's code does.",
    )

    @model_validator(mode="after")
    def _enough_views(self) -> Self:
        if self.hardest is not None and self.hardest > self.count:
            raise ValueError(f"hardest is {self.hardest}, but count is only {self.count}; expected at most count")
        return self


class Sum(Section):
    """All weighted gradients are added."""

    name: Literal["sum"] = Field("sum", description="All weighted gradients are added.")


class NormBalance(Section):
    """Referees against priors by norm: the paper's balance."""

    name: Literal["norm_balance"] = Field(
        "norm_balance",
        description="The referees' summed gradient is scaled, sample by sample, to `factor` times the norm of the "
        "priors' gradient. In steps without a prior it passes as it is.",
    )
    factor: Schedule = Field(1.0, description="Norm of the referees' gradient over that of the priors'.")


class ConflictAware(Section):
    """Base of the combiners that look at conflicts between terms: every term is a row, and torchjd weights the rows."""

    name: str
    at: Literal["parameters", "image"] = Field(
        "parameters",
        description="Where conflicts are looked at. parameters: of the canvas, all terms, one pull-back through it for "
        "each. image: among referees and image priors at the decoded image, which costs one pull-back; latent priors "
        "are then added.",
    )
    factor: Schedule | None = Field(
        None,
        description="null: priors are rows as the referees are. A number or schedule: only referees are, and their "
        "combination is scaled to this times the norm of the priors' gradient, as norm_balance does.",
    )


class Pcgrad(ConflictAware):
    """Projecting conflicting gradients: Yu et al. (arXiv 2001.06782), algorithm 1."""

    name: Literal["pcgrad"] = Field(
        "pcgrad", description="Each gradient loses what conflicts with another, in an order drawn by sample and step."
    )


class Mgda(ConflictAware):
    """Multiple gradient descent: Desideri (2012), solved as in Sener and Koltun (arXiv 1810.04650), algorithm 2."""

    name: Literal["mgda"] = Field("mgda", description="The shortest convex combination of the gradients.")


class Upgrad(ConflictAware):
    """Unconflicting projection: Quinton and Rey, Jacobian descent (arXiv 2406.16232)."""

    name: Literal["upgrad"] = Field(
        "upgrad", description="Each gradient is projected onto the cone where no term gets worse; then their mean."
    )


class Cagrad(ConflictAware):
    """Conflict-averse gradient descent: Liu et al. (arXiv 2110.14048), algorithm 1."""

    name: Literal["cagrad"] = Field(
        "cagrad", description="The mean gradient, moved within a ball so that the worst-off term gains most."
    )
    c: float = Field(0.5, ge=0, description="Radius of the ball, as a fraction of the mean gradient's norm.")


class ImtlG(ConflictAware):
    """Impartial multi-task learning, the gradient part: Liu et al. (ICLR 2021)."""

    name: Literal["imtl_g"] = Field(
        "imtl_g", description="The combination whose projections onto all gradients' directions are equal."
    )


class NashMtl(ConflictAware):
    """Multi-task learning as a bargaining game: Navon et al. (arXiv 2202.01017), algorithm 1."""

    name: Literal["nash_mtl"] = Field("nash_mtl", description="The Nash bargaining solution between the terms.")
    iterations: int = Field(20, ge=1, description="Of the solver.")


Combine = Sum | NormBalance | Pcgrad | Mgda | Upgrad | Cagrad | ImtlG | NashMtl


class Optimizer(Section):
    """How a gradient becomes an update of the canvas's parameters."""

    name: Literal["sgd", "adam", "adamw"] = Field("adam", description="The torch.optim optimiser.")
    lr: float = Field(0.05, gt=0, description="Learning rate, at the height of its schedule.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="How the learning rate falls after the warm-up, to `final` times lr at the run's end."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up: step t has lr * (t + 1) / warmup.")
    final: float = Field(0.0, ge=0, description="Learning rate at the end as a fraction of lr (not for constant).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum (sgd).")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd, with momentum).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay rates of the two moments (adam, adamw).")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment (adam, adamw).")
    weight_decay: float = Field(0.0, ge=0, description="Pull of the parameters toward 0.")
    normalize: Literal["none", "sample"] = Field(
        "none", description="sample: each sample's gradient is scaled to norm 1 before the optimiser sees it."
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="Largest norm of a sample's gradient; larger ones are scaled down to it. null: no limit.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is true, but momentum is 0; expected a momentum such as 0.9")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; expected two numbers in [0, 1)")
        return self

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate at a step of a run of `steps`."""
        from refcore.schedule import Cosine, Linear

        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        ramp = Cosine if self.schedule == "cosine" else Linear
        return ramp(start=self.lr, end=self.lr * self.final, first=self.warmup).at(step, steps)


class Ema(Section):
    """Exponential moving average of the parameters."""

    decay: float = Field(
        0.95, ge=0, lt=1, description="ema <- decay * ema + (1 - decay) * parameters, after each step."
    )
    start: int = Field(0, ge=0, description="First step that is averaged; up to it the average is the parameters.")
    restarts: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="Steps (from 0) after which the parameters are set to a copy of the average."
    )
    momentum: Literal["keep", "reset"] = Field(
        "keep", description="What a restart does to the optimiser's momentum and moments."
    )


class Best(Section):
    """How `output: best` finds the best image."""

    every: int = Field(10, ge=1, description="Steps between two looks; the last step is always looked at.")
    views: str = Field(
        CLEAN,
        description="View group that decides, the same views at every look; the image looked at is the average where "
        "there is one.",
    )


class EarlyStop(Section):
    """When a sample is left as it is while the batch goes on."""

    every: int = Field(
        10, ge=1, description="Steps between two looks at the clean image (the average, if there is one)."
    )
    first: int = Field(0, ge=0, description="No sample stops before this step.")
    patience: int | None = Field(
        None,
        ge=1,
        description="Looks without improvement of the weighted loss after which a sample stops; null: never.",
    )
    min_delta: float = Field(0.0, ge=0, description="By how much the loss must fall to count as an improvement.")


class Candidates(Section):
    """Several independent tries at every sample, of which the referees keep the best: successive halving.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (AISTATS 2016), with the referees' consensus as
    the judge: see `refcore.consensus`.
    """

    count: int = Field(
        1, ge=1, description="Candidates that every sample starts with, each with its own draws; 1 for none."
    )
    keep: list[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]] = Field(
        default_factory=list,
        description="[step, n] pairs: after so many steps (0: before the first, by a look at `views`) the n best "
        "candidates of each sample go on, the others are dropped with their memory. What is left at the run's end, "
        "before later pairs, is narrowed to the best one.",
    )
    recent: int = Field(
        10,
        ge=0,
        description="Steps over which the losses that are compared are averaged (a moving average); 0: one look at "
        "`views` of the averaged image instead.",
    )
    views: str = Field(CLEAN, description="View group of that look, the same views for every candidate of a sample.")
    by: Literal["consensus", "loss"] = Field(
        "consensus",
        description="consensus: each referee counts the same, in its own standard deviations; loss: the weighted sum "
        "of the losses, which is better where they are log-probabilities and say by themselves how sure they are.",
    )

    @model_validator(mode="after")
    def _falling(self) -> Self:
        steps, counts = [step for step, _ in self.keep], [n for _, n in self.keep]
        if steps != sorted(set(steps)) or [self.count, *counts] != sorted({self.count, *counts}, reverse=True):
            raise ValueError(
                f"keep is {[list(pair) for pair in self.keep]}; expected [step, n] pairs of growing steps, "
                f"and of n that falls from below count ({self.count})"
            )
        return self

    def kept_after(self, step: int, steps: int) -> int | None:
        """How many candidates of a sample go on once `step` steps are done; None where nothing is dropped then."""
        if step == steps:
            return 1
        return dict(self.keep).get(step)


class SampleStart(Section):
    """A start from a sample of a prior's own generative model."""

    prior: str | None = Field(
        None, description="Label of the prior whose model is sampled; null is the first one that can be."
    )
    steps: int = Field(50, ge=1, description="Steps of the sampler (DDIM, without noise on the way).")
    guidance: float = Field(7.5, ge=0, description="Classifier-free guidance scale; 1 is none.")
    rounds: list[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=list,
        description="[n, strength] pairs: in each round the n best candidates of each sample stay, and the others are "
        "sampled again around them, from noise of that strength (as in diffusers' image-to-image). A search before the "
        "first step, with `candidates.count` candidates.",
    )


SAMPLE = "sample"
"""`init: sample` stands for a SampleStart with its defaults."""


class RunConfig(Section):
    """Everything that a run depends on; with the same versions and machine it reproduces the run.

    Example:
        >>> config = RunConfig.parse({"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}], "steps": 20})
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
    def parse(cls, data: Any) -> RunConfig:
        """A config from nested dicts and lists, as YAML gives them.

        Raises:
            ConfigError: naming each wrong field, dotted, with its value and what was expected.
        """
        return parse(cls, data)

    def settings(self) -> dict[str, Any]:
        """Nested plain dicts and lists that `parse` reads back to an equal config."""
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
            if term.enough is not None and min(values(term.weight, self.steps, term.window), default=0.0) < 0:
                yield f"referees.{i} has `enough`, but its weight is negative, which pushes the loss up without end"
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
        if stop and stop.patience is None and all(term.enough is None for term in self.referees):
            yield "early_stop never stops: set early_stop.patience, or `enough` of a referee"
