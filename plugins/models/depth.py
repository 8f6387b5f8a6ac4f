"""Depth from one image, as nearness: MiDaS and Depth Anything, and metric models turned round."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForDepthEstimation

from refcore.images import Levels
from refcore_plugins.models.transformers_folder import TransformersFolder

DPT, ANYTHING, PRO = "DPTForDepthEstimation", "DepthAnythingForDepthEstimation", "DepthProForDepthEstimation"
EXPECTED = (
    f"expected a {DPT}, such as Intel/dpt-hybrid-midas, a {ANYTHING}, such as "
    f"depth-anything/Depth-Anything-V2-Small-hf, or a {PRO}, such as apple/DepthPro-hf"
)

UNUSED = r"neck\.fusion_stage\.layers\.0\.residual_layer1\."
"""Tensors that a DPT's first fusion has and, without a layer before it, never uses; Intel's files lack them."""


class Nearness:
    """A frozen depth model: an image in, a map out in which larger is nearer.

    MiDaS (arXiv 1907.01341) and Depth Anything (arXiv 2401.10891) predict an inverse depth of unknown scale and shift,
    larger where a thing is nearer. Metric models say metres, and are turned round: 1 / metres. That is a Depth Anything
    whose config says "metric", and Depth Pro (arXiv 2410.02073).

    Args:
        plugin: Name of the plugin, with which errors begin.
        model: Hub id or folder.
        device: Where it computes.
        dtype: Dtype of its weights.
        side: Side in pixels of the square that a DPT sees, to which the image is resized bilinearly, as T2I-CompBench
            does; None: as its image processor says. Other models keep to theirs.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of another kind.
    """

    def __init__(
        self, plugin: str, model: str, device: torch.device, dtype: torch.dtype, side: int | None = None
    ) -> None:
        folder = TransformersFolder(plugin, model, EXPECTED)
        folder.require((DPT, ANYTHING, PRO))
        self.kind = folder.kind
        self.model: Any = folder.load_model(AutoModelForDepthEstimation, dtype, unused=UNUSED).to(device)
        self.processor: Any = folder.load_image_processor()
        self.device, self.dtype = device, dtype
        self.is_metric = getattr(self.model.config, "depth_estimation_type", "relative") == "metric"
        self.options: dict[str, Any] = {}
        if side is not None and self.kind == DPT:
            self.options = {
                "size": {"height": side, "width": side},
                "keep_aspect_ratio": False,
                "ensure_multiple_of": 1,
                "resample": Image.Resampling.BILINEAR,
            }
            if getattr(self.model.config, "is_hybrid", False):
                # It refuses other sizes than its own, though it interpolates its positions.
                self.model.dpt.embeddings.image_size = (side, side)

    @torch.no_grad()
    def __call__(self, image: Levels, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """[H, W, 3] -> [*size], larger is nearer; None: the model's own size, or for Depth Pro the image's."""
        pixels = self.processor(images=image, return_tensors="pt", **self.options)["pixel_values"]
        found = self.model(pixel_values=pixels.to(self.device, self.dtype))
        if self.kind == PRO:
            (post,) = self.processor.post_process_depth_estimation(found, target_sizes=[size or image.shape[:2]])
            return (1 / post["predicted_depth"].float()).cpu().numpy()  # type: ignore[no-any-return]
        depth = found.predicted_depth.float()[:, None]
        depth = (depth if size is None else F.interpolate(depth, size, mode="bicubic", align_corners=False))[0, 0]
        return (1 / depth.clamp(min=1e-4) if self.is_metric else depth).cpu().numpy()  # type: ignore[no-any-return]


def read_back(depth: NDArray[np.float32], image: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map as T2I-CompBench writes it to a picture and reads it back: whole levels, 0 to 255, [*size].

    It is stretched to the range of levels, resampled to the image's size, bilinearly between the centres of its corner
    pixels, cut to whole levels, and resized by Pillow, as the image is for the detector. A flat map is 0.

    Args:
        depth: [h, w], as the model gives it.
        image: (height, width) of the image.
        size: (height, width) that the detector sees.
    """
    found = torch.from_numpy(depth).float()
    low, high = found.min(), found.max()
    if high - low <= torch.finfo(torch.float32).eps:
        return np.zeros(size, np.float32)
    whole = F.interpolate(((found - low) / (high - low))[None, None], image, mode="bilinear", align_corners=True)[0, 0]
    levels = Image.fromarray((255 * whole).clamp(0, 255).to(torch.uint8).numpy())
    if size != image:
        levels = levels.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(levels, dtype=np.float32)
