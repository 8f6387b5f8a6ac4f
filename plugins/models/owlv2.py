"""The network of an OWLv2 checkpoint of transformers: features of patches, queries, and the heads' answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Owlv2ForObjectDetection

from refcore_plugins.models.attention import transformers_attention
from refcore_plugins.models.feature_similarity import unit
from refcore_plugins.models.preprocess import Fit, Normalise
from refcore_plugins.models.transformers_folder import TransformersFolder

OWLV2 = "Owlv2ForObjectDetection"
EXPECTED = f"expected an {OWLV2}, such as google/owlv2-base-patch16-ensemble"


class Owlv2Network:
    """An OWLv2 (arXiv 2306.09683), frozen, with its tokenizer and preprocessing.

    Args:
        folder: The checkpoint.
        device: Where it computes.
        dtype: Dtype of its weights.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of another kind.
    """

    def __init__(self, folder: TransformersFolder, device: torch.device, dtype: torch.dtype) -> None:
        folder.require([OWLV2])
        model = folder.load_model(Owlv2ForObjectDetection, dtype, transformers_attention(device, dtype))
        self.model: Any = model.to(device)
        self.tokenizer: Any = folder.load_tokenizer(padding_side="right")
        self.normalise = Normalise.of_processor(folder.load_image_processor(), device)
        self.device, self.dtype = device, dtype
        self.input_size = (int(model.config.vision_config.image_size),) * 2
        self.fit = Fit(self.input_size, "corner")
        self.context = int(model.config.text_config.max_position_embeddings)

    def patches(self, views: Tensor) -> Tensor:
        """[N, 3, *input_size] in [0, 1] -> [N, P, W] features of the patches."""
        return patch_features(self.model, self.normalise(views).to(self.dtype))

    def queries(self, texts: Sequence[str]) -> Tensor:
        """Q texts -> [Q, D] unit features; what exceeds the context is cut."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        ).to(self.device)
        return query_features(self.model, encoded.input_ids, encoded.attention_mask)

    def logits(self, patches: Tensor, queries: Tensor) -> Tensor:
        """[N, P, W] patches and [N, Q, D] queries -> [N, P, Q] logits of a patch showing a query."""
        return self.model.class_head(patches, queries.to(patches.dtype), None)[0]  # type: ignore[no-any-return]

    def boxes(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, P, 4] centre and size, as parts of the square that the image is padded to."""
        offsets = self.model.box_head(patches) + self.model.box_bias.to(patches.dtype)
        return offsets.sigmoid()  # type: ignore[no-any-return]


def patch_features(model: Any, pixels: Tensor) -> Tensor:
    """[N, 3, H, W] normalised pixels -> [N, P, W] features of the patches, the input of the detection heads.

    Differentiable up to the objectness, before which the library's own forward stops the gradient.
    """
    vision = model.owlv2.vision_model
    tokens = vision.post_layernorm(vision(pixel_values=pixels).last_hidden_state)
    return model.layer_norm(tokens[:, 1:] * tokens[:, :1])  # type: ignore[no-any-return]


def query_features(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """[Q, L] tokens -> [Q, D] unit features of the phrases."""
    return unit(model.owlv2.get_text_features(input_ids=ids, attention_mask=mask).pooler_output)
