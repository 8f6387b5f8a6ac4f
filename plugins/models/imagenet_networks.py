"""The ImageNet classifiers that packages of the extra `natural` bring: EfficientNet-Lite 0 to 2, and SqueezeNet 1.1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from refcore_plugins.models import efficientnet_lite, squeezenet

Network = Literal["lite0", "lite1", "lite2", "squeezenet"]
"""The Lites share architecture, training data and recipe; SqueezeNet shares the data alone."""
SQUEEZENET = "squeezenet"


def weights_file(network: str) -> Path:
    """Path of a network's checkpoint, inside the package that carries it.

    Raises:
        CheckpointError: a package that it needs is not installed.
    """
    return squeezenet.weights_file() if network == SQUEEZENET else efficientnet_lite.weights_file(network)


def load(network: str, size: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """A frozen network for square inputs of `size` pixels, and its normalisation of views [N, 3, H, W] in [0, 1].

    Raises:
        CheckpointError: a package is not installed, or its checkpoint is unreadable or of another network.
    """
    if network == SQUEEZENET:
        return squeezenet.load(), squeezenet.normalize
    return efficientnet_lite.folded_network(network, size)[0], efficientnet_lite.normalize
