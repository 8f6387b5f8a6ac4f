"""The `aesthetic` referee: LAION's predictor of the rating that people give a picture, whatever the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore_plugins.models.checkpoint_conversion import read_pickled, refuse_written
from refcore_plugins.models.open_clip_towers import OpenClipTowers
from refcore_plugins.models.rating_head import RatingHead
from refcore_plugins.models.reward_loss import RewardLoss, reward_loss

FILE_NAME = "aesthetic_head.safetensors"
ORIGINAL = (
    "a head of LAION-Aesthetics: sa_0_4_vit_l_14_linear.pth (version 1) or sac+logos+ava1-l14-linearMSE.pth (version 2)"
)
REMEDY = f"refcore convert aesthetic-head SOURCE OUT makes one from {ORIGINAL}"


def convert_head(source: str | Path, out: str | Path) -> Path:
    """Writes a published head as safetensors: linear, or the linear layers of version 2, with or without ReLU.

    Args:
        source: The published file.
        out: The safetensors file, or an existing folder for `aesthetic_head.safetensors`.

    Raises:
        CheckpointError: `source` is missing, corrupt or not such a head, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    out = out / FILE_NAME if out.is_dir() else out
    refuse_written(out)
    head = RatingHead.from_original(read_pickled(source, ORIGINAL), source, ORIGINAL)
    return head.save(out)


class Aesthetic(Referee):
    """LAION-Aesthetics (arXiv 2210.08402, section 3.2): a head on the unit image features of a CLIP rates the picture.

    Ratings are about 1 to 10 but not limited to that range. Wanted, the loss is softplus(best - rating): it falls at
    the rate at which the rating rises, and flattens above `best`; `linear` is best - rating. Not wanted, it is
    softplus(rating - worst). The prompt is ignored.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"head": "refcore convert aesthetic-head SOURCE OUT writes one"})
        head: str = Field(description="File of the head, written by `refcore convert aesthetic-head`.")
        model: str = Field(
            "ViT-L-14-quickgelu",
            description="The CLIP that the head was trained on, as in the referee `clip`.",
        )
        pretrained: str | None = Field(
            "openai", description="Weights of a model given by name: a tag of open_clip, or a safetensors file."
        )
        loss: RewardLoss = Field(
            "saturating", description="saturating: softplus(best - rating). linear: best - rating."
        )
        best: float = Field(10.0, description="Rating above which the loss flattens, or where the linear one is 0.")
        worst: float = Field(1.0, description="With wanted: false, the rating below which the loss flattens.")

    name = "aesthetic"
    conversions = MappingProxyType({"head": convert_head})
    score_unit: ClassVar[str] = "rating"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. The CLIP is in `dtype`, the head in float32 (float64 with float64)."""
        head = RatingHead.from_file(Path(expanduser(self.config.head)), REMEDY)
        pretrained = (
            self.config.pretrained if ":" not in self.config.model else None
        )  # folders and hub ids have their own weights
        self.towers = OpenClipTowers(self.name, self.config.model, pretrained, device, dtype)
        self.head = head.to(device, torch.promote_types(dtype, torch.float32))
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype
        self.fit, self.remarks = self.towers.fit, self.towers.remarks
        with torch.no_grad():
            width = self.towers.text([""]).shape[1]
        if width != head.width:
            raise CheckpointError(
                f'aesthetic: the head {self.config.head} takes {head.width} features, but model "{self.config.model}" '
                f"has {width}; name the CLIP that the head was trained on"
            )

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """No tensors: the prompt is ignored."""
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        config = self.config
        return reward_loss(self.rating(views), config.loss, wanted, config.best, config.worst)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The rating of each image, about 1 to 10."""
        return self.rating(images)

    def rating(self, views: Tensor) -> Tensor:
        """[N] ratings of views [N, 3, H, W]; differentiable."""
        rating: Tensor = self.head(self.towers.image(views))
        return rating
