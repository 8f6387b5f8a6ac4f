"""The `palette` referee: distance of the picture's colours from a palette, with the share of each colour."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import torch
from PIL import ImageColor
from pydantic import Field
from torch import Tensor

from refcore import Conditioning, PluginConfig, RefcoreError, Referee
from refcore_palette.oklab import oklab
from refcore_palette.transport import transport

EPS = 1e-8
"""Added inside the logarithm of 1 - p."""


class Palette(Referee):
    """The optimal transport of the picture's pixels to a palette, in OKLab: p(match) = exp(-W / tolerance^2).

    W is the mean squared distance by which colours must move until each palette colour covers its share. The prompt is
    the palette, colours by CSS name or #rrggbb, with or without shares: "midnightblue 60%, #ffb703, ivory". Colours
    without a share divide the rest equally. In a run, give the term its own prompt.

    Wanted, the loss is -log p = W / tolerance^2; not wanted, -log(1 - p).
    """

    class Config(PluginConfig):
        tolerance: float = Field(
            0.1, gt=0, description="Distance in OKLab (white to black is 1) at which p(match) is 1/e."
        )
        softness: float = Field(
            0.05, gt=0, description="Distance in OKLab up to which a pixel counts for two colours at once."
        )
        size: int = Field(32, ge=1, le=256, description="Side of the views in pixels; colours need only a few.")

    name = "palette"
    score_unit = "probability"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load: the referee has no weights."""
        self.device, self.dtype = device, dtype
        self.input_size = (self.config.size, self.config.size)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Tensors `colours` [P, K, 3] in OKLab and `shares` [P, K], which sum to 1; 0 pads shorter palettes.

        Raises:
            RefcoreError: a prompt is not a palette.
        """
        palettes = [parse(prompt) for prompt in prompts]
        longest = max(len(palette) for palette in palettes)
        levels = torch.zeros(len(palettes), 3, longest, 1)
        shares = torch.zeros(len(palettes), longest)
        for prompt_index, palette in enumerate(palettes):
            for place, (rgb, share) in enumerate(palette):
                levels[prompt_index, :, place, 0] = torch.tensor(rgb) / 255
                shares[prompt_index, place] = share
        colours = oklab(levels.double()).squeeze(3).transpose(1, 2)
        return Conditioning(tuple(prompts), {"colours": colours.to(self.device), "shares": shares.to(self.device)})

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        smooth, _ = self._moved(views, conditioning.select(prompt_index))
        return smooth if wanted else -torch.log(-torch.expm1(-smooth) + EPS)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """p(match) in [0, 1], by the transport cost alone, without the entropy that smooths the loss."""
        _, moved = self._moved(images, conditioning.tensors)
        return torch.exp(-moved)

    def _moved(self, views: Tensor, palette: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """W / tolerance^2 with and without the entropy, each [N], at least 0."""
        views = views.to(torch.promote_types(views.dtype, torch.float32))
        pixels = oklab(views).flatten(2).transpose(1, 2)
        cost = (pixels.unsqueeze(2) - palette["colours"].to(pixels).unsqueeze(1)).square().sum(3)
        smooth, plain = transport(cost, palette["shares"], self.config.softness**2)
        return smooth.clamp(min=0) / self.config.tolerance**2, plain / self.config.tolerance**2


def parse(palette: str) -> list[tuple[tuple[int, ...], float]]:
    """RGB levels (0 to 255) and share (0 to 1) of each colour in a palette such as "midnightblue 60%, #ffb703, ivory".

    Raises:
        RefcoreError: a colour is unknown, or the shares do not add up to 100%.
    """
    colours: list[tuple[int, ...]] = []
    given: list[float | None] = []
    for part in palette.split(","):
        found = re.fullmatch(r"\s*(#[0-9a-fA-F]{6}|[a-zA-Z]+)(?:\s+(\d+(?:\.\d+)?)\s*%)?\s*", part)
        name = found[1].lower() if found else part.strip()
        if not found or not (name.startswith("#") or name in ImageColor.colormap):
            near = difflib.get_close_matches(name, ImageColor.colormap, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise RefcoreError(
                f'palette: "{part.strip()}" in the prompt "{palette}" is not a colour{hint}; expected CSS names or '
                '#rrggbb, with or without shares, as in "midnightblue 60%, #ffb703, ivory": give the term such a prompt'
            )
        colours.append(ImageColor.getrgb(name)[:3])
        given.append(float(found[2]) / 100 if found[2] else None)
    total = sum(share for share in given if share is not None)
    missing = given.count(None)
    if total > 1 + 1e-6 or (missing == 0 and abs(total - 1) > 1e-6) or (missing and total > 1 - 1e-6):
        raise RefcoreError(
            f'palette: the shares in the prompt "{palette}" add up to {100 * total:g}%; expected 100%, or less if '
            "colours without a share are to divide the rest"
        )
    rest = (1 - total) / missing if missing else 0.0
    return [(colour, rest if share is None else share) for colour, share in zip(colours, given, strict=True)]
