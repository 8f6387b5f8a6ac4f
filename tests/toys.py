"""Toy referees, priors and canvases, small random networks that suffice to test the engine's equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from refcore import registry
from refcore.config.run import RunConfig
from refcore.contracts.canvas import Canvas, CanvasParams, LatentSpace
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng, keyed_generator

torch.set_num_threads(1)
SPACE = LatentSpace(fingerprint="toy", channels=4, scale=1.0)


def network(seed: int, *layers: Callable[[], nn.Module]) -> nn.Sequential:
    """Layers with random weights from their own seed, without torch's global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*(layer() for layer in layers)).requires_grad_(False).eval()


class ToyReferee(Referee):
    """p(match) = sigmoid(features of the view . a random text vector); the loss is -log p."""

    class Config(PluginConfig):
        seed: int = 0
        side: int = 16
        context: int = Field(100, description="Characters of a prompt that are read.")
        nan_at: int | None = Field(None, description="Call of judge (from 0) that gives NaN.")

    config: Config
    calls: int = 0
    width: ClassVar[int] = 6

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.input_size = (self.config.side, self.config.side)
        self.net = network(
            self.config.seed,
            lambda: nn.Conv2d(3, 8, 3, stride=2),
            nn.Tanh,
            lambda: nn.Conv2d(8, self.width, 3, stride=2),
            nn.Tanh,
        ).to(device, dtype)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        read = [prompt[: self.config.context] for prompt in prompts]
        text = [torch.randn(self.width, generator=keyed_generator(0, 0, prompt)) for prompt in read]
        truncated = tuple(prompt[self.config.context :] for prompt in prompts)
        return Conditioning(tuple(prompts), {"text": torch.stack(text)}, truncated)

    def logits(self, views: Tensor, text: Tensor) -> Tensor:
        features = self.net(views.to(self.dtype)).mean((-2, -1))
        return 20 * (features * text.to(self.dtype)).sum(-1)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        self.calls += 1
        assert views.shape[-2:] == self.input_size
        logits = self.logits(views, conditioning["text"][prompt_index])
        loss = -F.logsigmoid(logits if wanted else -logits)
        return loss * torch.nan if self.calls - 1 == self.config.nan_at else loss

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        return self.logits(images, conditioning["text"]).sigmoid()


class BoundedReferee(ToyReferee):
    bounded_above = True

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        return self.logits(views, conditioning["text"][prompt_index]).sigmoid()


class ToyLatent(Canvas):
    """A latent of 4 channels at a quarter of the side, decoded by a random network."""

    class Config(PluginConfig):
        nan: bool = False

    latent_space = SPACE
    decodes: int = 0

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device = device
        self.size = size or (32, 32)
        if any(side % 4 for side in self.size):
            raise RefcoreError(f"canvas toy_latent cannot be {self.size}; sides must be multiples of 4")
        self.net = network(
            7, lambda: nn.ConvTranspose2d(4, 8, 4, stride=4), nn.Tanh, lambda: nn.Conv2d(8, 3, 3, padding=1), nn.Sigmoid
        ).to(device, torch.float64 if dtype == torch.float64 else torch.float32)

    def init(self, rng: Rng) -> CanvasParams:
        return {"latent": rng.normal(4, self.size[0] // 4, self.size[1] // 4)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        self.decodes += 1
        return self.net(params["latent"])

    def latent_name(self) -> str:
        return "latent"


class ToyPixel(Canvas):
    """Two tensors, coarse and fine, whose sum is the image's logits."""

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device = device
        self.size = size or (24, 24)

    def init(self, rng: Rng) -> CanvasParams:
        return {"coarse": rng.normal(3, 1, 1), "fine": rng.normal(3, *self.size)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return (params["coarse"] + params["fine"]).sigmoid()

    def encode(self, images: Tensor) -> CanvasParams:
        return {"coarse": torch.zeros(len(images), 3, 1, 1), "fine": images.clamp(1e-3, 1 - 1e-3).logit()}


class ToySds(Prior):
    """eps_hat - eps of a random denoiser, like SDS; its encoder averages 4x4 pixels into 4 channels."""

    class Config(PluginConfig):
        seed: int = 0

    space: ClassVar[Literal["latent", "image", "params"]] = "latent"

    can_sample: ClassVar[bool] = True

    def sample(
        self,
        shape: Sequence[int],
        conditioning: Conditioning,
        rng: Rng,
        steps: int,
        guidance: float,
        around: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        noise = rng.normal(*shape) * steps * guidance
        return noise if around is None else around + strength * noise

    def noise_to(self, latents: Tensor, rng: Rng, steps: int, strength: float) -> Tensor:
        return latents + strength * rng.normal(*latents.shape[1:]).to(latents) * steps

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.net = network(50 + self.config.seed, lambda: nn.Conv2d(4, 4, 3, padding=1), nn.Tanh).to(device, dtype)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        text = [torch.randn(4, 1, 1, generator=keyed_generator(1, 0, prompt)) for prompt in prompts]
        return Conditioning(tuple(prompts), {"text": torch.stack(text)})

    def encode(self, images: Tensor) -> Tensor:
        pooled = F.avg_pool2d(images, 4)
        return torch.cat([pooled, pooled.mean(1, keepdim=True)], 1) * 2 - 1

    @torch.no_grad()
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        noise = rng.normal(*x.shape[1:]).to(x)
        return 0.1 * (self.net(x + noise + conditioning["text"].to(x)) - noise), None


class Smooth(Prior):
    """Squared differences of horizontal neighbours."""

    space: ClassVar[Literal["latent", "image", "params"]] = "image"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        pass

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = x.diff(dim=-1).square().flatten(1).mean(1)
            return torch.autograd.grad(value.sum(), x)[0], value.detach()


PLUGINS: dict[registry.Kind, dict[str, Any]] = {
    "referees": {"toy": ToyReferee, "bounded": BoundedReferee},
    "canvases": {"toy_latent": ToyLatent, "toy_pixel": ToyPixel},
    "priors": {"toy_sds": ToySds, "smooth": Smooth},
}


AUGMENT = [
    {"name": "affine", "config": {"degrees": 20.0, "scale": [0.9, 1.3]}},
    {"name": "gaussian_noise", "config": {"std": [0.0, 0.1]}},
]


def toy_config(**fields: Any) -> RunConfig:
    """Two referees that share views, a latent and an image prior, on the latent canvas, in float64 on the CPU."""
    settings: dict[str, Any] = {
        "prompts": ["a cat", "a dog"],
        "seeds": [3],
        "canvas": {"name": "toy_latent"},
        "referees": [
            {"name": "toy", "weight": 2.0},
            {"name": "toy", "prompt": "no {prompt}", "wanted": False, "config": {"seed": 1, "side": 20}},
        ],
        "priors": [{"name": "toy_sds", "weight": 0.5}, {"name": "smooth"}],
        "views": {"main": {"count": 3, "augment": AUGMENT}},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "steps": 6,
        "chunk": 1000,  # all at once, without the two measurements that planning takes
        "device": "cpu",
        "dtype": "float64",
    }
    return RunConfig.from_settings({**settings, **fields})


def run(config: RunConfig, steps: int | None = None) -> Inversion:
    """An inversion after `steps` steps, or at its end if None."""
    inversion = Inversion(config)
    for result in inversion:
        if steps is not None and result.step + 1 == steps:
            break
    return inversion
