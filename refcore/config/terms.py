"""Terms of the objective: referees, priors and witnesses, what each is asked, and when it takes part."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from refcore.config.schedule import Schedule, value_at, values
from refcore.config.section import Section
from refcore.registry import as_use

PROMPT = "{prompt}"


def _window(window: tuple[int, int | None]) -> tuple[int, int | None]:
    first, last = window
    if first < 0 or (last is not None and last <= first):
        raise ValueError(f"[{first}, {last}] is no window; expected [first step, first step after it or null]")
    return window


Window = Annotated[tuple[int, int | None], AfterValidator(_window)]


Autocast = Literal["bfloat16", "float16"]


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


class SatisfiedAt(Section):
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


class JudgedPhrases(Section):
    """The phrases of the prompt that a referee judges besides the whole of it.

    The loss of a view is `whole` * loss(prompt) + `weight` * reduce(loss of each phrase). The phrases are those of
    `refcore.contracts.parser.ParsedPrompt.sentences`: each thing with its count, and each relation of two of them.
    """

    parser: ParserUse = Field(description="What takes the prompt apart: a parser's name, or its name and config.")
    weight: float = Field(1.0, gt=0, description="Factor of the phrases' reduced loss.")
    whole: float = Field(1.0, ge=0, description="Factor of the whole prompt's loss; 0 judges the phrases alone.")
    reduce: Literal["mean", "max"] = Field(
        "mean", description="mean: of the phrases' losses. max: the loss of the view's worst phrase alone."
    )


class RefereeTerm(_Weighted):
    """A referee that the image is optimised for."""

    wanted: bool = Field(
        True,
        description="false asks the negated question, for what must not be seen; bounded, unlike a negative weight.",
    )
    views: str = Field("main", description='The view group that it judges; "clean" is the image as it is.')
    satisfied_at: SatisfiedAt | None = Field(
        None,
        description="Loss (a number, or its settings) at or below which this referee is satisfied and its gradient 0, "
        "sample by sample; early_stop waits until the clean loss of all that have one is there. null: never.",
    )
    phrases: JudgedPhrases | None = Field(
        None,
        description="Judge the phrases of the prompt (things and relations), too: a parser's name, or its settings. "
        "Scores stay those of the whole prompt. null: the whole alone.",
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
                f'phrases are of the run\'s prompts, but prompt is "{self.prompt}"; expected {PROMPT} in it'
            )
        if self.phrases is not None and self.satisfied_at is not None and self.satisfied_at.calibration is not None:
            raise ValueError(
                "satisfied_at.calibration is of losses on whole prompts, and with phrases the loss is another; "
                "use satisfied_at.loss"
            )
        return self

    def scoring(self) -> Witness:
        """The same question, asked of finished images alone."""
        return Witness(
            name=self.name,
            config=self.config,
            label=self.label,
            prompt=self.prompt,
            dtype=self.dtype,
            autocast=self.autocast,
        )


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
