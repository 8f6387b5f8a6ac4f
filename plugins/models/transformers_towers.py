"""Image and text towers of a CLIP or SigLIP of transformers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from refcore_plugins.models.attention import transformers_attention
from refcore_plugins.models.feature_similarity import unit
from refcore_plugins.models.preprocess import Fit, Normalise
from refcore_plugins.models.transformers_folder import TransformersFolder
from refcore_plugins.models.truncated_text import truncated_text
from refcore_plugins.models.two_towers import PROMPTS_AT_ONCE, TextCleaning

CLIP = "CLIPModel"
SIGLIP = "SiglipModel"
"""Also the class of SigLIP 2 checkpoints with a fixed resolution; those of any resolution (NaFlex) are Siglip2Model."""


class TransformersTowers:
    """See `refcore_plugins.models.two_towers.Towers`.

    Args:
        plugin: Name of the plugin, with which errors begin.
        model: Hub id or folder.
        kinds: Allowed architectures: CLIP, SIGLIP or both.
        text: "own": a SigLIP reads prompts in lower case, as in training, also where its tokenizer keeps the case
            (SigLIP 2); "as_given": it reads them as its tokenizer does.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of another kind.
    """

    def __init__(
        self,
        plugin: str,
        model: str,
        kinds: Collection[str],
        device: torch.device,
        dtype: torch.dtype,
        text: TextCleaning = "own",
    ) -> None:
        examples = {CLIP: "openai/clip-vit-base-patch32", SIGLIP: "google/siglip2-base-patch16-224"}
        expected = " or ".join(f"a {kind}, such as {examples[kind]}" for kind in kinds)
        folder = TransformersFolder(plugin, model, f"expected {expected}")
        folder.require(kinds)
        loaded = folder.load_model(AutoModel, dtype, transformers_attention(device, dtype))
        self.tokenizer: Any = folder.load_tokenizer()
        processor = folder.load_image_processor()
        self.normalise = Normalise.of_processor(processor, device)
        self.model: Any = loaded.to(device)
        self.dtype = dtype
        self.input_size = (int(loaded.config.vision_config.image_size),) * 2
        self.fit = Fit.of_processor(processor, self.input_size)
        self.remarks: tuple[str, ...] = ()
        self.context = int(loaded.config.text_config.max_position_embeddings)
        wide = torch.promote_types(dtype, torch.float32)
        self.scale = loaded.logit_scale.to(wide).exp().squeeze()
        bias = getattr(loaded, "logit_bias", None)
        self.bias = torch.zeros_like(self.scale) if bias is None else bias.to(wide).squeeze()
        # SigLIP was trained on text padded to its context, and attends to the padding: it takes no mask.
        self._is_siglip = folder.kind == SIGLIP
        self._lowers = self._is_siglip and text == "own"

    def image(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, D] unit features, float32 or wider, differentiable."""
        pixels = self.normalise(views).to(self.dtype)
        return unit(self.model.get_image_features(pixel_values=pixels).pooler_output)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """P prompts -> [P, D] unit features, float32 or wider."""
        parts = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            tokens = self.tokenizer(
                [self._cleaned(prompt) for prompt in prompts[start : start + PROMPTS_AT_ONCE]],
                padding="max_length" if self._is_siglip else True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            ).to(self.scale.device)
            mask = None if self._is_siglip else tokens.get("attention_mask")
            parts.append(unit(self.model.get_text_features(tokens.input_ids, attention_mask=mask).pooler_output))
        return torch.cat(parts)

    def finish_reading(self) -> None:
        """Drops the text tower, 0.5 GB in float32 for a ViT-L."""
        self.model.text_model = None

    def truncated(self, prompt: str) -> str:
        """See `Towers.truncated`."""
        lowered = self._cleaned(prompt)
        rest = truncated_text(self.tokenizer, lowered, self.context)
        # As the user wrote it, wherever lower case has as many characters.
        kept = len(prompt) == len(lowered) and lowered.endswith(rest)
        return prompt[len(prompt) - len(rest) :] if kept and rest else rest

    def _cleaned(self, prompt: str) -> str:
        return prompt.lower() if self._lowers else prompt
