"""The `hpsv2` referee: Human Preference Score v2, a CLIP-H of open_clip fine-tuned on human preferences."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field
from torch import Tensor

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import (
    make_folder,
    matched,
    read_pickled,
    refuse_written,
    write_json,
    write_safetensors,
)
from refcore_plugins.models.open_clip_towers import CONFIG, LOCAL, OpenClipTowers
from refcore_plugins.models.two_towers import TwoTowers

ARCHITECTURE = "ViT-H-14"
"""open_clip's name of the fine-tuned model."""
ORIGINAL = "the weights of HPSv2 (HPS_v2_compressed.pt, or HPS_v2.1_compressed.pt of version 2.1)"
WEIGHTS = "open_clip_model.safetensors"
REMEDY = f"refcore convert hpsv2-weights SOURCE FOLDER makes one from {ORIGINAL}"


def convert_weights(source: str | Path, out: str | Path) -> Path:
    """Writes the published file as a folder in open_clip's format: config and safetensors.

    Args:
        source: The published file.
        out: The folder, created if missing.

    Raises:
        CheckpointError: `source` is missing, corrupt or of another model, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    refuse_written(out / WEIGHTS, out / CONFIG)
    config = open_clip.get_model_config(ARCHITECTURE)
    with torch.device("meta"):
        model = open_clip.model.CLIP(**config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    weights = matched(read_pickled(source, ORIGINAL), shapes, source, ORIGINAL)
    write_safetensors(weights, make_folder(out) / WEIGHTS)
    preprocess = {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "longest",  # with black, as HPSv2's `resize_longest_max`
    }
    write_json({"model_cfg": config, "preprocess_cfg": preprocess}, out / CONFIG)
    return out


class Hpsv2(TwoTowers):
    """HPS v2 (arXiv 2306.09341): the cosine of image and prompt in a CLIP-H fine-tuned on 798,090 human preferences.

    Wanted, the loss is 1 - cos or half the squared angle; not wanted, the part of the cosine above `absent_below`.
    The authors' code returns cos and prints 100 cos; `linear` is 1 - cos, as in ReNO (arXiv 2406.04312).
    """

    class Config(TwoTowers.Config):
        local_fields = MappingProxyType({"model": "refcore convert hpsv2-weights SOURCE OUT writes one"})
        model: str = Field(description="Folder written by `refcore convert hpsv2-weights`.")

    name = "hpsv2"
    published_best: ClassVar[float] = 1.0
    conversions = MappingProxyType({"weights": convert_weights})

    def open(self, device: torch.device, dtype: torch.dtype) -> OpenClipTowers:
        """See `TwoTowers.open`."""
        folder = Path(expanduser(self.config.model))
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f'hpsv2: there is no converted checkpoint at "{self.config.model}"; {REMEDY}')
        return OpenClipTowers(self.name, LOCAL + str(folder), None, device, dtype)

    def gain(self) -> Tensor:
        """[] 1: the authors' score is the cosine."""
        return torch.ones_like(self.towers.scale)
