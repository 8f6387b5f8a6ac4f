"""Training batches: scenes, captions, wrong captions, distortions like those of views, and adversarial images."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from refcore_playground.draw import CATEGORIES, applies, draw_negative, draw_pair
from refcore_playground.grammar import Request, write
from refcore_playground.render import render_batch
from refcore_playground.world import Scene

KIND_WEIGHTS: dict[str, int] = {
    "colour": 1,
    "shape": 4,
    "texture": 2,
    "size": 3,
    "relation": 8,
    "count": 1,
    "swap": 5,
    "drop": 1,
    "add": 1,
}
"""Relative frequency of each kind of wrong caption; those learnt last come most often."""
BINDING: tuple[str, ...] = (*CATEGORIES, "spatial", "spatial", "complex", "complex")
"""Categories a referee is trained on: those that bind attributes and relations come more often."""
VISION_FIRST = 0.2
"""Share of a referee's budget in which its vision tower learns patches alone: the accuracy of shapes reaches 80-90 %
within minutes; beside the text losses it stayed below 45 % for most of an hour."""
VISION_BATCH = 64
ATTACKED = 0.8
"""Share of the budget after which a referee is trained on adversarial images."""
REACH = 2.5
"""Maximum L2 norm of the perturbation of a [3, 64, 64] image; repainting a small thing takes about 14."""


@dataclass
class Batch:
    """`images` [N, 3, 64, 64] in [0, 1], each with one true and `k` wrong captions."""

    scenes: list[Scene]
    requests: list[Request]
    images: Tensor
    captions: list[str]
    wrong: list[list[str]]
    wrong_requests: list[list[Request]]


def draw_batch(
    n: int,
    rng: random.Random,
    wrong: int = 0,
    kind: str | None = None,
    split: str = "seen",
    categories: Sequence[str] = CATEGORIES,
    texture: str | None = None,
) -> Batch:
    """`n` scenes of the given categories, each with a caption and `wrong` captions that differ in one fact.

    With a `texture`, every caption names it.
    """
    scenes: list[Scene] = []
    requests: list[Request] = []
    captions: list[str] = []
    wrongs: list[list[Request]] = []
    while len(scenes) < n:
        scene, request = draw_pair(rng, rng.choice(categories), split)
        if texture is not None and all(phrase.texture != texture for phrase in request.phrases):
            continue
        try:
            negatives = [_wrong(scene, request, rng, kind) for _ in range(wrong)]
        except ValueError:  # this kind does not apply to this request
            continue
        scenes.append(scene)
        requests.append(request)
        captions.append(write(request, rng))
        wrongs.append(negatives)
    written = [[write(request, rng) for request in row] for row in wrongs]
    return Batch(scenes, requests, torch.from_numpy(render_batch(scenes)), captions, written, wrongs)


def draw_checkered(n: int, rng: random.Random, split: str = "seen") -> Batch:
    """Scenes whose captions name something checkered, the finest texture, which is learnt last."""
    return draw_batch(n, rng, split=split, categories=("texture", "complex"), texture="checkered")


def _wrong(scene: Scene, request: Request, rng: random.Random, kind: str | None) -> Request:
    if kind is not None:
        return draw_negative(scene, request, rng, kind)[0]
    kinds = {k: w for k, w in KIND_WEIGHTS.items() if applies(k, request)}
    while kinds:
        chosen = rng.choices(list(kinds), weights=list(kinds.values()))[0]
        try:
            return draw_negative(scene, request, rng, chosen)[0]
        except ValueError:  # every change of this kind would be true of the scene
            del kinds[chosen]
    raise ValueError("no wrong caption")


def distort(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] with small rotations, shifts and scales, blur, noise, contrast and colour changes.

    These are like the changes by views and decoders, and small enough that every fact of the scene stays true.
    """
    return distort_and_follow(images, generator)[0]


def distort_and_follow(images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """`distort`, with the matrices [N, 2, 3] of the motion, for `follow`."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high, generator=generator)

    angle, scale = uniform(-0.17, 0.17), uniform(0.93, 1.07)
    shift = uniform(-0.11, 0.11, 2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], -1), torch.stack([sin, cos, shift[:, 1]], -1)], 1)
    theta = torch.where((uniform(0, 1) < 0.7).view(-1, 1, 1), theta, torch.eye(2, 3))
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    sigma = uniform(0.0, 0.9)
    taps = torch.arange(-2.0, 3.0)
    kernel = torch.softmax(-(taps**2) / (2 * sigma.clamp(min=0.2)[:, None] ** 2), -1)
    flat = F.pad(images, (2, 2, 2, 2), mode="replicate").transpose(0, 1)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n)
    images = F.conv2d(flat, kernel[:, None, None, :], groups=n).transpose(0, 1)
    gain, lift = uniform(0.9, 1.1, 3, 1, 1), uniform(-0.06, 0.06, 1, 1, 1)
    images = (images - 0.5) * gain + 0.5 + lift
    noise = torch.randn(images.shape, generator=generator) * uniform(0.0, 0.12, 1, 1, 1)
    return torch.where((uniform(0, 1) < 0.6).view(-1, 1, 1, 1), images + noise, images).clamp(0, 1), theta


def follow(places: Tensor, theta: Tensor) -> Tensor:
    """Positions after a distortion by matrices [N, 2, 3] of places [N, 2], x and y as shares of the side.

    A matrix maps each point of the result to its origin, in -1 .. 1, so this is its inverse.
    """
    back: Tensor = torch.linalg.solve(theta[:, :, :2], (2 * places - 1 - theta[:, :, 2]).unsqueeze(-1)).squeeze(-1)
    return (back + 1) / 2


def attack(images: Tensor, loss: Callable[[Tensor], Tensor], reach: float) -> Tensor:
    """Adversarial images: one gradient ascent step of L2 norm up to `reach` on `loss`, from a random start.

    Models trained on these have gradients that draw things rather than noise (Santurkar et al., arXiv 1906.09453), as
    inversions need. `loss` maps images [N, 3, H, W] in [0, 1] to their summed loss.
    """
    length = reach * torch.rand(len(images), 1, 1, 1)
    start = torch.randn_like(images)
    start = start / start.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * length * 0.5
    moved = (images + start).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(moved), moved)
    step = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    attacked: Tensor = images + start + length * step
    return attacked.clamp(0, 1).detach()
