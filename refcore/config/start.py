"""The start of a run: images, or samples of a prior's model, and several candidates for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from refcore import images, text_files
from refcore.config.section import Section
from refcore.config.terms import PROMPT
from refcore.config.views import CLEAN
from refcore.errors import RefcoreError


class Candidates(Section):
    """Several independent candidates for every sample, narrowed to the best by successive halving.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (AISTATS 2016), ranked by the referees; see
    `refcore.engine.candidates`.
    """

    count: int = Field(
        1,
        ge=1,
        le=1_000,
        description="Number of candidates of every sample at the start, each with its own random draws. At most 1,000, "
        "since all are optimised side by side until they are dropped.",
    )
    keep: list[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]] = Field(
        default_factory=list,
        description="[step, n] pairs: after this many steps the n best candidates of each sample are kept, and the "
        "others are dropped and their memory freed. Step 0 is before the first step, ranked on `views`. At the end of "
        "the run, the best one is kept.",
    )
    recent: int = Field(
        10,
        ge=0,
        description="Window, in steps, of the moving average of the losses by which candidates are ranked; 0: rank by "
        "the losses on `views` of the (averaged) image.",
    )
    views: str = Field(CLEAN, description="View group to rank on, with the same views for every candidate of a sample.")
    by: Literal["consensus", "loss"] = Field(
        "consensus",
        description="Ranking. consensus: every referee counts equally, in units of its own standard deviation. loss: "
        "by the weighted sum of the losses, better for log-probabilities, which reflect each referee's confidence.",
    )
    tries: int = Field(
        1,
        ge=1,
        le=100,
        description="Maximum number of tries. A sample whose best candidate ends above `until` begins again with "
        "`count` fresh candidates, and the best end of all its tries is the result. A try takes `steps` steps, and "
        "schedules begin anew with it.",
    )
    until: Annotated[float, Field(allow_inf_nan=False)] | dict[str, float] | None = Field(
        None,
        description="Loss on `views` at or below which a sample needs no further try: of the weighted sum, or by label "
        "of referees, all of which must get there. Set with `tries`.",
    )

    @model_validator(mode="after")
    def _falling(self) -> Self:
        steps, counts = [step for step, _ in self.keep], [n for _, n in self.keep]
        if steps != sorted(set(steps)) or [self.count, *counts] != sorted({self.count, *counts}, reverse=True):
            raise ValueError(
                f"keep is {[list(pair) for pair in self.keep]}; expected [step, n] pairs with increasing "
                f"steps and decreasing n, below count ({self.count})"
            )
        if (self.tries > 1) != (self.until is not None):
            missing = "until is null" if self.tries > 1 else "tries is 1"
            raise ValueError(f"{missing}; expected tries above 1 and until together, such as tries=2 and until=1.0")
        if self.until == {}:
            raise ValueError("until is {}; expected a loss, or labels of referees with one each")
        return self

    @property
    def most(self) -> int:
        """Number of candidates that a sample has in all its tries."""
        return self.count * self.tries

    def kept_after(self, step: int, steps: int) -> int | None:
        """Number of candidates per sample kept after `step` steps; None if none is dropped then."""
        if step == steps:
            return 1
        return dict(self.keep).get(step)


class SampleStart(Section):
    """A start from a sample of a prior's generative model."""

    prior: str | None = Field(
        None, description="Label of the prior whose model is sampled; null: the first prior that can be sampled."
    )
    steps: int = Field(
        50, ge=1, le=1_000, description="Number of sampler steps (DDIM, eta = 0); at most the model's 1,000 timesteps."
    )
    guidance: float = Field(7.5, ge=0, description="Classifier-free guidance scale; 1 for none.")
    rounds: list[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=list,
        description="Search before the first step, with `candidates.count` candidates: [n, strength] pairs, one per "
        "round. Each round keeps the n best candidates of each sample and resamples the others from these, noised with "
        "that strength (as in diffusers' image-to-image).",
    )


SAMPLE = "sample"
"""`init: sample` is short for a SampleStart with default settings."""
SEED = "{seed}"
"""Stands for the sample's seed in the path of an image."""


class ImageStart(Section):
    """A start from images: as they are, or on the way from them to a fresh start."""

    image: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="Path of the image, or of a file that the canvas opens, such as an SVG drawing for `strokes`. "
        "{prompt} and {seed} in it stand for those of each sample. A list has one path for each sample, prompts "
        "outermost.",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="How far the start is from the image, up to 1 for a fresh start. On a canvas with latents, and "
        "with a prior that can be sampled: the image's latent with the noise of the timestep at which diffusers' "
        "image-to-image pipelines begin. Of the sampler's `steps` timesteps they do the last int(`steps` x strength), "
        "here at least one. Otherwise: (1 - strength) x the image's parameters + strength x those of a fresh start. "
        "null: the image.",
    )
    prior: str | None = Field(
        None, description="Label of the prior whose model adds the noise; null: the first prior that can be sampled."
    )
    steps: int = Field(50, ge=1, description="Number of sampler steps (DDIM) that `strength` is a share of.")

    def paths(self, samples: Sequence[tuple[str, int]]) -> list[str]:
        """[B] the path of each sample, (prompt, seed).

        >>> ImageStart(image="refs/{prompt}-{seed}.png").paths([("a cat", 0), ("a cat", 1)])
        ['refs/a cat-0.png', 'refs/a cat-1.png']
        """
        asked = [self.image] * len(samples) if isinstance(self.image, str) else self.image
        return [
            path.replace(SEED, str(seed)).replace(PROMPT, prompt)
            for path, (prompt, seed) in zip(asked, samples, strict=True)
        ]

    def absolute(self) -> ImageStart:
        """The same start without the working directory in it."""
        paths = [self.image] if isinstance(self.image, str) else self.image
        absolute = [str(Path(path).absolute()) for path in paths]
        return self.model_copy(update={"image": absolute[0] if isinstance(self.image, str) else absolute})

    def check(self, samples: Sequence[tuple[str, int]], opens: Sequence[str] = ()) -> None:
        """Looks at every file that the samples (prompt, seed) start from.

        Args:
            samples: of the run.
            opens: endings of files that the canvas opens, which are no images.

        Raises:
            RefcoreError: naming every file that is missing, or else the first that is no image and none of the others.
        """
        paths = list(dict.fromkeys(self.paths(samples)))
        missing = [path for path in paths if not Path(path).exists()]
        if missing:
            named = ", ".join(f'"{path}"' for path in missing)
            many = f"{len(missing)} of {len(paths)} files are missing" if len(paths) > 1 else "the file is missing"
            raise RefcoreError(f"init.image: {many}: {named}; expected the paths of images")
        for path in paths:
            if is_opened(path, opens):
                text_files.read_named(path, "init.image")
            else:
                images.check(path)


def is_opened(path: str, opens: Sequence[str]) -> bool:
    """Whether a canvas opens a file itself, by the ending of its name."""
    return Path(path).suffix.lower() in opens


def _which(init: Any) -> str:
    """The tag of a start in a config."""
    return (
        "ImageStart" if isinstance(init, ImageStart) or (isinstance(init, dict) and "image" in init) else "SampleStart"
    )


Start = Annotated[
    Annotated[SampleStart, Tag("SampleStart")] | Annotated[ImageStart, Tag("ImageStart")], Discriminator(_which)
]


def read_start(init: Any) -> Any:
    """The settings that a start in short stands for: "sample", or the path of an image.

    Raises:
        ValueError: it is neither of these, nor settings.
    """
    if init == SAMPLE:
        return SampleStart()
    if isinstance(init, str):
        return ImageStart(image=init)
    if init is None or isinstance(init, (dict, SampleStart, ImageStart)):
        return init
    raise ValueError(f"init is {init}; expected the path of an image, {SAMPLE}, or the settings of one of them")
