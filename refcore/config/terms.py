"""Terms of a run: referees, priors and witnesses, with their prompts, weights and windows."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from refcore.config.schedule import Schedule, extremes, value_at
from refcore.config.section import Section
from refcore.errors import shortened
from refcore.registry import as_plugin_use

PROMPT = "{prompt}"
UNWANTED = "not wanted: low is good"
"""Marks the score of a referee with `wanted: false`, whose question is the same as that of any other."""


def _window(window: tuple[int, int | None]) -> tuple[int, int | None]:
    first, last = window
    if first < 0 or (last is not None and last <= first):
        raise ValueError(f"[{first}, {last}] is not a window; expected [first step, first step after it or null]")
    return window


Window = Annotated[tuple[int, int | None], AfterValidator(_window)]


Autocast = Literal["bfloat16", "float16"]
Weights = Literal["int8"]


class PluginUse(Section):
    """A plugin by name, with its own fields."""

    name: str = Field(description="Registered name; see `refcore plugins`.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="The plugin's own fields; see `refcore plugins show NAME`."
    )

    @model_validator(mode="before")
    @classmethod
    def _direct(cls, value: Any) -> Any:
        """Accepts a plugin or a plugin class in place of name and config."""
        return as_plugin_use(value)


class CanvasConfig(PluginUse):
    """The canvas, on which the image is parameterised."""

    autocast: Autocast | None = Field(
        None,
        description="Autocast dtype of decoding; null: none, whatever the run's.",
    )
    prompt: str = Field(
        PROMPT,
        description='Prompt template of a canvas that reads prompts, such as noise; "{prompt}" stands for the '
        "sample's prompt, and an empty one tells it nothing.",
    )


class TransformUse(PluginUse):
    """A transform, by name, and its place."""

    at: Literal["terms", "gradient", "parameters"] | None = Field(
        None,
        description="What it changes. terms: each term's gradient at the parameters, with its weight, before they are "
        "combined, which takes one backward pass through the canvas per term. gradient: the combined gradient. "
        "parameters: the parameters after each update. null: the first of these that the transform supports, as "
        "`refcore plugins show NAME` lists them.",
    )


class BaseTerm(PluginUse):
    """The fields that referees, priors and witnesses share."""

    label: str | None = Field(
        None, description="Label of its losses and scores; null: the name, with -2, -3, ... for repeats."
    )
    prompt: str = Field(PROMPT, description='Prompt template; "{prompt}" stands for the sample\'s prompt.')
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = Field(
        None, description="Dtype of its weights; null: the run's."
    )
    autocast: Autocast | Literal["off"] | None = Field(
        None, description="Autocast dtype in which it is evaluated; null: the run's."
    )
    weights: Weights | Literal["off"] | None = Field(
        None, description="int8: its linear layers are stored in 8 bits. off: in its dtype. null: as the run has it."
    )
    device: str | None = Field(
        None, description="Torch device of its model, such as cuda:1, so that GPUs share the terms; null: the run's."
    )


class _Weighted(BaseTerm):
    weight: Schedule = Field(1.0, description="Weight of its gradient: a number or a schedule.")
    window: Window = Field(
        (0, None), description="Steps in which it takes part: [first step, first step after it]; null: the run's end."
    )

    def weight_at(self, step: int, steps: int) -> float:
        """The weight at a step of a run of `steps`; 0 outside the window."""
        first, last = self.window
        inside = first <= step and (last is None or step < last)
        return value_at(self.weight, step, steps) if inside else 0.0

    def largest_weight(self, steps: int) -> float:
        """The weight of largest magnitude in a run of `steps`; 0 if the term never takes part."""
        return max(reversed(extremes(self.weight, steps, self.window)), key=abs)


class SatisfiedAt(Section):
    """The loss at which a referee is satisfied with a sample and its gradient becomes 0.

    The loss is the term's own, unweighted and averaged over the views of a step. The gradient of a sample is 0 in every
    step in which its loss is at or below the threshold.
    """

    loss: float | None = Field(None, description="The threshold as a number.")
    quantile: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The threshold as a quantile of the losses of matching images in `calibration`: 0.5 is the median "
        "match, 0.9 accepts nearly any.",
    )
    calibration: str | None = Field(
        None,
        description="A file from `python -m refcore_playground.calibrate`, or playground:NAME for an embedded one.",
    )
    per: Literal["all", "prompt"] = Field(
        "all",
        description="all: one threshold for every prompt. prompt: that of the sample's own prompt in the file.",
    )
    width: float = Field(
        0.0,
        ge=0,
        description="Range of losses above the threshold over which the gradient fades linearly to 0; 0: a hard step.",
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if (self.loss is None) == (self.quantile is None):
            raise ValueError("expected either `loss`, or `quantile` with `calibration`")
        if (self.quantile is None) != (self.calibration is None):
            raise ValueError("expected both `quantile` and `calibration`, or neither")
        if self.per == "prompt" and self.calibration is None:
            raise ValueError("per is prompt, which needs `calibration`")
        return self


class ParserUse(PluginUse):
    """A parser by name, with its own fields; the name alone is enough."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class JudgedPhrases(Section):
    """Judging the phrases of a prompt as well as the whole prompt.

    The loss of a view is `whole` * loss(prompt) + `weight` * reduce(loss of each phrase). The phrases are those of
    `refcore.contracts.parser.ParsedPrompt.sentences`: each thing with its count, and each relation between two things.
    """

    parser: ParserUse = Field(description="Parser of the prompts: its name, or its name and config.")
    weight: float = Field(1.0, gt=0, description="Weight of the phrases' reduced loss.")
    whole: float = Field(1.0, ge=0, description="Weight of the whole prompt's loss; 0: the phrases alone.")
    reduce: Literal["mean", "max"] = Field(
        "mean", description="mean: the mean of the phrases' losses. max: the loss of the view's worst phrase."
    )


class RefereeTerm(_Weighted):
    """A referee whose loss is optimised."""

    prompt: str = Field(
        PROMPT,
        description='Prompt template; "{prompt}" stands for the sample\'s prompt. A list of templates, each of which '
        "may end with a weight and a loss to stop at (`text:weight:stop`), stands for as many referees.",
    )
    wanted: bool = Field(
        True,
        description="false: judge the negated question, for content to avoid. Bounded below, unlike a negative weight.",
    )
    views: str = Field("main", description='View group that it judges; "clean" is the unchanged image.')
    satisfied_at: SatisfiedAt | None = Field(
        None,
        description="Loss, a number or settings, at or below which this referee is satisfied with a sample and its "
        "gradient is 0. early_stop stops a sample once all such referees are satisfied with its clean image. null: "
        "never.",
    )
    phrases: JudgedPhrases | None = Field(
        None,
        description="Also judge the phrases of the prompt (things and relations): a parser's name, or settings. Scores "
        "remain those of the whole prompt. null: the whole prompt only.",
    )

    @field_validator("satisfied_at", mode="before")
    @classmethod
    def _number(cls, satisfied_at: Any) -> Any:
        is_number = isinstance(satisfied_at, (int, float)) and not isinstance(satisfied_at, bool)
        return {"loss": satisfied_at} if is_number else satisfied_at

    @field_validator("phrases", mode="before")
    @classmethod
    def _parser(cls, phrases: Any) -> Any:
        return {"parser": phrases} if isinstance(phrases, str) else phrases

    @model_validator(mode="after")
    def _of_whole_prompts(self) -> Self:
        if self.phrases is not None and PROMPT not in self.prompt:
            raise ValueError(
                f'phrases are taken from the run\'s prompts, but prompt is "{self.prompt}"; expected {PROMPT} in it'
            )
        if self.phrases is not None and self.satisfied_at is not None and self.satisfied_at.calibration is not None:
            raise ValueError(
                "satisfied_at.calibration has losses on whole prompts, not comparable to losses with phrases; "
                "use satisfied_at.loss"
            )
        return self

    def scoring(self) -> Witness:
        """A witness with the same question, which only scores finished images."""
        return Witness(
            name=self.name,
            config=self.config,
            label=self.label,
            prompt=self.prompt,
            dtype=self.dtype,
            autocast=self.autocast,
            weights=self.weights,
            device=self.device,
        )


def with_single_prompts(term: Any) -> list[Any]:
    """A referee whose `prompt` is a list, as one referee for each of its prompts; others as they are.

    A prompt of a list may end with a weight and a stop value, `text:weight:stop`, as in VQGAN+CLIP: the weight
    multiplies the referee's, and the stop value is its `satisfied_at`. Equal referees are loaded once.

    >>> with_single_prompts({"name": "clip", "prompt": ["{prompt}", "an oil painting:0.3"]})
    [{'name': 'clip', 'prompt': '{prompt}'}, {'name': 'clip', 'prompt': 'an oil painting', 'weight': 0.3}]

    Raises:
        ValueError: a prompt is no text, or has a weight or stop value that its referee cannot have.
    """
    prompts = term.get("prompt") if isinstance(term, dict) else None
    if not isinstance(prompts, list):
        return [term]
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"prompt is {shortened(str(prompts))}; expected a text, or a list of texts")
    found = []
    for number, prompt in enumerate(prompts, start=1):
        text, weight, stop = weighted_prompt(prompt)
        single = {**term, "prompt": text}
        if term.get("label") and number > 1:
            single["label"] = f"{term['label']}-{number}"
        if weight is not None:
            if not isinstance(own := term.get("weight", 1.0), int | float):
                raise ValueError(f'prompt "{shortened(prompt)}" has a weight, and so has its referee: a schedule')
            single["weight"] = own * weight
        if stop is not None:
            if term.get("satisfied_at") is not None:
                raise ValueError(f'prompt "{shortened(prompt)}" has a stop value, and its referee has `satisfied_at`')
            single["satisfied_at"] = stop
        found.append(single)
    return found


def weighted_prompt(prompt: str) -> tuple[str, float | None, float | None]:
    """Text, weight and stop value of `text:weight:stop`; None for what is not there.

    >>> weighted_prompt("a sign: open:0.5"), weighted_prompt("a cat:1:0.4"), weighted_prompt("a cat")
    (('a sign: open', 0.5, None), ('a cat', 1.0, 0.4), ('a cat', None, None))
    """
    text = prompt
    numbers: list[float] = []
    for _ in range(2):
        rest, colon, last = text.rpartition(":")
        try:
            number = float(last)
        except ValueError:
            break
        if not colon or not isfinite(number):
            break
        text, numbers = rest, [number, *numbers]
    weight, stop = [*numbers, None, None][:2]
    return text, weight, stop


class PriorTerm(_Weighted):
    """A prior that pulls the image toward natural ones."""


class Witness(BaseTerm):
    """A referee that only scores the result and is never optimised."""

    coarse: int | None = Field(
        None,
        ge=1,
        description="Downscale the image, by area, to this many pixels on the longer side before scoring, which "
        "removes the fine detail of adversarial patterns. null: full size.",
    )
