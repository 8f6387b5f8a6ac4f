"""The conformance suite accepts plugins that keep their contracts, and each check catches one that breaks its rule."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from refcore.config.schedule import Schedule
from refcore.contracts.augmentation import Augmentation, Params
from refcore.contracts.canvas import Canvas, CanvasParams, LatentSpace
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.judge import Fact, Judge, Verdict
from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.contracts.parser import ParsedPrompt, Parser, Phrase
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.contracts.transform import Transform
from refcore.errors import CheckpointError, ParseError, RefcoreError
from refcore.images import Levels
from refcore.moment import Moment
from refcore.plugin import Plugin, PluginConfig
from refcore.rng import Rng, keyed_generator
from refcore.testing import CHECKS, Case, Failed, NotApplicable, check, run, suite

SIZE = (8, 10)


def convolution() -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3).requires_grad_(False).eval()


class GoodReferee(Referee):
    """p(match) = sigmoid(features . text)."""

    class Config(PluginConfig):
        model: str = Field("toy", description="Its checkpoint.")
        gain: float = Field(1.0, description="Of the logit.")

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        if self.config.model != "toy":
            raise CheckpointError(f'model "{self.config.model}" is not on this machine; use toy')
        self.device, self.dtype, self.input_size = device, dtype, SIZE
        self.net = convolution().to(device, dtype)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        text = [torch.randn(4, generator=keyed_generator(0, 0, prompt)) for prompt in prompts]
        return Conditioning(tuple(prompts), {"text": torch.stack(text)})

    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        features = self.net(views.to(self.dtype)).tanh().mean((2, 3))
        return 5 * self.config.gain * (features * text.to(features)).sum(1)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        logit = self.logit(views, conditioning["text"][prompt_index])
        return -nn.functional.logsigmoid(logit if wanted else -logit)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        return self.logit(images, conditioning["text"]).sigmoid()


class Undescribed(GoodReferee):
    class Config(PluginConfig):
        gain: float = 1.0


class Loose(GoodReferee):
    class Config(BaseModel):  # type: ignore[assignment]
        model: str = "toy"
        gain: float = 1.0


class Forgetful(GoodReferee):
    class Config(PluginConfig):
        model: str = Field("toy", description="Its checkpoint.", exclude=True)
        gain: float = Field(1.0, description="Of the logit.")


class KeyErrors(GoodReferee):
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super_load = {"toy": super().load}
        super_load[self.config.model](device, dtype)


class Careless(GoodReferee):
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.config = self.config.model_copy(update={"model": "toy"})
        super().load(device, dtype)


class Sizeless(GoodReferee):
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super().load(device, dtype)
        self.input_size = 8  # type: ignore[assignment]


class OneRow(GoodReferee):
    def read(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(tuple(prompts), {"text": super().read(prompts)["text"][:1]})


class Mean(GoodReferee):
    def judge(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().judge(*args, **kwargs).mean()


class Half(GoodReferee):
    def judge(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().judge(*args, **kwargs).bfloat16()


class ScoreWithGradient(GoodReferee):
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        return self.logit(images.requires_grad_(), conditioning["text"])


class Detached(GoodReferee):
    def judge(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().judge(*args, **kwargs).detach()


class Constant(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return 0 * views.mean((1, 2, 3)) + text.sum(1)


class NanOnGrey(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return super().logit(views, text) + views.flatten(1).var(1).sqrt()


class WrongGradient(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return (
            super().logit((views * 255).round() / 255 + views - views.detach(), text) + views.mean((1, 2, 3)).detach()
        )


class BatchStatistics(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return super().logit(views - views.mean(0, keepdim=True), text) + views[..., 0].mean((1, 2))


class IgnoresRows(GoodReferee):
    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        return super().judge(views, conditioning, torch.arange(len(views)) % len(conditioning), wanted)


class IgnoresWanted(GoodReferee):
    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        return super().judge(views, conditioning, prompt_index)


class InPlace(GoodReferee):
    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        if not views.requires_grad:
            views.mul_(0.9)
        return super().judge(views, conditioning, prompt_index, wanted)


class Dropout(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return nn.functional.dropout(super().logit(views, text), 0.5)


class Counts(GoodReferee):
    calls = 0

    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        self.calls += 1
        return super().logit(views, text) + self.calls


class Trainable(GoodReferee):
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super().load(device, dtype)
        self.net.requires_grad_(True)


class TrainingMode(GoodReferee):
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super().load(device, dtype)
        self.net.train()


class Drifting(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        self.net.bias.mul_(1.001)
        return super().logit(views, text)


class GlobalTorch(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return super().logit(views, text) + 1e-9 * torch.rand(())


class GlobalNumpy(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return super().logit(views, text) + 1e-9 * np.random.rand()


class GlobalPython(GoodReferee):
    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        return super().logit(views, text) + 1e-9 * random.random()


class Hoards(GoodReferee):
    def judge(self, *args: Any, **kwargs: Any) -> Tensor:
        self.__dict__.setdefault("losses", []).append(super().judge(*args, **kwargs))
        return self.__dict__["losses"][-1]


class GoodPrior(Prior):
    """The squared distance from a noisy grey."""

    class Config(PluginConfig):
        target: float = Field(0.3, description="The grey.")

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.net = convolution().to(device, dtype)

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Any, Any]:
        off = x - self.config.target - 0.1 * rng.normal(*x.shape[1:]).to(x)
        return off / off[0].numel(), off.square().flatten(1).mean(1) / 2


class ScalarValue(GoodPrior):
    def gradient(self, *args: Any) -> tuple[Any, Any]:
        gradient, value = super().gradient(*args)
        return gradient, value.mean()


class AttachedGradient(GoodPrior):
    def gradient(self, x: Tensor, *rest: Any) -> tuple[Any, Any]:
        return super().gradient(x.requires_grad_(), *rest)


class NoPair(GoodPrior):
    def gradient(self, *args: Any) -> Any:
        return super().gradient(*args)[0]


class NanPrior(GoodPrior):
    def gradient(self, *args: Any) -> tuple[Any, Any]:
        gradient, value = super().gradient(*args)
        return gradient.clamp(min=0).log(), value


class TwiceTheGradient(GoodPrior):
    def gradient(self, *args: Any) -> tuple[Any, Any]:
        gradient, value = super().gradient(*args)
        return 2 * gradient, value


class Coupled(GoodPrior):
    def gradient(self, *args: Any) -> tuple[Any, Any]:
        gradient, value = super().gradient(*args)
        return gradient + gradient.mean(0, keepdim=True), value


class OwnDice(GoodPrior):
    dice = torch.Generator().manual_seed(0)

    def gradient(self, x: Tensor, *rest: Any) -> tuple[Any, Any]:
        gradient, value = super().gradient(x, *rest)
        return gradient * (1 + torch.rand(len(x), 1, 1, 1, generator=self.dice)), value


class LatentPrior(GoodPrior):
    space: ClassVar[Literal["latent", "image", "params"]] = "latent"

    def encode(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 2)


class SampledPrior(LatentPrior):
    can_sample = True

    def noise_to(self, latents: Tensor, rng: Rng, steps: int, strength: float) -> Tensor:
        return latents + strength * rng.normal(*latents.shape[1:]).to(latents)


class NoNoise(LatentPrior):
    can_sample = True


class SameNoise(SampledPrior):
    def noise_to(self, latents: Tensor, rng: Rng, steps: int, strength: float) -> Tensor:
        return super().noise_to(latents, rng, steps, 1.0)


class NoGradientEncoder(LatentPrior):
    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images)


class Learns(GoodPrior):
    """A running average of its inputs, kept as state."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.seen = torch.zeros(())

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Any, Any]:
        self.seen = self.seen + 1
        return super().gradient(x, conditioning, at, rng)[0] * (1 + self.seen), None

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class ForgetsItsState(Learns):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class PriorInPlace(GoodPrior):
    def gradient(self, x: Tensor, *rest: Any) -> tuple[Any, Any]:
        return super().gradient(x.mul_(0.5), *rest)


class DriftingPrior(GoodPrior):
    def gradient(self, *args: Any) -> tuple[Any, Any]:
        self.net.bias.add_(0.1)
        return super().gradient(*args)


class GlobalPrior(GoodPrior):
    def gradient(self, *args: Any) -> tuple[Any, Any]:
        torch.rand(())
        return super().gradient(*args)


class HoardingPrior(GoodPrior):
    kept: ClassVar[list[Any]] = []

    def gradient(self, *args: Any) -> tuple[Any, Any]:
        self.kept.append(super().gradient(*args))
        return self.kept[-1]


class Pulls(GoodPrior):
    """Toward a grey that may change over the run."""

    class Config(PluginConfig):
        target: Schedule = Field(0.3, description="The grey.")

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Any, Any]:
        off = x - at.of(self.config.target)
        return off / off[0].numel(), off.square().flatten(1).mean(1) / 2


class PullsAsAtFirst(Pulls):
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Any, Any]:
        return super().gradient(x, conditioning, Moment(0, at.steps), rng)


class PriorOfVersion1(Pulls):
    def gradient(self, x: Tensor, conditioning: Conditioning, step: Any, rng: Rng) -> tuple[Any, Any]:
        return super().gradient(x, conditioning, step, rng)


class GoodAugmentation(Augmentation):
    """Darkens each view a little."""

    class Config(PluginConfig):
        least: float = Field(0.6, ge=0, le=1, description="Smallest factor.")

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {"factor": rng.uniform(self.config.least, 1)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        return views * params["factor"].view(-1, 1, 1, 1).to(views)


class GoodGeometry(Augmentation):
    """Zooms in up to twice."""

    geometric = True
    zoom = 2.0  # type: ignore[assignment]

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {"scale": rng.uniform(0.5, 1)}

    def matrix(self, params: Params) -> Tensor:
        scale = params["scale"]
        return torch.diag_embed(torch.stack([scale, scale, torch.ones_like(scale)], -1))


class Dims(GoodAugmentation):
    """Darkens by a share that may change over the run."""

    class Config(PluginConfig):
        least: Schedule = Field(0.6, ge=0, le=1, description="Smallest factor.")

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {"factor": rng.uniform(at.of(self.config.least), 1)}


class DimsAsAtFirst(Dims):
    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return super().draw(size, rng, Moment(0, at.steps))


class AugmentationOfVersion1(GoodAugmentation):
    def draw(self, size: tuple[int, int], rng: Rng) -> Params:  # type: ignore[override]
        return {"factor": rng.uniform(0.6, 1)}


class DrawsAFloat(GoodAugmentation):
    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {**super().draw(size, rng, at), "much": 0.5}  # type: ignore[dict-item]


class DrawsOne(GoodAugmentation):
    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {"factor": super().draw(size, rng, at)["factor"][:1]}


class DrawsGlobally(GoodAugmentation):
    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {"factor": torch.rand(rng.n)}


class DrawsWithMates(GoodAugmentation):
    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        factor = super().draw(size, rng, at)["factor"]
        return {"factor": factor / factor.mean()}


class Shrinks(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        return super().apply(views, params)[..., 1:]


class Singles(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        return super().apply(views.float(), params)


class SaysGeometric(GoodAugmentation):
    geometric = True


class HalfZoom(GoodGeometry):
    zoom = 1.0  # type: ignore[assignment]


class Flat(GoodGeometry):
    def matrix(self, params: Params) -> Tensor:
        return super().matrix(params) * params["scale"].new_tensor([1.0, 0.0, 1.0])


class Rounds(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        return (super().apply(views, params) * 255).round() / 255


class Blocks(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        return super().apply(views, params).detach()


class StraightThrough(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        out = super().apply(views, params)
        return (out.detach() ** 2) + out - out.detach()


class MeanOfBatch(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        return super().apply(views, params) + 0.5 * views.mean()


class AugmentsInPlace(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        params["factor"].mul_(0.5)
        return super().apply(views, params)


class AppliesDropout(GoodAugmentation):
    def apply(self, views: Tensor, params: Params) -> Tensor:
        return nn.functional.dropout(super().apply(views, params))


class HoldsWeights(GoodAugmentation):
    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        self.net = convolution()


class LearnableAugmentation(HoldsWeights):
    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        self.net.requires_grad_()


class HoardingAugmentation(GoodAugmentation):
    kept: ClassVar[list[Any]] = []

    def apply(self, views: Tensor, params: Params) -> Tensor:
        self.kept.append(super().apply(views, params))
        return self.kept[-1]


class GoodCanvas(Canvas):
    """Pixels through a sigmoid, with a latent that is the pixels."""

    latent_space = LatentSpace("toy", 3, 1.0)

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device, self.size = device, size or SIZE
        if min(self.size) < 1:
            raise RefcoreError(f"size {self.size} is not possible; expected at least (1, 1)")
        self.net = convolution().to(device, dtype)

    def init(self, rng: Rng) -> CanvasParams:
        return {"pixels": rng.normal(3, *self.size)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return params["pixels"].sigmoid()

    def encode(self, images: Tensor) -> CanvasParams:
        return {"pixels": images.clamp(1e-3, 1 - 1e-3).logit()}

    def latent_name(self) -> str | None:
        return "pixels"


class Sharpens(GoodCanvas):
    """Its contrast may change over the run."""

    class Config(PluginConfig):
        contrast: Schedule = Field(1.0, gt=0, le=4, description="Factor of the logits.")

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return (at.of(self.config.contrast) * params["pixels"]).sigmoid()

    def encode(self, images: Tensor) -> CanvasParams:
        return {"pixels": super().encode(images)["pixels"] / Moment(0, 1).of(self.config.contrast)}


class SharpensAsAtFirst(Sharpens):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return super().decode(params, Moment(0, at.steps))


class CanvasOfVersion1(GoodCanvas):
    def decode(self, params: CanvasParams) -> Tensor:  # type: ignore[override]
        return params["pixels"].sigmoid()


class AnySize(GoodCanvas):
    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device, self.size, self.net = device, size or SIZE, convolution()


class NoSize(GoodCanvas):
    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device, self.net = device, convolution()


class Doubles(GoodCanvas):
    def init(self, rng: Rng) -> CanvasParams:
        return {"pixels": super().init(rng)["pixels"].double()}


class StartsGlobally(GoodCanvas):
    def init(self, rng: Rng) -> CanvasParams:
        return {"pixels": torch.randn(rng.n, 3, *self.size)}


class StartsTogether(GoodCanvas):
    def init(self, rng: Rng) -> CanvasParams:
        pixels = super().init(rng)["pixels"]
        return {"pixels": pixels - pixels.mean(0)}


class Unsquashed(GoodCanvas):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return 0.5 + 0.1 * params["pixels"]


class UnusedParameter(GoodCanvas):
    def init(self, rng: Rng) -> CanvasParams:
        return {**super().init(rng), "spare": rng.normal(3)}


class StraightThroughCanvas(GoodCanvas):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        image = super().decode(params, at)
        return image.detach().square() + image - image.detach()


class MixesSamples(GoodCanvas):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return (params["pixels"] + params["pixels"].mean(0)).sigmoid()


class EncodesWrongly(GoodCanvas):
    def encode(self, images: Tensor) -> CanvasParams:
        return {"pixels": -super().encode(images)["pixels"]}


class WritesText(GoodCanvas):
    """Its pixels as numbers in a text file, which it opens again."""

    opens = (".txt",)

    def files(self, params: CanvasParams) -> list[dict[str, str]]:
        return [{".txt": " ".join(f"{x:.6f}" for x in own.flatten().tolist())} for own in params["pixels"]]

    def open(self, text: str) -> CanvasParams:
        try:
            numbers = [float(word) for word in text.split()]
        except ValueError as error:
            raise RefcoreError(f"the text has {text[:20]!r}; expected numbers") from error
        return {"pixels": torch.tensor(numbers).view(1, 3, *self.size)}


class WritesOne(WritesText):
    def files(self, params: CanvasParams) -> list[dict[str, str]]:
        return super().files(params)[:1]


class WritesPrograms(WritesText):
    def files(self, params: CanvasParams) -> list[dict[str, str]]:
        return [{".sh": text} for files in super().files(params) for text in files.values()]


class WritesRounded(WritesText):
    def files(self, params: CanvasParams) -> list[dict[str, str]]:
        return super().files({"pixels": params["pixels"].round(decimals=1)})


class OpensAnything(WritesText):
    def open(self, text: str) -> CanvasParams:
        return super().open(text if text[0].isprintable() else "0 " * (3 * self.size[0] * self.size[1]))


class NoLatentName(GoodCanvas):
    def latent_name(self) -> str | None:
        return None


class NamesNoParameter(GoodCanvas):
    def latent_name(self) -> str | None:
        return "latents"


class OtherChannels(GoodCanvas):
    latent_space = LatentSpace("toy", 4, 1.0)


class DecodesInPlace(GoodCanvas):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        if not params["pixels"].requires_grad:
            params["pixels"].add_(1)
        return super().decode(params, at)


class NoisyDecoder(GoodCanvas):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return (params["pixels"] + torch.randn(())).sigmoid()


class DriftingCanvas(GoodCanvas):
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        self.net.bias.add_(0.1)
        return super().decode(params, at)


class HoardingCanvas(GoodCanvas):
    kept: ClassVar[list[Any]] = []

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        self.kept.append(super().decode(params, at))
        return self.kept[-1]


class GoodParser(Parser):
    """One thing between every two words "and"."""

    class Config(PluginConfig):
        between: str = Field("and", description="The word between two things.")

    def parse(self, prompt: str) -> ParsedPrompt:
        return ParsedPrompt(prompt, tuple(Phrase(part) for part in prompt.split(f" {self.config.between} ") if part))


class ParsesTidied(GoodParser):
    def parse(self, prompt: str) -> ParsedPrompt:
        return super().parse(prompt.title())


class Remembers(GoodParser):
    seen = 0

    def parse(self, prompt: str) -> ParsedPrompt:
        self.seen += 1
        return ParsedPrompt(prompt, (Phrase(prompt, self.seen),))


class ReadsNothing(GoodParser):
    def parse(self, prompt: str) -> ParsedPrompt:
        return ParsedPrompt(prompt, (Phrase(prompt or "nothing"),))


class Guesses(GoodParser):
    def parse(self, prompt: str) -> ParsedPrompt:
        torch.rand(1)
        return super().parse(prompt)


class GoodJudge(Judge):
    """Finds one fact in every prompt that has words."""

    def reads(self, prompt: str) -> bool:
        return bool(prompt)

    def judge(self, levels: Levels, prompt: str) -> Verdict:
        if not prompt:
            raise ParseError("an empty prompt; expected words")
        bright = bool(levels.mean() > 127)
        return Verdict(bright, (Fact(prompt, "something bright" if bright else "nothing", bright),))


class Contradicts(GoodJudge):
    def judge(self, levels: Levels, prompt: str) -> Verdict:
        found = super().judge(levels, prompt)
        return Verdict(not found.verdict, found.facts)


class JudgesNothing(GoodJudge):
    def reads(self, prompt: str) -> bool:
        return True


class Gambles(GoodJudge):
    def judge(self, levels: Levels, prompt: str) -> Verdict:
        torch.rand(1)
        return super().judge(levels, prompt)


class GoodMetric(Metric):
    """Brightness, which needs to know how bright the image should be."""

    unit = "1 minus the difference in brightness, 0 to 1"
    needs = ("brightness",)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        pass

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        found = []
        for image, prompt in zip(images, prompts, strict=True):
            if "brightness" not in prompt.facts:
                raise RefcoreError(f'"{prompt.text}" has no fact "brightness"')
            seen = float(image.mean()) / 255
            found.append(Measurement(1 - abs(seen - prompt.facts["brightness"]), {"seen": seen}))
        return found


class Undefined(GoodMetric):
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        return [Measurement(math.nan) for _ in super().measure(images, prompts)]


class Ranks(GoodMetric):
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        found = super().measure(images, prompts)
        return [Measurement(one.value - sum(other.value for other in found) / len(found)) for one in found]


class TakesAnyPrompt(GoodMetric):
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        return [Measurement(float(image.mean()) / 255) for image in images]


class Wavers(GoodMetric):
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        random.random()
        return super().measure(images, prompts)


class GoodTracker(Tracker):
    """Keeps what it is told."""

    def start(self, run: TrackedRun) -> None:
        self.told: list[Any] = [run]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(dict(values))

    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        self.told.append({name: levels.copy() for name, levels in pictures.items()})

    def end(self, outcome: Outcome) -> None:
        """Nothing is open."""


class PaintsOver(GoodTracker):
    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        for levels in pictures.values():
            levels[:] = 0


class NeedsAStart(GoodTracker):
    def end(self, outcome: Outcome) -> None:
        self.told.append(outcome)


class Jitters(GoodTracker):
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        torch.rand(1)


class GoodTransform(Transform):
    """Halves."""

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        return {name: value / 2 for name, value in x.items()}


class Flattens(GoodTransform):
    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        return {name: value.flatten(1) for name, value in x.items()}


class DividesByAll(GoodTransform):
    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        return {name: value / value.norm() for name, value in x.items()}


class DividesByNothing(GoodTransform):
    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        norms = {name: value.flatten(1).norm(dim=1) for name, value in x.items()}
        return {name: value / norms[name].view(-1, *[1] * (value.dim() - 1)) for name, value in x.items()}


class AddsOne(GoodTransform):
    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        return {name: value + 1 for name, value in x.items()}


class HalvesInPlace(GoodTransform):
    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        return {name: value.div_(2) for name, value in x.items()}


BROKEN: list[tuple[str, type[Plugin], str]] = [
    ("config_round_trip", Undescribed, "no description of gain"),
    ("config_round_trip", Loose, "expected a Config that extends"),
    ("useful_errors", Loose, "accepts an unknown field"),
    ("useful_errors", KeyErrors, "raises KeyError.*expected a RefcoreError"),
    ("useful_errors", Careless, "model='/nonexistent/refcore-testing' is accepted"),
    ("loads", Sizeless, "input_size is 8"),
    ("conditioning", OneRow, r'"text".*\[1, 4\]; expected 3 rows'),
    ("shapes_dtype_and_device", Mean, r"judge \(wanted=True\) returns the shape \[\]; expected \[1\]"),
    ("shapes_dtype_and_device", Half, r"returns torch\.bfloat16"),
    ("shapes_dtype_and_device", ScoreWithGradient, "score has a gradient"),
    ("gradient_present_and_finite", Detached, "has no gradient"),
    ("gradient_present_and_finite", Constant, "does not depend on the image"),
    ("gradient_present_and_finite", NanOnGrey, "is not finite"),
    ("gradient_right", WrongGradient, r"not that of the loss.*float64"),
    ("no_dependence_on_batch_mates", BatchStatistics, "gradient .* in other views"),
    ("no_dependence_on_batch_mates", IgnoresRows, "the loss of view 0 depends"),
    ("negated_question", IgnoresWanted, "agree"),
    ("inputs_unchanged", InPlace, "the views changed in place"),
    ("determinism", Dropout, "differs in a second call"),
    ("determinism", Counts, "differs in a second call"),
    ("frozen_weights", Trainable, r"net\.weight, net\.bias require gradients"),
    ("frozen_weights", TrainingMode, "net in training mode"),
    ("frozen_weights", Drifting, r"net\.bias changed in use"),
    ("no_global_randomness", GlobalTorch, "global generator of torch"),
    ("no_global_randomness", GlobalNumpy, r"global generator of numpy\.random"),
    ("no_global_randomness", GlobalPython, "global generator of random"),
    ("time_and_memory_per_view", Hoards, "stay alive"),
    ("shapes_dtype_and_device", ScalarValue, r"the value is a tensor \[\]; expected a tensor \[3\]"),
    ("shapes_dtype_and_device", AttachedGradient, "not detached"),
    ("shapes_dtype_and_device", NoPair, r"expected \(gradient, value or None\)"),
    ("every_moment", PriorOfVersion1, r"gradient takes .*step.*expected \(x, conditioning, at, rng\)"),
    ("scheduled_numbers", PullsAsAtFirst, r"take the value of the moment, at\.of\(self\.config\.target\)"),
    ("gradient_present_and_finite", NanPrior, "not finite"),
    ("gradient_right", TwiceTheGradient, "not that of the value"),
    ("no_dependence_on_batch_mates", Coupled, "depends on the rest of the batch"),
    ("randomness_by_key", OwnDice, "two calls with the same rng"),
    ("determinism", OwnDice, "differs in a second call"),
    ("noising", NoNoise, "there is no noise_to"),
    ("noising", SameNoise, r"at strength 0\.2 and"),
    ("encoder", NoGradientEncoder, "has no gradient"),
    ("state_round_trip", ForgetsItsState, "could not be resumed"),
    ("inputs_unchanged", PriorInPlace, "changed in place"),
    ("frozen_weights", DriftingPrior, r"net\.bias changed"),
    ("no_global_randomness", GlobalPrior, "global generator of torch"),
    ("time_and_memory_per_view", HoardingPrior, "stay alive"),
    ("config_round_trip", type("P", (GoodPrior,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("P", (GoodPrior,), {"Config": Loose.Config}), "unknown field"),
    ("draws", DrawsAFloat, '"much" of the draw is float'),
    ("draws", DrawsOne, r"\[1\]; expected 6 rows"),
    ("draws_by_key", DrawsGlobally, "differs in a second draw"),
    ("draws_by_key", DrawsWithMates, "without the rest of the batch"),
    ("every_moment", AugmentationOfVersion1, r"draw takes .*expected \(size, rng, at\).*api_version 2"),
    ("scheduled_numbers", DimsAsAtFirst, r"self\.config\.least"),
    ("shapes_dtype_and_device", Shrinks, r"apply returns a tensor"),
    ("shapes_dtype_and_device", Singles, r"torch\.float32 for views in torch\.float64"),
    ("shapes_dtype_and_device", SaysGeometric, "there is no `matrix`"),
    ("geometry", HalfZoom, r"magnified .* zoom says at most 1\.00"),
    ("geometry", Flat, "cannot be inverted"),
    ("gradient_present_and_finite", Rounds, "the gradient of every view is 0"),
    ("gradient_present_and_finite", Blocks, "apply has no gradient"),
    ("gradient_right", StraightThrough, "differs from central differences"),
    ("no_dependence_on_batch_mates", MeanOfBatch, "depends on the rest of the batch"),
    ("inputs_unchanged", AugmentsInPlace, "factor changed in place"),
    ("determinism", AppliesDropout, "differs in a second call"),
    ("no_global_randomness", AppliesDropout, "global generator of torch"),
    ("frozen_weights", LearnableAugmentation, "require gradients"),
    ("time_and_memory_per_view", HoardingAugmentation, "stay alive"),
    ("config_round_trip", type("A", (GoodAugmentation,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("A", (GoodAugmentation,), {"Config": Loose.Config}), "unknown field"),
    ("useful_errors", AnySize, r"size \(0, 0\) is accepted"),
    ("config_round_trip", type("C", (GoodCanvas,), {"Config": Undescribed.Config}), "no description"),
    ("loads", NoSize, "size is None"),
    ("parameters", Doubles, r"torch\.float64; expected float32"),
    ("parameters", StartsGlobally, "second init of the same key"),
    ("parameters", StartsTogether, "without the rest of the batch"),
    ("shapes_dtype_and_device", Unsquashed, r"expected \[0, 1\]"),
    ("every_moment", CanvasOfVersion1, r"decode takes .*expected \(params, at\).*api_version 2"),
    ("scheduled_numbers", SharpensAsAtFirst, r"self\.config\.contrast"),
    ("gradient_present_and_finite", UnusedParameter, '"spare" is 0'),
    ("gradient_right", StraightThroughCanvas, "differs from central differences"),
    ("no_dependence_on_batch_mates", MixesSamples, "the image of sample 1 depends"),
    ("start_from_an_image", EncodesWrongly, "is 0.* off"),
    ("documents", WritesOne, "expected a list of 3 dicts"),
    ("documents", WritesPrograms, r"ending '\.sh'; expected one of \.json, \.svg, \.txt"),
    ("documents", WritesRounded, r"opened again, is up to 0\.\d+ off"),
    ("documents", OpensAnything, "a text that is no document is accepted"),
    ("latents", NoLatentName, "expected both, or neither"),
    ("latents", NamesNoParameter, "expected one of the parameters: pixels"),
    ("latents", OtherChannels, r"expected \[B, 4, h, w\]"),
    ("inputs_unchanged", DecodesInPlace, '"pixels" changed in place'),
    ("determinism", NoisyDecoder, "differs in a second call"),
    ("no_global_randomness", NoisyDecoder, "global generator of torch"),
    ("frozen_weights", DriftingCanvas, r"net\.bias changed"),
    ("time_and_memory_per_view", HoardingCanvas, "stay alive"),
    ("parsing", ParsesTidied, "expected the prompt as given"),
    ("repeatable", Remembers, "in a second call"),
    ("refuses_what_it_cannot_read", ReadsNothing, "expected a ParseError"),
    ("no_global_randomness", Guesses, "global generator of torch"),
    ("config_round_trip", type("W", (GoodParser,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("W", (GoodParser,), {"Config": Loose.Config}), "unknown field"),
    ("config_round_trip", type("W", (GoodJudge,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("W", (GoodJudge,), {"Config": Loose.Config}), "unknown field"),
    ("verdicts", Contradicts, "but all facts hold"),
    ("refuses_what_it_cannot_read", JudgesNothing, "expected false"),
    ("no_global_randomness", Gambles, "global generator of torch"),
    ("config_round_trip", type("W", (GoodTracker,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("W", (GoodTracker,), {"Config": Loose.Config}), "unknown field"),
    ("every_outcome", PaintsOver, "changed an image in place"),
    ("an_end_without_a_start", NeedsAStart, "end without a start raises AttributeError"),
    ("no_global_randomness", Jitters, "global generator of torch"),
    ("config_round_trip", type("W", (GoodTransform,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("W", (GoodTransform,), {"Config": Loose.Config}), "unknown field"),
    ("shapes_and_dtypes", Flattens, r"returned a tensor \[3, 1024\]; expected a tensor \[3, 4, 16, 16\]"),
    ("no_dependence_on_batch_mates", DividesByAll, "with its batch mates"),
    ("config_round_trip", type("W", (GoodMetric,), {"Config": Undescribed.Config}), "no description"),
    ("useful_errors", type("W", (GoodMetric,), {"Config": Loose.Config}), "unknown field"),
    ("measures", Undefined, "is not finite"),
    ("no_dependence_on_batch_mates", Ranks, "alone and"),
    ("says_what_it_needs", TakesAnyPrompt, 'without "brightness" is measured'),
    ("no_global_randomness", Wavers, "random"),
    ("zero_gradients_stay", DividesByNothing, "is not finite for a gradient of 0"),
    ("zero_gradients_stay", AddsOne, "a gradient of 0 becomes 1"),
    ("inputs_unchanged", HalvesInPlace, 'changed "latent" in place'),
]
"""A check, a plugin that breaks its rule, and the message."""
GOOD: list[type[Plugin]] = [
    GoodReferee,
    GoodPrior,
    LatentPrior,
    SampledPrior,
    Pulls,
    GoodAugmentation,
    Dims,
    HoldsWeights,
    GoodGeometry,
    GoodCanvas,
    Sharpens,
    WritesText,
    GoodParser,
    GoodJudge,
    GoodMetric,
    GoodTracker,
    GoodTransform,
]


def case_of(plugin: type[Plugin], **options: Any) -> Case:
    facts = {"brightness": 0.5} if issubclass(plugin, Metric) else {}
    return Case(plugin(), size=None if issubclass(plugin, Canvas) else SIZE, facts=facts, **options)


@pytest.mark.parametrize("plugin", GOOD, ids=lambda plugin: plugin.__name__)
def test_a_plugin_that_keeps_its_contract_passes_every_check(plugin: type[Plugin]) -> None:
    case = case_of(plugin)
    results = check(plugin(), size=case.size, facts=case.facts)
    assert set(results) == set(CHECKS[case.kind])
    assert list(results.values()).count("ok") >= min(10, len(results))


@pytest.mark.parametrize(
    ("name", "plugin", "message"), BROKEN, ids=[f"{name}-{plugin.__name__}" for name, plugin, _ in BROKEN]
)
def test_each_check_catches_what_breaks_its_rule(name: str, plugin: type[Plugin], message: str) -> None:
    with pytest.raises(Failed, match=message):
        run(name, case_of(plugin))


def test_every_check_has_a_plugin_that_it_catches() -> None:
    caught = {(case_of(plugin).kind, name) for name, plugin, _ in BROKEN}
    assert {(kind, name) for kind, checks in CHECKS.items() for name in checks} - caught == set()


def test_a_config_that_loses_a_field_on_its_way_is_caught() -> None:
    with pytest.raises(Failed, match="reads back from YAML as"):
        run("config_round_trip", Case(Forgetful(model="other")))


def test_settings_that_must_be_refused_are_tried() -> None:
    with pytest.raises(Failed, match=r"gain=-1\.0 is accepted"):
        run("useful_errors", case_of(GoodReferee, refused={"gain": -1.0}))


def test_limits_of_time_and_memory_hold() -> None:
    cost = run("time_and_memory_per_view", case_of(GoodReferee, seconds=1.0, megabytes=1.0))
    assert 0 < cost.forward < 1
    assert 0 < cost.megabytes < 1
    with pytest.raises(Failed, match="the limit given is 1e-09 s"):
        run("time_and_memory_per_view", case_of(GoodReferee, seconds=1e-9))
    with pytest.raises(Failed, match="the limit given is 1e-09 MB"):
        run("time_and_memory_per_view", case_of(GoodReferee, megabytes=1e-9))


def test_what_is_held_for_the_backward_pass_is_counted() -> None:
    class Squares(GoodReferee):
        def logit(self, views: Tensor, text: Tensor) -> Tensor:
            return views.square().mean((1, 2, 3))

    cost = run("time_and_memory_per_view", case_of(Squares))
    views = 3 * SIZE[0] * SIZE[1] * 4 / 2**20  # a square saves only its input, which is not counted
    assert cost.megabytes < 0.1 * views


def test_a_learning_prior_resumes_and_may_change_its_state() -> None:
    for name in ("state_round_trip", "frozen_weights"):
        run(name, case_of(Learns))


def test_checks_that_do_not_apply_are_skipped_with_a_reason() -> None:
    with pytest.raises(NotApplicable, match="works in the image space"):
        run("encoder", case_of(GoodPrior))
    with pytest.raises(NotApplicable, match="gives no value"):
        run("gradient_right", case_of(Learns))


def test_all_broken_rules_are_reported_at_once() -> None:
    with pytest.raises(
        Failed, match=r"(?s)Dropout\(\) breaks .*gradient_right: .*determinism: .*no_global_randomness: "
    ):
        check(Dropout)


def test_a_skip_needs_a_check_and_shows_its_reason() -> None:
    with pytest.raises(RefcoreError, match='did you mean "gradient_right"'):
        suite(StraightThrough, skip={"gradient_rigth": "on purpose"})
    found = suite(StraightThrough, size=SIZE, skip={"gradient_right": "a substitute on purpose"})
    with pytest.raises(NotApplicable, match="on purpose"):
        found().test_gradient_right()
    assert check(StraightThrough, size=SIZE, skip={"gradient_right": "why"})["gradient_right"] == "why"


TestOneLine = suite(GoodReferee(gain=2.0), seconds=5.0)
"""A suite is a test class, whose checks run here."""
