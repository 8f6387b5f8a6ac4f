"""Mask2Former's instances in a finished image: class, score, box and mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Mask2FormerForUniversalSegmentation

from refcore.images import Levels
from refcore_plugins.models.coco_classes import COCO, SYNONYMS
from refcore_plugins.models.detections import Detection
from refcore_plugins.models.transformers_folder import TransformersFolder

ARCHITECTURE = "Mask2FormerForUniversalSegmentation"
EXPECTED = f"expected a {ARCHITECTURE} of instances, such as facebook/mask2former-swin-small-coco-instance"


@dataclass(frozen=True)
class Instance:
    """A thing with its mask."""

    detection: Detection
    """The box is the smallest around the mask."""
    mask: NDArray[np.bool_]
    """[H, W], true where the thing is."""


class InstanceSegmenter:
    """A frozen Mask2Former (arXiv 2112.01527), and its classes by the names of COCO.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of another kind.
    """

    def __init__(self, plugin: str, model: str, device: torch.device, dtype: torch.dtype) -> None:
        folder = TransformersFolder(plugin, model, EXPECTED)
        folder.require([ARCHITECTURE])
        self.model: Any = folder.load_model(Mask2FormerForUniversalSegmentation, dtype).to(device)
        self.processor: Any = folder.load_image_processor()
        self.device, self.dtype = device, dtype
        self.names = {int(i): coco_name(name) for i, name in self.model.config.id2label.items()}

    @torch.no_grad()
    def __call__(self, image: Levels, threshold: float) -> list[Instance]:
        """Instances of an image [H, W, 3] with at least this score, in [0, 1], by falling score."""
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        found = self.model(pixel_values=inputs["pixel_values"].to(self.dtype), pixel_mask=inputs["pixel_mask"])
        # The library's post-processing keeps its maps on the CPU.
        found.class_queries_logits = found.class_queries_logits.float().cpu()
        found.masks_queries_logits = found.masks_queries_logits.float().cpu()
        (post,) = self.processor.post_process_instance_segmentation(
            found, threshold=threshold, target_sizes=[image.shape[:2]], return_binary_maps=True
        )
        instances = []
        for number, segment in enumerate(post["segments_info"]):
            mask = post["segmentation"][number].bool().cpu().numpy()
            detection = Detection(self.names[segment["label_id"]], segment["score"], box_around(mask))
            instances.append(Instance(detection, mask))
        return sorted(instances, key=lambda instance: -instance.detection.score)


def box_around(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The smallest box around the true pixels of a mask [H, W], which has some; edges lie between pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def coco_name(name: str) -> str:
    """The name of a class as COCO has it; other names stay.

    >>> coco_name("tvmonitor"), coco_name("traffic light")
    ('tv', 'traffic light')
    """
    plain = name.lower().replace("_", " ")
    return plain if plain in COCO else SYNONYMS.get(plain, plain)
