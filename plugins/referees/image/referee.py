"""The `image` referee: similarity of a view to a reference image, in the features of a CLIP or of DINOv2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore import images
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.engine.views import centred
from refcore.plugin import PluginConfig
from refcore_plugins.models.feature_similarity import SimilarityLoss, similarity_loss
from refcore_plugins.models.open_clip_towers import OpenClipTowers
from refcore_plugins.models.transformers_towers import CLIP, SIGLIP, TransformersTowers
from refcore_plugins.referees.image.dinov2 import Dinov2


class ImageSimilarity(Referee):
    """The cosine of a view's features and those of a reference image.

    CLIP's features (arXiv 2103.00020) capture the content, DINOv2's (arXiv 2304.07193) also the appearance. With
    `compare: patches`, the cosine is the mean over DINOv2's patches, so that the layout counts: use it without
    geometric augmentations. The losses are those of the referee `clip`. The reference and finished images are
    centre-cropped to the input's aspect ratio. For a score with DINOv2's features, both are resized and cropped as its
    processor does, which loses a margin; the views of a run are whole, and so is the reference then. The prompt is
    ignored.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"reference": "name an image file"})
        reference: str = Field(description="File of the reference image.")
        features: Literal["clip", "hf-clip", "dinov2"] = Field(
            "clip", description="clip: an open_clip model. hf-clip: a CLIP or SigLIP of transformers. dinov2: a DINOv2."
        )
        model: str = Field(
            "playground:clip",
            description="The checkpoint, as in the referees `clip` and `hf-clip`; for DINOv2 a hub id or folder.",
        )
        pretrained: str | None = Field(
            None, description="Weights of an open_clip model given by name: a tag of open_clip, or a safetensors file."
        )
        compare: Literal["whole", "patches"] = Field(
            "whole", description="whole: one feature vector for the image. patches: patch by patch, with dinov2."
        )
        loss: SimilarityLoss = Field("cosine", description="cosine: 1 - cos. spherical: half the squared angle.")
        absent_below: float = Field(
            0.0, ge=-1.0, lt=1.0, description="With wanted: false, the cosine up to which the loss is 0."
        )

        @model_validator(mode="after")
        def _patches_need_dinov2(self) -> Any:
            if self.compare == "patches" and self.features != "dinov2":
                raise ValueError(f"compare: patches needs features: dinov2; got features: {self.features}")
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
        self.fit = self.towers.fit if isinstance(self.towers, Dinov2) else partial(centred, size=self.input_size)
        self.remarks = getattr(self.towers, "remarks", ())
        with torch.no_grad():
            wide = torch.promote_types(dtype, torch.float32)
            view = centred(reference, self.input_size).to(device, wide)
            self.reference = self._features(view)
            """Of the whole reference, for the views of a run."""
            fitted = self.fit(reference).to(device, wide)
            self.scored_reference = self.reference if torch.equal(fitted, view) else self._features(fitted)
            """Of the reference as a finished image is fitted."""

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """No tensors: the prompt is ignored."""
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        return similarity_loss(self.cosine(views), self.config.loss, wanted, self.config.absent_below)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The cosine of each image and the reference, in [-1, 1]."""
        return self.cosine(images, self.scored_reference)

    def cosine(self, views: Tensor, reference: Tensor | None = None) -> Tensor:
        """[N] cosines of views [N, 3, H, W] and the features of the reference; differentiable."""
        cosine = (self._features(views) * (self.reference if reference is None else reference)).sum(-1)
        return cosine if cosine.ndim == 1 else cosine.mean(1)

    def _features(self, views: Tensor) -> Tensor:
        """[N, D] features, or [N, T, D] patch by patch."""
        if self.config.compare == "patches":
            assert isinstance(self.towers, Dinov2)
            return self.towers.patches(views)
        return self.towers.image(views)
