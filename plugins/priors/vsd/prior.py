"""The `vsd` prior: score distillation against an adapted model that learns the distribution of current images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.contracts.conditioning import Conditioning
from refcore.moment import Moment
from refcore.rng import Key, Rng
from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import add_noise, sds_gradient
from refcore_plugins.priors.vsd.lora import Adapters

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass
class Learned:
    """The adapter of one group and the moments of its Adam, each [P]."""

    weights: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0


class Vsd(LatentDiffusionPrior):
    """Variational Score Distillation (arXiv 2305.16213): w(t) (eps_hat - eps_phi), eq. 9.

    eps_phi is the same model with a low-rank adapter on its attention, trained during the run (algorithm 1) to predict
    the noise in the current images. With `share: sample` each image has its own adapter, and samples are independent.
    With `share: prompt` the images of a prompt share an adapter, like the particles of the paper: they repel each
    other, so the samples are coupled (`couples_samples`).
    """

    class Config(LatentDiffusionPrior.Config):
        guidance: Schedule = Field(
            7.5, ge=0, description="Classifier-free guidance scale of the frozen model. The paper's: 7.5."
        )
        share: Literal["sample", "prompt"] = Field(
            "sample",
            description="sample: one adapter for each image. prompt: one for all images of a prompt, as in the paper, "
            "which then depend on each other.",
        )
        rank: int = Field(4, ge=1, description="Rank of the adapters.")
        lr: Schedule = Field(
            1e-3, gt=0, description="Learning rate of the adapters (Adam). The paper's: 1e-4, for Stable Diffusion."
        )
        updates: int = Field(1, ge=1, description="Training steps of the adapters in each step of the run.")
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "sigma2", description="Weight w(t), as in the prior sds."
        )

    name = "vsd"
    learns: ClassVar[bool] = True
    config: Config

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        self.couples_samples = self.config.share == "prompt"
        self._learned: dict[str, Learned] = {}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super().load(device, dtype)
        self._adapters = Adapters(self.diffusion.unet, self.config.rank)

    @torch.no_grad()
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        names, groups = self._groups(conditioning.prompts, rng.seeds)
        vectors = torch.stack([self._of(name).weights for name in names])
        batch = self.noised(x, conditioning, at, rng)
        parts = []
        for samples in self.chunks(len(batch)):
            part = batch[samples]
            with self._adapters.applied(vectors, groups[samples]):
                adapted = self.predicted(part.noisy, part.timesteps, part.text)
            frozen = self.guided(part.noisy, part.timesteps, part.text, part.negative, at.of(self.config.guidance))
            parts.append(sds_gradient(adapted, frozen, part.weight))
        gradient = torch.cat(parts)
        return gradient / (x.shape[-2] * x.shape[-1]) if self.config.normalise else gradient, None

    def distil(self, batch: Noised, at: Moment) -> Tensor:
        raise NotImplementedError("the gradient of vsd depends on the group of each sample")

    def update(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> None:
        """Trains the adapter of each group on its images, with timesteps from the whole range and noise for each image.

        Loss: the mean squared error of the predicted noise, averaged over a group's images and summed over groups.
        Groups without an image in the batch are dropped: their images have been discarded or no longer change.
        """
        names, groups = self._groups(conditioning.prompts, rng.seeds)
        self._learned = {name: self._of(name) for name in names}
        latents = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        share = 1 / torch.bincount(groups)[groups].to(latents.dtype)
        for _ in range(self.config.updates):
            timesteps = rng.integers(0, len(self.diffusion.alphas_cumprod)).to(latents.device)
            noise = rng.normal(*latents.shape[1:]).to(latents)
            noisy = add_noise(latents, noise, self.diffusion.alphas_cumprod[timesteps].to(latents.dtype))
            vectors = torch.stack([self._learned[name].weights for name in names]).requires_grad_()
            gradient = torch.zeros_like(vectors)
            for samples in self.chunks(len(latents)):
                with torch.enable_grad(), self._adapters.applied(vectors, groups[samples]):
                    predicted = self.diffusion.predicted(
                        noisy[samples], timesteps[samples], conditioning["text"][samples]
                    )
                    loss = ((predicted - noise[samples]).square().flatten(1).mean(1) * share[samples]).sum()
                    gradient += torch.autograd.grad(loss, vectors)[0]
            for name, own in zip(names, gradient, strict=True):
                self._adam(self._learned[name], own, at.of(self.config.lr))

    def state_dict(self) -> dict[str, Any]:
        learned = list(self._learned.values())
        if not learned:
            return {"groups": []}
        return {
            "groups": list(self._learned),
            "steps": [group.steps for group in learned],
            "weights": torch.stack([group.weights for group in learned]),
            "first": torch.stack([group.first for group in learned]),
            "second": torch.stack([group.second for group in learned]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._learned = {
            name: Learned(state["weights"][g], state["first"][g], state["second"][g], state["steps"][g])
            for g, name in enumerate(state["groups"])
        }

    def _groups(self, prompts: Sequence[str], keys: Sequence[Key]) -> tuple[list[str], Tensor]:
        """Names of the batch's G groups, and the group of each sample, [B] int64."""
        if self.config.share == "prompt":
            named = list(prompts)
        else:
            named = [f"{key}/{prompt}" for prompt, key in zip(prompts, keys, strict=True)]
        names = list(dict.fromkeys(named))
        return names, torch.tensor([names.index(name) for name in named], device=self.device)

    def _of(self, name: str) -> Learned:
        if name not in self._learned:
            weights = self._adapters.init(name, self.device)
            if self.dtype == torch.float64:
                weights = weights.double()
            self._learned[name] = Learned(weights, torch.zeros_like(weights), torch.zeros_like(weights))
        return self._learned[name]

    def _adam(self, group: Learned, gradient: Tensor, lr: float) -> None:
        """One step of Adam (arXiv 1412.6980, algorithm 1) for one group."""
        group.steps += 1
        group.first = torch.lerp(group.first, gradient, 1 - BETAS[0])
        group.second = torch.lerp(group.second, gradient.square(), 1 - BETAS[1])
        mean, square = (
            moment / (1 - beta**group.steps) for moment, beta in zip((group.first, group.second), BETAS, strict=True)
        )
        group.weights = group.weights - lr * mean / (square.sqrt() + EPSILON)
