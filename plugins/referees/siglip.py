"""The `siglip` referee: the probability that image and prompt are a pair, by a SigLIP or SigLIP 2."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import open_clip
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from refcore.checkpoints import resolve
from refcore.contracts.conditioning import Conditioning
from refcore.errors import CheckpointError
from refcore_plugins.models.open_clip_towers import CONFIG, HUB, LOCAL, OpenClipTowers
from refcore_plugins.models.transformers_towers import SIGLIP, TransformersTowers
from refcore_plugins.models.two_towers import Towers, TwoTowers


class Siglip(TwoTowers):
    """SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786), with their training loss.

    The probability p that image and prompt are a pair is sigmoid(scale cos + bias), with the checkpoint's scale and
    bias, independently of other prompts. Wanted, the loss is -log p (eq. 1 of the paper for one positive pair); not
    wanted, -log(1 - p) (for one negative pair). Both are bounded below by 0, and neither underflows.
    """

    class Config(TwoTowers.Config):
        model: str = Field(
            "google/siglip2-base-patch16-224",
            description="Transformers: hub id or folder. open_clip: a name (with `pretrained`), hf-hub:ORG/NAME or "
            "local-dir:FOLDER.",
        )
        pretrained: str | None = Field(
            None, description="Weights of an open_clip model given by name: a tag of open_clip, or a safetensors file."
        )

    name = "siglip"
    bounded_above: ClassVar[bool] = False
    score_unit: ClassVar[str] = "probability"

    def open(self, device: torch.device, dtype: torch.dtype) -> Towers:
        """See `TwoTowers.open`."""
        model, pretrained = self.config.model, self.config.pretrained
        folder = Path(resolve(model)).expanduser()
        if (folder / CONFIG).is_file():
            model = LOCAL + str(folder)
        elif not model.startswith((LOCAL, HUB)) and model not in open_clip.list_models():
            return TransformersTowers(self.name, model, [SIGLIP], device, dtype)
        towers = OpenClipTowers(self.name, model, pretrained, device, dtype)
        if towers.model.logit_bias is None:
            raise CheckpointError(
                f'siglip: model "{self.config.model}" has no logit bias, so it was not trained with the sigmoid loss; '
                "use it with the referee `clip`"
            )
        return towers

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        logit = self.logit(views, conditioning["text"].index_select(0, prompt_index))
        return F.softplus(-logit if wanted else logit)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability that each image and its prompt are a pair, in [0, 1]."""
        return self.logit(images, conditioning["text"]).sigmoid()

    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        """[N] logits of views [N, 3, H, W] and unit text features [N, D]."""
        return self.cosine(views, text) * self.towers.scale + self.towers.bias
