"""Referee `imagenet`: EfficientNet-Lite classifiers of the 1,000 ImageNet classes, for what a prompt names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.classification_loss import ClassLoss, class_loss, class_probability, class_targets
from refcore_plugins.models.efficientnet_lite import Weights, folded_network, normalize
from refcore_plugins.models.imagenet_classes import ClassNames, target_of

CLASSES = 1000


class Imagenet(Referee):
    """An ImageNet classifier as referee: a prompt names one or more classes, or describes them in free text.

    The prompt's target is a weight for every class (they sum to one); several classes named share it equally. The loss
    is the negated weighted sum of the class logits (`logit`), or the cross-entropy against the target
    (`cross_entropy`). Pushing a logit up has no natural end and moves the whole picture toward the class;
    cross-entropy is satisfied as soon as the other classes are beaten, which a little adversarial noise does.
    """

    class Config(PluginConfig):
        weights: Weights = Field("lite0", description="Which network")
        size: int = Field(160, ge=32, le=512, description="Side of the views in pixels (trained at 224, 240 and 260)")
        loss: ClassLoss = Field("logit", description="What a wanted class minimises")
        free_text: bool = Field(True, description="Whether prompts that name no class are matched by meaning")

    name = "imagenet"
    score_unit = "probability"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.input_size = (self.config.size, self.config.size)
        network, _ = folded_network(self.config.weights, self.config.size)
        # Depthwise convolutions run about 1.4 times as fast with the channels last, on the CPU as on CUDA.
        self._network = network.to(device, dtype).to(memory_format=torch.channels_last)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt's target over the classes: [P, 1000], rows sum to 1.

        Raises:
            RefcoreError: a prompt names no class, and free text is off or finds nothing near.
            CheckpointError: free text is wanted and the sentence encoder is missing.
        """
        names = ClassNames.known()
        targets = [target_of(prompt, names, self.config.free_text) for prompt in prompts]
        target = class_targets([target.weights for target in targets], CLASSES).to(self.device)
        return Conditioning(tuple(prompts), {"target": target}, notes=tuple(target.note for target in targets))

    def logits(self, views: Tensor) -> Tensor:
        """[N, 1000] class logits, float32 (float64 in float64), of views [N, 3, H, W] in [0, 1]; differentiable."""
        x = normalize(views).to(self.dtype, memory_format=torch.channels_last)
        logits = self._network(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        logits = self.logits(views)
        target = conditioning.select(prompt_index)["target"]
        return class_loss(logits, target, self.config.loss, wanted)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] probability that the network gives to the classes asked for, each as far as it is asked for."""
        return class_probability(self.logits(images), conditioning["target"])

    @torch.no_grad()
    def rank(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] int64 rank of the class most asked for among the 1,000, 1 being the network's first guess.

        Of several classes asked for equally, the best ranked counts.
        """
        logits = self.logits(images)
        target = conditioning["target"]
        asked = target >= target.amax(1, keepdim=True)
        best = logits.masked_fill(~asked, -torch.inf).amax(1, keepdim=True)
        return (logits > best).sum(1) + 1

    @torch.no_grad()
    def guess(self, images: Tensor) -> list[str]:
        """The name of the class that the network finds most likely in each image [B, 3, H, W]."""
        return [ClassNames.known().names[index] for index in self.logits(images).argmax(1).tolist()]
