"""Fresh batches: scenes, captions, wrong captions, what lies under each patch, and the distortions of real views."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from refcore_playground.grammar import Request, write
from refcore_playground.render import render_batch
from refcore_playground.sample import CATEGORIES, draw_negative, draw_pair
from refcore_playground.world import COLOURS, SHAPES, SIZE, TEXTURES, Scene

PATCH_CLASSES: dict[str, int] = {"colour": len(COLOURS), "shape": len(SHAPES), "texture": len(TEXTURES), "size": 2}
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
"""How often each kind of wrong caption is drawn where it applies: the ones that are learnt last come most often."""
BINDING: tuple[str, ...] = (*CATEGORIES, "spatial", "spatial", "complex", "complex")
"""Categories for referees to learn from: those in which attributes and relations must be bound come more often."""
VISION_FIRST = 0.25
"""Share of a referee's budget in which its vision tower learns patches alone: shapes are then known to 80-90 % within
minutes, where beside the text losses a patch's shape stayed below 45 % for most of an hour."""
VISION_BATCH = 64
_COLOURS = tuple(COLOURS)


@dataclass
class Batch:
    """`images` [N, 3, 64, 64] in [0, 1]; one true and `k` wrong captions an image."""

    scenes: list[Scene]
    requests: list[Request]
    images: Tensor
    captions: list[str]
    wrong: list[list[str]]


def draw_batch(
    n: int,
    rng: random.Random,
    wrong: int = 0,
    kind: str | None = None,
    split: str = "seen",
    categories: Sequence[str] = CATEGORIES,
) -> Batch:
    """Draws `n` scenes of the given categories, with a caption and `wrong` captions that differ in one fact."""
    scenes: list[Scene] = []
    requests: list[Request] = []
    captions: list[str] = []
    wrongs: list[list[str]] = []
    while len(scenes) < n:
        scene, request = draw_pair(rng, rng.choice(categories), split)
        try:
            negatives = [write(_wrong(scene, request, rng, kind), rng) for _ in range(wrong)]
        except ValueError:  # this kind does not apply to this request
            continue
        scenes.append(scene)
        requests.append(request)
        captions.append(write(request, rng))
        wrongs.append(negatives)
    return Batch(scenes, requests, torch.from_numpy(render_batch(scenes)), captions, wrongs)


def _wrong(scene: Scene, request: Request, rng: random.Random, kind: str | None) -> Request:
    if kind is not None:
        return draw_negative(scene, request, rng, kind)[0]
    kinds = dict(KIND_WEIGHTS)
    while kinds:
        chosen = rng.choices(list(kinds), weights=list(kinds.values()))[0]
        try:
            return draw_negative(scene, request, rng, chosen)[0]
        except ValueError:  # no relation or size to change, say
            del kinds[chosen]
    raise ValueError("no wrong caption")


def patch_targets(scenes: list[Scene], patch: int) -> tuple[dict[str, Tensor], Tensor]:
    """What covers each patch centre: class indices (-100 where there is ground), and the offset to the thing's centre.

    Returns:
        classes: name -> [N, P] long; offsets [N, P, 2] in units of 16 px, NaN on the ground. P = (64 / patch)^2.
    """
    side = SIZE // patch
    centre = torch.arange(side) * patch + patch / 2
    y, x = (c.reshape(-1) for c in torch.meshgrid(centre, centre, indexing="ij"))
    classes = {name: torch.full((len(scenes), side * side), -100) for name in PATCH_CLASSES}
    offsets = torch.full((len(scenes), side * side, 2), float("nan"))
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            dx, dy = thing.x - x, thing.y - y
            under = torch.maximum(dx.abs(), dy.abs()) <= thing.radius + 1
            classes["colour"][i, under] = _COLOURS.index(thing.colour)
            classes["shape"][i, under] = SHAPES.index(thing.shape)
            classes["texture"][i, under] = TEXTURES.index(thing.texture)
            classes["size"][i, under] = int(thing.size == "large")
            offsets[i, under] = torch.stack([dx[under], dy[under]], -1) / 16
    return classes, offsets


class PatchHead(torch.nn.Module):
    """Reads the thing under each patch from a patch token; a dense lesson for a vision tower, not saved with it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.out = torch.nn.Linear(width, sum(PATCH_CLASSES.values()) + 2 + 1)

    def loss(self, tokens: Tensor, scenes: list[Scene], patch: int) -> Tensor:
        """Cross-entropy of every attribute and of thing against ground, L1 of the offset. `tokens` is [N, P, W]."""
        classes, offsets = patch_targets(scenes, patch)
        out = self.out(self.norm(tokens.float()))
        *logits, offset, ground = out.split([*PATCH_CLASSES.values(), 2, 1], dim=-1)
        thing = classes["colour"] >= 0
        total = F.binary_cross_entropy_with_logits(ground[..., 0], thing.float())
        total = total + F.l1_loss(offset[thing], offsets[thing])
        for name, logit in zip(PATCH_CLASSES, logits, strict=True):
            total = total + (2 if name == "shape" else 1) * F.cross_entropy(logit[thing], classes[name][thing])
        return total


def distort(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Small rotations, shifts and scales, blur, noise, contrast and colour: what views and decoders do to a picture.

    Kept small enough that every fact of the scene stays true. [N, 3, H, W] in [0, 1], and so is the result.
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high, generator=generator)

    angle, scale = uniform(-0.17, 0.17), uniform(0.93, 1.07)
    shift = uniform(-0.11, 0.11, 2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], -1), torch.stack([sin, cos, shift[:, 1]], -1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = torch.where((uniform(0, 1) < 0.7).view(-1, 1, 1, 1), moved, images)
    sigma = uniform(0.0, 0.9)
    taps = torch.arange(-2.0, 3.0)
    kernel = torch.softmax(-(taps**2) / (2 * sigma.clamp(min=0.2)[:, None] ** 2), -1)
    flat = F.pad(images, (2, 2, 2, 2), mode="replicate").transpose(0, 1)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n)
    images = F.conv2d(flat, kernel[:, None, None, :], groups=n).transpose(0, 1)
    gain, lift = uniform(0.9, 1.1, 3, 1, 1), uniform(-0.06, 0.06, 1, 1, 1)
    images = (images - 0.5) * gain + 0.5 + lift
    noise = torch.randn(images.shape, generator=generator) * uniform(0.0, 0.12, 1, 1, 1)
    return torch.where((uniform(0, 1) < 0.6).view(-1, 1, 1, 1), images + noise, images).clamp(0, 1)
