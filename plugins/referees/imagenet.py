"""The `imagenet` referee: classifiers of the 1,000 ImageNet classes, EfficientNet-Lite and SqueezeNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.classification_loss import ClassLoss, class_loss, class_probability, class_targets
from refcore_plugins.models.imagenet_classes import ClassNames, target_of
from refcore_plugins.models.imagenet_networks import Network, load, weights_file
from refcore_plugins.models.preprocess import Fit

CLASSES = 1000
CROP_FRACTION = 0.875


class Imagenet(Referee):
    """An ImageNet classifier as referee: a prompt names one or more classes, or describes them in free text.

    The prompt's target is a weight for every class, summing to one; several named classes share it equally. The loss is
    the negated weighted sum of the class logits (`logit`), or the cross-entropy against the target (`cross_entropy`).
    A logit can always rise further and moves the whole picture toward the class; the cross-entropy is small as soon as
    the class beats the others, for which a little adversarial noise is enough.
    """

    class Config(PluginConfig):
        weights: Network = Field("lite0", description="EfficientNet-Lite 0, 1 or 2, or SqueezeNet 1.1.")
        size: int = Field(
            160,
            ge=32,
            le=512,
            description="Side of the views in pixels; trained at 224, 240, 260 (lite0 to lite2) and 227 (squeezenet).",
        )
        loss: ClassLoss = Field("logit", description="Loss of a wanted prompt: negated logit or cross-entropy.")
        crop: Literal["whole", "published"] = Field(
            "whole",
            description="Finished images that are scored: whole, the largest square in the middle; published: 7/8 of "
            "it, as the authors evaluate (224 of 256 pixels).",
        )
        free_text: bool = Field(True, description="Match prompts that name no class by meaning.")

    name = "imagenet"
    score_unit = "probability"

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`; without free text, every prompt has to name a class."""
        super().check(prompts)
        weights_file(self.config.weights)
        if not self.config.free_text:
            for prompt in prompts:
                target_of(prompt, ClassNames.known(), free_text=False)

    def packaged(self) -> dict[str, Path]:
        """See `Plugin.packaged`: the network's own weights."""
        return {self.config.weights: weights_file(self.config.weights)}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        self.device, self.dtype = device, dtype
        self.input_size = (self.config.size, self.config.size)
        self.fit = partial(window, size=self.config.size, published=self.config.crop == "published")
        network, self._normalize = load(self.config.weights, self.config.size)
        # Depthwise convolutions are about 1.4 times as fast in channels-last format, on the CPU and on CUDA.
        self._network = network.to(device, dtype).to(memory_format=torch.channels_last)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt's target over the classes, `target` [P, 1000], which sums to 1.

        Raises:
            RefcoreError: a prompt names no class, and free text is off or finds nothing near.
            CheckpointError: a prompt is free text and the sentence encoder is not installed.
        """
        names = ClassNames.known()
        targets = [target_of(prompt, names, self.config.free_text) for prompt in prompts]
        target = class_targets([target.weights for target in targets], CLASSES).to(self.device)
        return Conditioning(tuple(prompts), {"target": target}, notes=tuple(target.note for target in targets))

    def logits(self, views: Tensor) -> Tensor:
        """[N, 1000] class logits, float32 (float64 in float64), of views [N, 3, H, W] in [0, 1]; differentiable."""
        x = self._normalize(views).to(self.dtype, memory_format=torch.channels_last)
        logits: Tensor = self._network(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        target = conditioning.select(prompt_index)["target"]
        return class_loss(self.logits(views), target, self.config.loss, wanted)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] probabilities of the prompts' classes, each weighted relative to the largest weight."""
        return class_probability(self.logits(images), conditioning["target"])

    @torch.no_grad()
    def rank(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] int64 rank, from 1, of the class with the largest target among the 1,000, in order of the logits.

        If several classes share the largest target, the best rank counts.
        """
        logits = self.logits(images)
        target = conditioning["target"]
        largest = target >= target.amax(1, keepdim=True)
        best = logits.masked_fill(~largest, -torch.inf).amax(1, keepdim=True)
        return (logits > best).sum(1) + 1

    @torch.no_grad()
    def guess(self, images: Tensor) -> list[str]:
        """Name of the most likely class of each image [B, 3, H, W]."""
        return [ClassNames.known().names[index] for index in self.logits(images).argmax(1).tolist()]


def window(images: Tensor, size: int, published: bool) -> Tensor:
    """[B, 3, H, W] -> [B, 3, size, size]: the square in the middle, or of its side 7/8 as published, then resized.

    As `_decode_and_center_crop` of the authors' preprocessing.py (tensorflow/tpu, models/official/efficientnet), with
    its rounding; but with antialiasing, which TensorFlow's bicubic filter there has not.
    """
    padding = round(size * (1 / CROP_FRACTION - 1)) if published else 0
    height, width = images.shape[-2:]
    side = int(size / (size + padding) * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return Fit((size, size), "stretch")(images[..., top : top + side, left : left + side])
