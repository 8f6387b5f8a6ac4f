"""The `geneval` metric: whether an image has the things, numbers, colours and places that GenEval's prompt asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np
import torch
from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.plugin import PluginConfig
from refcore_plugins.metrics.geneval_facts import Requirement, requirements_of
from refcore_plugins.metrics.geneval_rules import judge
from refcore_plugins.models.coco_classes import COCO
from refcore_plugins.models.finished_images import covering
from refcore_plugins.models.instance_segmentation import Instance, InstanceSegmenter, coco_name
from refcore_plugins.models.transformers_towers import CLIP, TransformersTowers

COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES: Final = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)
GREY: Final = 0x99
"""Level of the background outside of a mask, #999999."""
COUNTING: Final = "counting"
"""The tag whose detections need a higher score."""
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}
)
"""Names in GenEval's prompts -> COCO's."""


class GenEval(Metric):
    """GenEval (arXiv 2310.11513): 1 where all that the prompt asks for is found, 0 otherwise.

    Things are found by Mask2Former; a colour is the nearest of ten to the thing's crop, by CLIP. The published detector
    is mmdet's training of the same architecture on the same data; transformers has another, so that values differ.
    """

    class Config(PluginConfig):
        checkpoint_fields: ClassVar[tuple[str, ...]] = ("model", "clip")
        model: str = Field(
            "facebook/mask2former-swin-small-coco-instance",
            description="A Mask2FormerForUniversalSegmentation of COCO's instances: hub id or folder.",
        )
        clip: str = Field("openai/clip-vit-large-patch14", description="A CLIPModel that tells colours.")
        threshold: float = Field(0.3, ge=0.0, le=1.0, description="Score that a thing must exceed.")
        counting_threshold: float = Field(0.9, ge=0.0, le=1.0, description='The same for prompts tagged "counting".')
        most: int = Field(16, ge=1, description="Maximum number of things of a class, by score.")

    name = "geneval"
    unit = "share of correct images, 0 or 1 each"
    needs: ClassVar[tuple[str, ...]] = ("include", "tag")

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`."""
        self.segmenter = InstanceSegmenter(self.name, self.config.model, device, dtype)
        self.towers = TransformersTowers(self.name, self.config.clip, (CLIP,), device, dtype)
        self.device = device
        self._colours: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. The parts are requirements, 1 where they hold and 0 where they do not."""
        return [self._one(image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    def _one(self, image: Levels, prompt: BenchmarkPrompt) -> Measurement:
        needed = self.read(prompt)
        c = self.config
        threshold = c.counting_threshold if prompt.facts["tag"] == COUNTING else c.threshold
        found: dict[str, list[Instance]] = {}
        for instance in self.segmenter(image, threshold):
            if instance.detection.score > threshold:
                found.setdefault(instance.detection.label, []).append(instance)
        boxes = {name: [instance.detection for instance in some[: c.most]] for name, some in found.items()}

        def colours(one: Requirement, indices: Sequence[int]) -> list[str]:
            return [self.colour(image, found[one.name][index], one.called or one.name) for index in indices]

        holds = judge(needed, boxes, colours)
        return Measurement(float(all(holds.values())), {name: float(one) for name, one in holds.items()})

    def read(self, prompt: BenchmarkPrompt) -> list[Requirement]:
        """What a prompt asks for, by COCO's names.

        Raises:
            RefcoreError: a fact is missing or has another form, or the detector does not know a class.
        """
        missing = [key for key in self.needs if key not in prompt.facts]
        if missing:
            raise RefcoreError(
                f'geneval cannot measure "{prompt.text}": the prompt has no {" and no ".join(missing)}; expected the '
                "facts of a line of evaluation_metadata.jsonl"
            )
        needed = requirements_of(prompt, lambda name: ALIASES.get(name, coco_name(name)))
        known = set(self.segmenter.names.values()) if hasattr(self, "segmenter") else set(COCO)
        for one in needed:
            if one.name not in known:
                raise RefcoreError(f'geneval: "{prompt.text}" asks for "{one.name}", which is no class of the detector')
            if one.colour is not None and one.colour not in COLOURS:
                raise RefcoreError(
                    f'geneval: "{prompt.text}" asks for the colour "{one.colour}"; expected one of {", ".join(COLOURS)}'
                )
        return needed

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """Whose detector it is."""
        if not prompts:
            return []
        return [
            "the published detector is mmdet's training of Mask2Former: how near values of another one come to "
            "published ones is not known"
        ]

    def colour(self, image: Levels, instance: Instance, name: str) -> str:
        """The colour of a thing: the nearest of `COLOURS` to its crop, with grey around its mask.

        `name` is that of its class in GenEval's prompts, "computer mouse", not the detector's.
        """
        left, top, right, bottom = (int(side) for side in instance.detection.box)
        shown = np.where(instance.mask[..., None], image, np.uint8(GREY))[top:bottom, left:right]
        features = self.towers.image(covering(shown, self.towers.input_size[0])[None].to(self.device))
        return COLOURS[int((features @ self._classifier(name).T).argmax())]

    def _classifier(self, name: str) -> torch.Tensor:
        """[10, D] unit features of the colours of a class: mean over the templates."""
        if name not in self._colours:
            texts = [template.format(colour=colour, name=name) for colour in COLOURS for template in TEMPLATES]
            mean = self.towers.text(texts).view(len(COLOURS), len(TEMPLATES), -1).mean(1)
            self._colours[name] = mean / mean.norm(dim=-1, keepdim=True)
        return self._colours[name]
