"""VQGAN+CLIP, deep-daze, CLIP^-1 and CLIPDraw, written out on their own, are their presets step for step.

Each is its published preset at a small size with the embedded CLIP, on the whole picture in the place of random views.
"""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor

from refcore import checkpoints
from refcore.config import presets
from refcore.engine.inversion import Inversion

PROMPT, STEPS, SIDE = "a red circle left of a blue square", 20, 64


def begun(preset: str, *overrides: str, loss: str = "cosine") -> Inversion:
    """A run of a preset that has not moved, with the embedded CLIP on the whole picture."""
    clip = f"referees=[{{name: clip, views: clean, config: {{model: 'playground:clip', loss: {loss}}}}}]"
    small = ["dtype=float64", f"size={SIDE}", f"steps={STEPS}", clip]
    return Inversion(presets.compose(preset, None, [*small, *overrides], prompts=[PROMPT], seeds=[5]))


class Clip:
    """The embedded CLIP by open_clip's own functions."""

    def __init__(self) -> None:
        folder = f"local-dir:{checkpoints.resolve('playground:clip')}"
        self.model = open_clip.create_model(folder).double().eval().requires_grad_(False)
        self.text = F.normalize(self.model.encode_text(open_clip.get_tokenizer(folder)([PROMPT])), dim=-1)

    def cosine(self, image: Tensor) -> Tensor:
        """Of pictures [1, 3, 64, 64] in [0, 1], which the model wants in [-1, 1]."""
        return (F.normalize(self.model.encode_image((image - 0.5) / 0.5), dim=-1) * self.text).sum()


def leaves(inversion: Inversion) -> dict[str, Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in inversion.params.items()}


def follow(inversion: Inversion, params: dict[str, Tensor], loss: Any, optimizer: Any, before: Any = None) -> None:
    """Each step of the run ends where a step of `optimizer` on `loss(params)` ends; each begins where the run's does,
    since Adam makes rounding grow."""
    for step in range(STEPS):
        if before is not None:
            before(step)
        optimizer.zero_grad()
        loss(params).backward()
        optimizer.step()
        next(inversion)
        for name, value in params.items():
            found = inversion.params[name].detach()
            assert torch.allclose(found, value, atol=1e-6), (step, name)
            value.data.copy_(found)
    assert inversion.step == STEPS


def network(params: dict[str, Tensor], layers: int, sine: Any) -> Tensor:
    """A coordinate network's picture: sines of affine maps, and an affine map to colours in [-1, 1]."""
    line = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
    x = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 2)
    for layer in range(layers):
        x = sine(x @ params[f"layer{layer}.weight"][0].T + params[f"layer{layer}.bias"][0])
    x = x @ params[f"layer{layers}.weight"][0].T + params[f"layer{layers}.bias"][0]
    return ((x + 1) / 2).clamp(0, 1).T.view(1, 3, SIDE, SIDE)


@pytest.mark.slow
def test_deep_daze_is_adam_on_a_siren() -> None:
    """sin(30 (W x + b)) in every layer, and 1 - cos."""
    clip, layers = Clip(), 4
    inversion = begun("deep-daze", f"canvas.config.layers={layers}", "canvas.config.hidden=32")
    params = leaves(inversion)
    rate = inversion.config.optimizer.lr
    follow(
        inversion,
        params,
        lambda p: 1 - clip.cosine(network(p, layers, lambda z: torch.sin(30 * z))),
        torch.optim.Adam(list(params.values()), lr=rate),
    )


@pytest.mark.slow
def test_implicit_inversion_is_adam_on_finer_layer_after_layer() -> None:
    """sin(30 (|z| + 1) z); the rate is a Gaussian bump over the layers, whose centre moves to the last."""
    clip, layers, peak, width = Clip(), 4, 1e-3, 0.375
    inversion = begun("implicit-inversion", "canvas.config.hidden=32")
    params = leaves(inversion)
    groups = [
        {"params": [params[f"layer{layer}.{part}"] for part in ("weight", "bias")], "lr": 0.0}
        for layer in range(layers + 1)
    ]
    optimizer = torch.optim.Adam(groups)

    def move(step: int) -> None:
        done = step / STEPS
        for layer, group in enumerate(optimizer.param_groups):
            group["lr"] = peak * math.exp(-((done - layer / layers) ** 2) / (2 * width**2))

    follow(
        inversion,
        params,
        lambda p: 1 - clip.cosine(network(p, layers, lambda z: torch.sin(30 * (z.abs() + 1) * z))),
        optimizer,
        move,
    )


class Inward(torch.autograd.Function):
    """A clamp that passes on what leads back inside: where descent would move a number beyond the bound towards it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        inside = x.clip(low, high)
        ctx.beyond = (x - inside).sign()
        return inside

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.where(ctx.beyond * gradient.sign() >= 0, torch.zeros_like(gradient)), None, None


@pytest.mark.slow
def test_vqgan_clip_is_adam_on_latents_that_become_codes() -> None:
    """The nearest codes with the gradient of the latents, and half the squared angle, 2 asin(|i - t| / 2)^2."""
    clip = Clip()
    inversion = begun("vqgan-clip", "canvas.config.model=playground:vq", loss="spherical")
    model = VQModel.from_pretrained(checkpoints.resolve("playground:vq"), torch_dtype=torch.float64)
    model.requires_grad_(False)
    codes = model.quantize.embedding.weight
    low, high = (bound.view(1, -1, 1, 1) for bound in (codes.amin(0), codes.amax(0)))
    params = leaves(inversion)

    def loss(p: dict[str, Tensor]) -> Tensor:
        z = Inward.apply(p["codes"], low, high)
        rows = z.movedim(1, -1).reshape(-1, codes.shape[1])
        chosen = codes[(rows[:, None] - codes).square().sum(-1).argmin(1)]
        chosen = chosen.view_as(z.movedim(1, -1)).movedim(-1, 1)
        decoded = model.decode(z + (chosen - z).detach(), force_not_quantize=True).sample
        image = Inward.apply((decoded + 1) / 2, torch.tensor(0.0), torch.tensor(1.0))
        return 2 * torch.asin((2 - 2 * clip.cosine(image)).sqrt() / 2).square()

    follow(inversion, params, loss, torch.optim.Adam(list(params.values()), lr=0.1))


def drawn(points: Tensor, widths: Tensor, colours: Tensor, edge: float, pieces: int) -> Tensor:
    """Strokes over white, pixel by pixel: the distance to the nearest of all chords of the curve, and a smooth ramp."""
    centres = torch.arange(SIDE, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    place = torch.stack([x, y], -1).view(-1, 1, 2)
    t = torch.linspace(0, 1, pieces + 1, dtype=torch.float64)[:, None]
    image = torch.ones(SIDE * SIDE, 3, dtype=torch.float64)

    def ramp(u: Tensor) -> Tensor:
        u = (u + 0.5).clamp(0, 1)
        return 3 * u**2 - 2 * u**3

    for (a, b, c, d), width, colour in zip(points, widths, colours, strict=True):
        curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        start, along = curve[:-1], curve[1:] - curve[:-1]
        share = (((place - start) * along).sum(-1) / along.square().sum(-1)).clamp(0, 1)
        distance = (place - start - share[..., None] * along).square().sum(-1).amin(1).sqrt()
        alpha = (ramp((width / 2 - distance) / edge) - ramp((-width / 2 - distance) / edge)) * colour[3]
        image = image + alpha[:, None] * (colour[:3] - image)
    return image.T.view(1, 3, SIDE, SIDE)


@pytest.mark.slow
def test_clipdraw_is_adam_on_strokes() -> None:
    """Points by 1, widths by 0.1 and colours by 0.01."""
    clip, config = Clip(), presets.compose("clipdraw", prompts=[PROMPT]).canvas.config
    inversion = begun(
        "clipdraw", "canvas.config.strokes=12", "canvas.config.segments=[1, 1]", "canvas.config.radius=0.5",
        "canvas.config.width=4", "canvas.config.opacity=0.6", "canvas.config.color=[0.5, 0.4, 0.6]",
    )  # fmt: skip
    assert config["widths"] == [1.0, 50.0]
    params = leaves(inversion)
    rates = {"points": 1.0, "widths": 0.1, "colours": 0.01}
    groups = [{"params": [params[name]], "lr": rate} for name, rate in rates.items()]

    def loss(p: dict[str, Tensor]) -> Tensor:
        return 1 - clip.cosine(drawn(p["points"][0], p["widths"][0], p["colours"][0], 1.2, 12))

    follow(inversion, params, loss, torch.optim.Adam(groups))
