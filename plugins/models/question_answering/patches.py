"""Chat models that take an image at its own proportions, as patches: Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refcore.errors import CheckpointError, RefcoreError
from refcore_plugins.models.preprocess import MultipleFit, Normalise
from refcore_plugins.models.question_answering.chat import ChatAnswering
from refcore_plugins.models.transformers_folder import TransformersFolder

KINDS = (
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
)
SIDE = 448
"""Side of a run's views in pixels where `size` is null, if the checkpoint's bounds allow it."""


class PatchAnswering(ChatAnswering):
    """Qwen-VL (arXiv 2409.12191, 2502.13923): as many image tokens as the image has patches, merged 2 x 2.

    A run's views are squares of `size`. A finished image keeps its proportions: its sides go to the nearest multiples
    of a merged patch (28 pixels; Qwen3-VL: 32), and its area between the bounds of the processor.

    Loading checks on an image of noise that the processor's patches are those of `patches`.

    Raises:
        RefcoreError: `size` is no multiple of a merged patch, or out of the processor's bounds.
        CheckpointError: the checkpoint is of another kind, or its processor does anything else.
    """

    def _prepare(self, folder: TransformersFolder, size: int | None, device: torch.device) -> None:
        """Sets `input_size`, `normalise` and `fit`, from the processor."""
        images: Any = self.processor.image_processor
        self.patch, self.merge, self.frames = (
            int(getattr(images, name)) for name in ("patch_size", "merge_size", "temporal_patch_size")
        )
        self.fit = MultipleFit.of_processor(images, self.patch * self.merge)
        side = self.fit.size_of(size or SIDE, size or SIDE)[0]
        if size is not None and side != size:
            raise RefcoreError(
                f'{folder.plugin}: size {size} is none that model "{folder.model}" takes; expected a multiple of '
                f"{self.fit.factor} with {self.fit.least:,} to {self.fit.most:,} pixels in the square: "
                f"the nearest is {side}"
            )
        self.input_size = (side, side)
        self.normalise = Normalise.of_processor(images, device)
        self._image_token = int(self.processor.image_token_id)
        self._try_patches(folder, device)

    def patches(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N * T, 3 * frames * patch^2], merged neighbours together: a still image fills all frames."""
        n, channels, height, width = views.shape
        p, m = self.patch, self.merge
        rows, columns = height // (p * m), width // (p * m)
        apart = views.reshape(n, channels, rows, m, p, columns, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
        frames = apart.unsqueeze(6).expand(*apart.shape[:6], self.frames, p, p)
        return frames.reshape(n * rows * columns * m * m, channels * self.frames * p * p)

    def _drop(self) -> tuple[str, ...]:
        return ("pixel_values", "labels", "image_grid_thw")

    def _images(self, views: Tensor) -> dict[str, Tensor]:
        grid = [1, views.shape[2] // self.patch, views.shape[3] // self.patch]
        return {
            "pixel_values": self.patches(self.normalise(views)).to(self.dtype),
            "image_grid_thw": torch.tensor([grid] * len(views), device=views.device),
        }

    def _sized(self, views: Tensor, text: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model inputs [N, L] with as many image tokens as the views have merged patches."""
        is_image = text["input_ids"] == self._image_token
        first, present = is_image.int().argmax(1, keepdim=True), int(is_image[0].sum())
        side = self.patch * self.merge
        wanted = (views.shape[2] // side) * (views.shape[3] // side)
        if wanted == present:
            return text
        length = text["input_ids"].shape[1] - present + wanted
        place = torch.arange(length, device=first.device).expand(len(first), -1)
        source = torch.where(place < first + wanted, place.minimum(first), place - wanted + present)
        return {name: value.gather(1, source) for name, value in text.items()}

    def _try_patches(self, folder: TransformersFolder, device: torch.device) -> None:
        """Raises unless the processor's patches of an image that needs no resizing are ours."""
        levels = np.random.default_rng(0).integers(0, 256, (*self.input_size, 3), dtype=np.uint8)
        given = self.processor.image_processor(images=Image.fromarray(levels), return_tensors="pt")["pixel_values"]
        views = torch.from_numpy(levels).permute(2, 0, 1)[None].to(device).float() / 255
        ours = self.patches(self.normalise(views)).cpu()
        if given.shape != ours.shape or (given - ours).abs().max() > 1e-3:
            raise CheckpointError(
                f'{folder.plugin}: the processor of model "{folder.model}" ({folder.kind}) makes patches '
                f"{list(given.shape)} of an image; expected {list(ours.shape)}, resized, normalised and cut as "
                "Qwen2-VL's: use its preprocessor_config.json as published"
            )
