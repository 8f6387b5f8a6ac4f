"""The `onnx` referee: a classifier or detector in an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError, RefcoreError, nearest, shortened
from refcore.plugin import PluginConfig
from refcore.text_files import read_text
from refcore_plugins.models import onnx_file
from refcore_plugins.models.classification_loss import ClassLoss, class_loss, class_probability, class_targets
from refcore_plugins.models.coco_classes import COCO, OF_IMAGENET, SYNONYMS
from refcore_plugins.models.imagenet_classes import ClassNames, target_of
from refcore_plugins.models.log_complement import IMPOSSIBLE
from refcore_plugins.models.preprocess import Fit, Normalise

Head = Literal["logits", "probabilities", "fastestdet"]
LEAST = 1e-12
"""Minimum probability in a logarithm; below it, the gradient is 0."""
BOX = 5
"""Channels of FastestDet before the classes: objectness and four of the box."""


class Onnx(Referee):
    """A classifier or detector in an ONNX file, by onnx2torch. Nothing in the file is run but ONNX's own operations.

    Heads: `logits` [N, C]; `probabilities` [N, C], of a file that ends in a softmax; `fastestdet` [N, 5 + C, H, W],
    where the probability of a class is the largest product of objectness and class over the cells.

    A prompt is a label, or names several with commas or "and". For labels `imagenet`, the names are those of the
    referee `imagenet`; for `coco`, an ImageNet class also stands for the COCO class that it is a kind of: a golden
    retriever for a dog.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"file": "name an ONNX file"})
        file: str = Field(description="Path of the ONNX file.")
        head: Head = Field("logits", description="logits, probabilities (of a file with softmax), or fastestdet.")
        labels: Literal["imagenet", "coco"] | list[str] = Field(
            "imagenet", description="Labels in the network's order: a list, imagenet (1,000) or coco (80)."
        )
        labels_file: str | None = Field(None, description="Text file with one label a line, in place of `labels`.")
        output: str | None = Field(None, description="Name of the output that counts; null: the first.")
        size: int | None = Field(
            None, ge=16, le=2048, description="Side of the views in pixels; null: as the file says."
        )
        layout: Literal["nchw", "nhwc"] = Field("nchw", description="Order of the input's dimensions.")
        channels: Literal["rgb", "bgr"] = Field("rgb", description="Order of the input's channels.")
        scale: float = Field(1.0, gt=0, description="Factor on levels in [0, 1], before mean and std: 255 for bytes.")
        mean: tuple[float, float, float] = Field(
            (0.0, 0.0, 0.0), description="Subtracted from the scaled levels, in the order of `channels`."
        )
        std: tuple[float, float, float] = Field(
            (1.0, 1.0, 1.0), description="Then divided by, in the order of `channels`."
        )
        loss: ClassLoss = Field(
            "logit", description="Loss of a wanted prompt: negated logit (of a detector: log-odds) or cross-entropy."
        )

        @model_validator(mode="after")
        def _no_zero(self) -> Self:
            if 0 in self.std:
                raise ValueError(f"std is {list(self.std)}; expected no 0")
            return self

    name = "onnx"
    score_unit: ClassVar[str] = "probability"
    requires = MappingProxyType(dict.fromkeys(onnx_file.MODULES, onnx_file.REMEDY))

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`; the file is read as far as to refuse what is more than data, and prompts are matched."""
        super().check(prompts)
        onnx_file.read(self._file)
        labels = self._labels()
        for prompt in prompts:
            self._target(prompt, labels)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        self.device, self.dtype = device, dtype
        network = onnx_file.load(self._file, self.config.output)
        self.input_size = self._size(network.shape)
        self.fit = Fit(self.input_size, "crop")
        self.network = network.to(device, dtype)
        self.normalise = Normalise(self.config.mean, self.config.std, device)
        self.labels = self._labels()
        with torch.no_grad():
            found = self.evidence(torch.full((2, 3, *self.input_size), 0.5, device=device))
        if found.shape != (2, len(self.labels)):
            raise CheckpointError(
                f"onnx: {self.config.file} tells {found.shape[1]} classes apart, but there are {len(self.labels)} "
                "labels; set `labels` or `labels_file`"
            )

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt's target over the labels, `target` [P, C], which sums to 1.

        Raises:
            RefcoreError: a prompt names no label.
        """
        targets = [self._target(prompt, self.labels) for prompt in prompts]
        target = class_targets([weights for weights, _ in targets], len(self.labels)).to(self.device)
        return Conditioning(tuple(prompts), {"target": target}, notes=tuple(note for _, note in targets))

    def evidence(self, views: Tensor) -> Tensor:
        """[N, C] of views [N, 3, H, W] in [0, 1], float32: a classifier's logits, a detector's log-probabilities.

        Raises:
            CheckpointError: the file's output is not that of the head.
        """
        x = views if self.config.channels == "rgb" else views.flip(1)
        x = self.normalise(self.config.scale * x).to(self.dtype)
        raw: Tensor = self.network(x if self.config.layout == "nchw" else x.permute(0, 2, 3, 1))
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        wanted = 4 if self.config.head == "fastestdet" else 2
        flat = raw.flatten(1) if wanted == 2 and raw.numel() == raw.shape[0] * raw.shape[1] else raw
        if flat.ndim != wanted or (wanted == 4 and flat.shape[1] <= BOX):
            expected = "[N, 5 + C, H, W]" if wanted == 4 else "[N, C]"
            raise CheckpointError(f"onnx: {self.config.file} returns {list(raw.shape)}; expected {expected}")
        if self.config.head == "logits":
            return flat
        if self.config.head == "probabilities":
            return flat.clamp(min=LEAST).log()
        both = flat[:, :1] * flat[:, BOX:]
        return both.amax((2, 3)).clamp(LEAST, 1.0).log()

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`. A detector's classes are independent: several wanted ones are all wanted."""
        evidence = self.evidence(views)
        target = conditioning.select(prompt_index)["target"].to(evidence.dtype)
        if self.config.head != "fastestdet":
            return class_loss(evidence, target, self.config.loss, wanted)
        others = torch.log1p(-evidence.exp().clamp(max=1 - 1e-6)).clamp(min=IMPOSSIBLE)
        if not wanted:
            return -(target / target.amax(1, keepdim=True) * others).sum(1)
        return -(target * (evidence - others if self.config.loss == "logit" else evidence)).sum(1)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] probabilities: of a classifier, as the referee `imagenet`; of a detector, the mean over the classes."""
        evidence, target = self.evidence(images), conditioning["target"]
        if self.config.head != "fastestdet":
            return class_probability(evidence, target)
        return (evidence.exp() * target).sum(1)

    @torch.no_grad()
    def rank(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] int64 rank, from 1, of the class with the largest target among all; the best, if several share it."""
        evidence, target = self.evidence(images), conditioning["target"]
        best = evidence.masked_fill(target < target.amax(1, keepdim=True), -torch.inf).amax(1, keepdim=True)
        return (evidence > best).sum(1) + 1

    @torch.no_grad()
    def guess(self, images: Tensor) -> list[str]:
        """Label of the most likely class of each image [B, 3, H, W]."""
        return [self.labels[index] for index in self.evidence(images).argmax(1).tolist()]

    @property
    def _file(self) -> Path:
        return Path(expanduser(self.config.file))

    def _size(self, shape: tuple[int | None, ...]) -> tuple[int, int]:
        """(height, width) in pixels by the config and the file, which must agree."""
        channels, height, width = shape[1:] if self.config.layout == "nchw" else (shape[3], shape[1], shape[2])
        if channels not in (3, None):
            raise CheckpointError(
                f"onnx: {self.config.file} takes {channels} channels; expected 3 (layout {self.config.layout})"
            )
        asked = self.config.size
        for side in (height, width):
            if side is not None and asked is not None and side != asked:
                raise CheckpointError(f"onnx: size is {asked}, but {self.config.file} takes {height} x {width}")
        height, width = height or asked, width or asked
        if height is None or width is None:
            raise CheckpointError(f"onnx: {self.config.file} leaves its input's size open; set `size`")
        return height, width

    def _labels(self) -> tuple[str, ...]:
        if self.config.labels_file is not None:
            try:
                lines = read_text(Path(expanduser(self.config.labels_file))).splitlines()
            except (OSError, ValueError) as error:
                raise CheckpointError(f"onnx: labels_file {self.config.labels_file} cannot be read: {error}") from error
            return tuple(line.strip() for line in lines if line.strip())
        if self.config.labels == "imagenet":
            return ClassNames.known().names
        return COCO if self.config.labels == "coco" else tuple(self.config.labels)

    def _target(self, prompt: str, labels: tuple[str, ...]) -> tuple[dict[int, float], str]:
        """A prompt's class weights, and a note on how it was understood."""
        if self.config.labels_file is None and self.config.labels == "imagenet":
            found = target_of(prompt, ClassNames.known(), free_text=False)
            return dict(found.weights), found.note
        plain = [label.casefold() for label in labels]
        for parts in ([prompt], prompt.split(","), prompt.replace(" and ", ",").split(",")):
            named = [self._index(part, plain) for part in parts if part.strip()]
            known = [index for index in named if index is not None]
            if named and len(known) == len(named):
                classes = list(dict.fromkeys(known))
                listed = ", ".join(labels[index] for index in classes)
                note = "" if listed.casefold() == prompt.strip().casefold() else f"labels: {listed}"
                return dict.fromkeys(classes, 1 / len(classes)), note
        guess = nearest(prompt, labels)
        raise RefcoreError(
            f'onnx: the prompt "{shortened(prompt)}" names no label of {self.config.file}'
            + (f'; did you mean "{guess}"?' if guess else f"; known: {', '.join(labels[:8])}, ...")
        )

    def _index(self, name: str, plain: Sequence[str]) -> int | None:
        word = " ".join(name.casefold().replace("_", " ").split()).strip(" .!")
        for article in ("a ", "an ", "the "):
            word = word.removeprefix(article)
        if word in plain:
            return list(plain).index(word)
        if self.config.labels_file is not None or self.config.labels != "coco":
            return None
        if word in SYNONYMS:
            return COCO.index(SYNONYMS[word])
        kinds = {OF_IMAGENET.get(index) for index in ClassNames.known().find(name)}
        return kinds.pop() if len(kinds) == 1 else None
