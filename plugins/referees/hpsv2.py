"""The `hpsv2` referee: Human Preference Score v2, a CLIP-H of open_clip tuned on what people preferred."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field

from refcore.errors import CheckpointError
from refcore_plugins.models.conversion import make_folder, matched, read_pickled, write_json, write_safetensors
from refcore_plugins.models.open_clip_towers import CONFIG, LOCAL, OpenClipTowers
from refcore_plugins.models.similarity import TwoTowers

ARCHITECTURE = "ViT-H-14"
"""open_clip's name of the model that was tuned."""
ORIGINAL = "the weights of HPSv2 (HPS_v2_compressed.pt, or HPS_v2.1_compressed.pt of version 2.1)"
REMEDY = f"refcore convert hpsv2-weights SOURCE FOLDER makes one from {ORIGINAL}"


def convert_weights(source: str | Path, out: str | Path) -> Path:
    """Writes the published file as a folder of open_clip: config and safetensors.

    Args:
        source: the published file.
        out: the folder, made if it is not there.

    Raises:
        CheckpointError: `source` is missing, corrupt or of another model, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    config = open_clip.get_model_config(ARCHITECTURE)
    with torch.device("meta"):
        model = open_clip.model.CLIP(**config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    weights = matched(read_pickled(source, ORIGINAL), shapes, source, ORIGINAL)
    write_safetensors(weights, make_folder(out) / "open_clip_model.safetensors")
    preprocess = {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    write_json({"model_cfg": config, "preprocess_cfg": preprocess}, out / CONFIG)
    return out


class Hpsv2(TwoTowers):
    """HPS v2 (arXiv 2306.09341): the cosine of image and prompt, in a CLIP-H tuned on 798,090 human preferences.

    Wanted, the loss is 1 - cos or half the squared angle; not wanted, the part of the cosine above `absent_below`.
    Its authors print 100 cos.
    """

    class Config(TwoTowers.Config):
        local_fields = MappingProxyType({"model": "refcore convert hpsv2-weights SOURCE OUT writes one"})
        model: str = Field(description="folder that `refcore convert hpsv2-weights` wrote")

    name = "hpsv2"
    conversions = MappingProxyType({"weights": convert_weights})

    def open(self, device: torch.device, dtype: torch.dtype) -> OpenClipTowers:
        """See `TwoTowers.open`."""
        folder = Path(self.config.model).expanduser()
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f'hpsv2: there is no converted checkpoint at "{self.config.model}"; {REMEDY}')
        return OpenClipTowers(self.name, LOCAL + str(folder), None, device, dtype)
