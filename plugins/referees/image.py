"""The `image` referee: how like a reference image a view is, in the features of a CLIP or of DINOv2."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore import images
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.engine.views import resize
from refcore.plugin import PluginConfig
from refcore_plugins.models.dinov2 import Dinov2
from refcore_plugins.models.open_clip_towers import OpenClipTowers
from refcore_plugins.models.similarity import SimilarityLoss, similarity_loss
from refcore_plugins.models.transformers_towers import CLIP, SIGLIP, TransformersTowers


class ImageSimilarity(Referee):
    """The cosine of a view's features and those of a reference image.

    CLIP's features (arXiv 2103.00020) say what is shown, DINOv2's (arXiv 2304.07193) also how it looks. With
    `compare: patches` DINOv2 is asked place by place, and the cosine is the mean over the patches, so that the layout
    counts: use it without augmentations that move the picture. The losses are those of the referee `clip`. The
    reference is cut to the view's proportions about its centre; the prompt is not read.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"reference": "name an image file"})
        reference: str = Field(description="file of the reference image")
        features: Literal["clip", "hf-clip", "dinov2"] = Field(
            "clip", description="clip: an open_clip model; hf-clip: a CLIP or SigLIP of transformers; dinov2"
        )
        model: str = Field(
            "playground:clip",
            description="the checkpoint, as referees `clip` and `hf-clip` name theirs; of DINOv2 a hub id or folder",
        )
        pretrained: str | None = Field(
            None, description="weights of an open_clip model given by name: a tag, or a safetensors file"
        )
        compare: Literal["whole", "patches"] = Field(
            "whole", description="whole: one feature of the image; patches: place by place, with dinov2"
        )
        loss: SimilarityLoss = Field("cosine", description="cosine: 1 - cos; spherical: half the squared angle")
        absent_below: float = Field(
            0.0, ge=-1.0, lt=1.0, description="with wanted: false, the cosine at which the loss is 0"
        )

        @model_validator(mode="after")
        def _patches_need_dinov2(self) -> Any:
            if self.compare == "patches" and self.features != "dinov2":
                raise ValueError(f'compare: patches needs features: dinov2, not "{self.features}"')
            return self

    name = "image"
    bounded_above: ClassVar[bool] = True
    score_unit: ClassVar[str] = "cosine"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`.

        Raises:
            RefcoreError: the reference cannot be read.
            CheckpointError: the checkpoint is missing, corrupt or of another kind.
        """
        reference = images.read(self.config.reference)[None]
        model = self.config.model
        self.towers: OpenClipTowers | TransformersTowers | Dinov2
        if self.config.features == "clip":
            self.towers = OpenClipTowers(self.name, model, self.config.pretrained, device, dtype)
        elif self.config.features == "hf-clip":
            self.towers = TransformersTowers(self.name, model, [CLIP, SIGLIP], device, dtype)
        else:
            self.towers = Dinov2(self.name, model, device, dtype)
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype
        with torch.no_grad():
            view = centre(reference, self.input_size).to(device, torch.promote_types(dtype, torch.float32))
            self.reference = self._features(view)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Nothing: the prompt plays no part."""
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        return similarity_loss(self.cosine(views), self.config.loss, wanted, self.config.absent_below)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The cosine of each image and the reference, in [-1, 1]."""
        return self.cosine(images)

    def cosine(self, views: Tensor) -> Tensor:
        """[N] cosines of views [N, 3, H, W] and the reference; differentiable."""
        cosine = (self._features(views) * self.reference).sum(-1)
        return cosine if cosine.ndim == 1 else cosine.mean(1)

    def _features(self, views: Tensor) -> Tensor:
        """[N, D], or [N, T, D] patch by patch."""
        if self.config.compare == "patches":
            assert isinstance(self.towers, Dinov2)
            return self.towers.patches(views)
        return self.towers.image(views)


def centre(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[1, 3, H, W] -> [1, 3, *size]: the largest centred part of those proportions, resized."""
    height, width = image.shape[-2:]
    scale = min(height / size[0], width / size[1])
    kept = (round(size[0] * scale), round(size[1] * scale))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return resize(image[..., top : top + kept[0], left : left + kept[1]], size)
