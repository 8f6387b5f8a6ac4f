"""The `aesthetic` referee: LAION's predictors of how people would rate a picture, whatever the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore_plugins.models.conversion import read_pickled
from refcore_plugins.models.open_clip_towers import OpenClipTowers
from refcore_plugins.models.rating_head import RatingHead

FILE_NAME = "aesthetic_head.safetensors"
ORIGINAL = (
    "a head of LAION-Aesthetics: sa_0_4_vit_l_14_linear.pth (version 1) or sac+logos+ava1-l14-linearMSE.pth (version 2)"
)
REMEDY = f"refcore convert aesthetic-head SOURCE OUT makes one from {ORIGINAL}"


def convert_head(source: str | Path, out: str | Path) -> Path:
    """Writes a published head as safetensors: linear, or the linear layers of version 2, with or without ReLU.

    Args:
        source: the published file.
        out: the file to write, or an existing folder, which receives `aesthetic_head.safetensors`.

    Raises:
        CheckpointError: `source` is missing, corrupt or no such head, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    head = RatingHead.from_original(read_pickled(source, ORIGINAL), source, ORIGINAL)
    return head.save(out / FILE_NAME if out.is_dir() else out)


class Aesthetic(Referee):
    """LAION-Aesthetics (arXiv 2210.08402, section 3.2): a head on the unit image features of a CLIP rates the picture.

    Ratings are about 1 to 10, but no number is out of the head's reach. Wanted, the loss is softplus(best - rating):
    it falls one for one with the rating and flattens out above `best`. Not wanted, it is softplus(rating - worst). The
    prompt is not read.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"head": "refcore convert aesthetic-head SOURCE OUT writes one"})
        head: str = Field(description="file of the head, written by `refcore convert aesthetic-head`")
        model: str = Field(
            "ViT-L-14-quickgelu",
            description="the CLIP that the head was trained on, as the referee `clip` names it; its width must fit",
        )
        pretrained: str | None = Field(
            "openai", description="weights of a model given by name: a tag, or a safetensors file"
        )
        best: float = Field(10.0, description="the rating above which a picture is good enough")
        worst: float = Field(1.0, description="with wanted: false, the rating below which a picture is bad enough")

    name = "aesthetic"
    conversions = MappingProxyType({"head": convert_head})
    score_unit: ClassVar[str] = "rating"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. The CLIP is in `dtype`, the head in float32 (float64 with float64)."""
        head = RatingHead.from_file(Path(self.config.head).expanduser(), REMEDY)
        pretrained = self.config.pretrained if ":" not in self.config.model else None  # folders bring their weights
        self.towers = OpenClipTowers(self.name, self.config.model, pretrained, device, dtype)
        self.head = head.to(device, torch.promote_types(dtype, torch.float32))
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype
        with torch.no_grad():
            width = self.towers.text([""]).shape[1]
        if width != head.width:
            raise CheckpointError(
                f'aesthetic: the head {self.config.head} takes {head.width} features, but model "{self.config.model}" '
                f"gives {width}; name the CLIP that the head was trained on"
            )

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Nothing: the prompt plays no part."""
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        rating = self.rating(views)
        return F.softplus(self.config.best - rating if wanted else rating - self.config.worst)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The rating of each image, about 1 to 10."""
        return self.rating(images)

    def rating(self, views: Tensor) -> Tensor:
        """[N] ratings of views [N, 3, H, W]; differentiable."""
        return self.head(self.towers.image(views))
