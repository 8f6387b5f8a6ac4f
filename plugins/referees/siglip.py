"""The `siglip` referee: the probability that image and prompt are a pair, by a SigLIP or SigLIP 2."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import ClassVar

import open_clip
import torch
from pydantic import Field
from torch import Tensor

from refcore.checkpoints import resolve
from refcore.contracts.conditioning import Conditioning
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore_plugins.models.open_clip_towers import CONFIG, HUB, LOCAL, OpenClipTowers
from refcore_plugins.models.reward_loss import RewardLoss, reward_loss
from refcore_plugins.models.transformers_towers import SIGLIP, TransformersTowers
from refcore_plugins.models.two_towers import TextCleaning, Towers, TwoTowers


class Siglip(TwoTowers):
    """SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786), with their training loss.

    The probability p that image and prompt are a pair is sigmoid(scale cos + bias), with the checkpoint's scale and
    bias, independently of other prompts. Wanted, the loss is -log p (eq. 1 of the paper for one positive pair); not
    wanted, -log(1 - p) (for one negative pair). Both are bounded below by 0, and neither underflows. `linear` is the
    negated logit.
    """

    class Config(PluginConfig):
        model: str = Field(
            "google/siglip2-base-patch16-224",
            description="Transformers: hub id or folder. open_clip: a name (with `pretrained`), hf-hub:ORG/NAME or "
            "local-dir:FOLDER.",
        )
        pretrained: str | None = Field(
            None, description="Weights of an open_clip model given by name: a tag of open_clip, or a safetensors file."
        )
        loss: RewardLoss = Field(
            "saturating", description="saturating: -log p, the training loss. linear: the negated logit."
        )
        text: TextCleaning = Field(
            "own",
            description="own: prompts in lower case, as SigLIP 1 and 2 were trained; with open_clip as its tokenizer "
            "cleans them. as_given: they are not changed before the tokenizer.",
        )

    name = "siglip"
    bounded_above: ClassVar[bool] = False
    score_unit: ClassVar[str] = "probability"

    def open(self, device: torch.device, dtype: torch.dtype) -> Towers:
        """See `TwoTowers.open`."""
        model, pretrained, text = self.config.model, self.config.pretrained, self.config.text
        folder = Path(expanduser(resolve(model)))
        if (folder / CONFIG).is_file():
            model = LOCAL + str(folder)
        elif not model.startswith((LOCAL, HUB)) and model not in open_clip.list_models():
            return TransformersTowers(self.name, model, [SIGLIP], device, dtype, text)
        towers = OpenClipTowers(self.name, model, pretrained, device, dtype, text)
        if towers.model.logit_bias is None:
            raise CheckpointError(
                f'siglip: model "{self.config.model}" has no logit bias, so it was not trained with the sigmoid loss; '
                "use it with the referee `clip`"
            )
        return towers

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        logit = self.logit(views, conditioning["text"].index_select(0, prompt_index))
        return reward_loss(logit, self.config.loss, wanted)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability that each image and its prompt are a pair, in [0, 1]."""
        return self.logit(images, conditioning["text"]).sigmoid()

    def logit(self, views: Tensor, text: Tensor) -> Tensor:
        """[N] logits of views [N, 3, H, W] and unit text features [N, D]."""
        return self.cosine(views, text) * self.towers.scale + self.towers.bias
