"""Image features of DINOv2, from transformers: of the whole image, or patch by patch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from refcore_plugins.models.attention import transformers_attention
from refcore_plugins.models.feature_similarity import unit
from refcore_plugins.models.preprocess import Fit, Normalise, processor_size
from refcore_plugins.models.transformers_folder import TransformersFolder

KINDS = ("Dinov2Model", "Dinov2WithRegistersModel")
EXPECTED = f"expected a {' or '.join(KINDS)} of transformers, such as facebook/dinov2-base"


class Dinov2:
    """DINOv2 (arXiv 2304.07193), by hub id or folder, at the crop size of its processor.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of another kind.
    """

    def __init__(self, plugin: str, model: str, device: torch.device, dtype: torch.dtype) -> None:
        folder = TransformersFolder(plugin, model, EXPECTED)
        folder.require(KINDS)
        loaded = folder.load_model(AutoModel, dtype, transformers_attention(device, dtype))
        processor = folder.load_image_processor()
        self.model: Any = loaded.to(device)
        self.dtype = dtype
        self.input_size = processor_size(processor)
        self.fit = Fit.of_processor(processor, self.input_size)
        self.normalise = Normalise.of_processor(processor, device)
        self.special = 1 + int(getattr(loaded.config, "num_register_tokens", 0))
        """Number of tokens before those of the patches: the class token and the registers."""

    def image(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, D] unit class tokens, float32 or wider, differentiable."""
        return unit(self._hidden(views)[:, 0])

    def patches(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, T, D] unit patch tokens in raster order, float32 or wider, differentiable."""
        return unit(self._hidden(views)[:, self.special :])

    def _hidden(self, views: Tensor) -> Tensor:
        hidden: Tensor = self.model(pixel_values=self.normalise(views).to(self.dtype)).last_hidden_state
        return hidden
