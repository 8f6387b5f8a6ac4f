"""Detectors that find things by name: OWLv2 and Grounding DINO, each behind one call on a finished image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection

from refcore.images import Levels
from refcore_plugins.models.detections import Detection, without_repeats
from refcore_plugins.models.owlv2 import OWLV2, Owlv2Network
from refcore_plugins.models.transformers_folder import TransformersFolder

GROUNDED = ("GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection")
EXPECTED = (
    f"expected an {OWLV2}, such as google/owlv2-base-patch16-ensemble, or a {GROUNDED[0]}, such as "
    "IDEA-Research/grounding-dino-tiny"
)


class Detector(Protocol):
    """A detector of an open vocabulary."""

    def __call__(self, image: Levels, labels: Sequence[str], threshold: float) -> list[Detection]:
        """Things in an image, by falling score.

        Args:
            image: [H, W, 3], sRGB.
            labels: different names to look for; each box gets the one that fits it best.
            threshold: lowest score, in [0, 1].
        """


def load_detector(
    plugin: str,
    model: str,
    device: torch.device,
    dtype: torch.dtype,
    query: str = "a photo of a {}",
    overlap: float = 1.0,
) -> Detector:
    """The detector of a checkpoint, frozen and in eval mode.

    Args:
        plugin: Name of the plugin, with which errors begin.
        model: Hub id or folder of an OWLv2 or a Grounding DINO.
        device: Where it computes.
        dtype: Dtype of its weights.
        query: What an OWLv2 is asked, with {} for the name; a Grounding DINO is asked the names alone.
        overlap: IoU with a better box of the same label above which a box is dropped; 1 keeps all.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of another kind.
    """
    folder = TransformersFolder(plugin, model, EXPECTED)
    folder.require((OWLV2, *GROUNDED))
    if folder.kind == OWLV2:
        return _Owlv2(Owlv2Network(folder, device, dtype), query, overlap)
    return _Grounded(folder, device, dtype, overlap)


class _Owlv2:
    """Every patch proposes a box and gets the query that fits it best, as in the library's post-processing."""

    def __init__(self, network: Owlv2Network, query: str, overlap: float) -> None:
        self.network, self.query, self.overlap = network, query, overlap

    @torch.no_grad()
    def __call__(self, image: Levels, labels: Sequence[str], threshold: float) -> list[Detection]:
        if not labels:
            return []
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.network.device, torch.float32) / 255
        patches = self.network.patches(self.network.fit(pixels))
        queries = self.network.queries([self.query.format(label) for label in labels])
        scores = self.network.logits(patches, queries[None])[0].float().sigmoid()
        # The image lies in the upper left corner of a square.
        boxes = self.network.boxes(patches)[0].float() * max(image.shape[:2])
        return _detections(scores, boxes, labels, threshold, image.shape[:2], self.overlap)


class _Grounded:
    """All names are one text, "a cat. a dog.", and the score of a name is the highest among its words.

    Grounding DINO (arXiv 2303.05499).
    """

    def __init__(self, folder: TransformersFolder, device: torch.device, dtype: torch.dtype, overlap: float) -> None:
        self.model: Any = folder.load_model(AutoModelForZeroShotObjectDetection, dtype).to(device)
        self.processor: Any = folder.load_image_processor()
        self.tokenizer: Any = folder.load_tokenizer()
        self.device, self.dtype, self.overlap = device, dtype, overlap

    @torch.no_grad()
    def __call__(self, image: Levels, labels: Sequence[str], threshold: float) -> list[Detection]:
        if not labels:
            return []
        height, width = image.shape[:2]
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        text = self.tokenizer(f"{'. '.join(name.lower() for name in labels)}.", return_offsets_mapping=True)
        ids = torch.tensor([text["input_ids"]], device=self.device)
        found = self.model(
            pixel_values=inputs["pixel_values"].to(self.dtype),
            pixel_mask=inputs["pixel_mask"],
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),
        )
        words = found.logits[0].float().sigmoid()  # [queries, tokens], 0 where there is no token
        scores = torch.stack([words[:, span].amax(1) for span in _spans(text["offset_mapping"], labels)], 1)
        boxes = found.pred_boxes[0].float() * torch.tensor([width, height, width, height], device=self.device)
        return _detections(scores, boxes, labels, threshold, (height, width), self.overlap)


def _spans(offsets: Sequence[tuple[int, int]], labels: Sequence[str]) -> list[list[int]]:
    """Indices of the tokens of each label in the text of all, each followed by a full stop and a space."""
    spans, start = [], 0
    for label in labels:
        end = start + len(label)
        spans.append([i for i, (first, last) in enumerate(offsets) if start <= first < last <= end])
        start = end + 2
    return spans


def _detections(
    scores: Tensor,
    boxes: Tensor,
    labels: Sequence[str],
    threshold: float,
    size: tuple[int, int],
    overlap: float,
) -> list[Detection]:
    """Detections from scores [P, Q] and boxes [P, 4] of centre and size in pixels, cut at the image's border."""
    best, which = scores.max(1)
    height, width = size
    found = []
    for i in torch.nonzero(best > threshold)[:, 0].tolist():
        x, y, w, h = boxes[i].tolist()
        left, right = (min(max(side, 0.0), float(width)) for side in (x - w / 2, x + w / 2))
        top, bottom = (min(max(side, 0.0), float(height)) for side in (y - h / 2, y + h / 2))
        found.append(Detection(labels[int(which[i])], float(best[i]), (left, top, right, bottom)))
    return without_repeats(found, overlap)
