"""The `classifier` referee: any image classifier of timm."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

import timm
import torch
from pydantic import Field
from timm.data.config import resolve_model_data_config
from torch import Tensor

from refcore.checkpoints import offline_error
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError, RefcoreError, shortened, unknown
from refcore.plugin import PluginConfig
from refcore_plugins.models.classification_loss import ClassLoss, class_loss, class_probability, class_targets
from refcore_plugins.models.imagenet_classes import ClassNames, target_of
from refcore_plugins.models.loaded_weights import refuse_broken
from refcore_plugins.models.preprocess import Filter, Fit, Normalise
from refcore_plugins.models.untrusted_checkpoints import (
    fetch_safetensors,
    reason_of,
    refuse_code,
    refuse_pickle,
    refuse_pickled_folder,
)

WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
"""Weights files in timm's order of preference."""
LOCAL = "local-dir:"
HUB = "hf-hub:"
IMAGENET = 1000
"""Number of classes for which prompts may use ImageNet-1k's names, unless the checkpoint has its own."""


class Classifier(Referee):
    """A classifier of timm (Wightman, "PyTorch Image Models"); `index`, or the prompt, selects the class.

    A prompt is a class index, a class name of the checkpoint, or for 1,000 classes the ImageNet names that the referee
    `imagenet` knows. The loss is the negated logit, or the cross-entropy; not wanted, -log(1 - p).

    Views are judged whole, at the model's training size, and a finished image is cropped to the input's proportions
    alone. timm's own evaluation crops the centre of that (`crop_pct`), as `crop: published` does for scores; in a run,
    the augmentation `resized_crop` is the nearest to it.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"weights": "name a safetensors file, or null for timm's own"})
        model: str = Field(
            description="A timm name with its tag (resnet50.a1_in1k), hf-hub:ORG/NAME or local-dir:FOLDER."
        )
        weights: str | None = Field(
            None, description="Safetensors file with the weights of a model given by name; null: timm's own."
        )
        index: int | None = Field(None, ge=0, description="Index of the class, from 0; null: the prompt selects it.")
        loss: ClassLoss = Field("logit", description="Loss of a wanted prompt: negated logit or cross-entropy.")
        crop: Literal["whole", "published"] = Field(
            "whole",
            description="Finished images that are scored: whole, as large a centre as has the input's proportions; "
            "published: timm's `crop_pct` of that.",
        )

    name = "classifier"
    score_unit: ClassVar[str] = "probability"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        model, weights = self.config.model, self.config.weights
        self._check()
        try:
            if model.startswith((LOCAL, HUB)):
                refuse_code(model.partition(":")[2], model, self.name, on_hub=model.startswith(HUB))
            if model.startswith(HUB) and weights is None:
                fetch_safetensors(model.removeprefix(HUB), WEIGHTS[:1], WEIGHTS[1], model, self.name)
            if weights is None:
                network = timm.create_model(model, pretrained=True)
            else:
                network = timm.create_model(model, pretrained=False, checkpoint_path=str(Path(expanduser(weights))))
        except CheckpointError:
            raise
        except Exception as error:  # the library passes on its dependencies' errors, all of which mean: no checkpoint
            if weights is None and not model.startswith(LOCAL):
                remedy = "connect to the network, or set `weights` to a file, or `model` to local-dir:FOLDER"
                raise offline_error(model, error, remedy) from error
            reason = reason_of(error)
            raise CheckpointError(
                f'classifier: the checkpoint of model "{model}"{f" in {weights}" if weights else ""} cannot be loaded: '
                f"{type(error).__name__}: {reason}; its files are corrupt or belong to another model"
            ) from error
        refuse_broken(network, (), f'classifier: the checkpoint of model "{model}"', "copy or download it again")
        data = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        self.network = cast(Any, network.to(device, dtype).eval().requires_grad_(False))
        self.classes = int(self.network.num_classes)
        if self.config.index is not None and self.config.index >= self.classes:
            raise RefcoreError(
                f'classifier: index {self.config.index} is out of range: model "{model}" has {self.classes} classes'
            )
        self.labels = tuple(str(label) for label in (self.network.pretrained_cfg or {}).get("label_names") or ())
        self.input_size = (int(data["input_size"][1]), int(data["input_size"][2]))
        self.normalise = Normalise(data["mean"], data["std"], device)
        self.fit = _fit(data, self.input_size, self.config.crop == "published")
        self.device, self.dtype = device, dtype

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt's target over the classes, `target` [P, C], which sums to 1.

        Raises:
            RefcoreError: a prompt names no class, and `index` is null.
        """
        targets = [self._target(prompt) for prompt in prompts]
        wide = torch.promote_types(self.dtype, torch.float32)
        target = class_targets([weights for weights, _ in targets], self.classes).to(self.device, wide)
        return Conditioning(tuple(prompts), {"target": target}, notes=tuple(note for _, note in targets))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        return class_loss(
            self.logits(views), conditioning["target"].index_select(0, prompt_index), self.config.loss, wanted
        )

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] probabilities of the prompts' classes, each weighted relative to the largest weight."""
        return class_probability(self.logits(images), conditioning["target"])

    def logits(self, views: Tensor) -> Tensor:
        """[N, C] class logits, float32 or wider, of views [N, 3, H, W] in [0, 1]; differentiable."""
        logits: Tensor = self.network(self.normalise(views).to(self.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _target(self, prompt: str) -> tuple[dict[int, float], str]:
        """A prompt's class weights, and a note on how it was understood."""
        if self.config.index is not None:
            return {self.config.index: 1.0}, f"class: {self.config.index}, by `index`"
        if prompt.strip().isdecimal() and int(prompt) < self.classes:
            return {int(prompt): 1.0}, ""
        plain = [label.casefold() for label in self.labels]
        if prompt.strip().casefold() in plain:
            return {plain.index(prompt.strip().casefold()): 1.0}, ""
        if self.labels:
            raise unknown(f'class of model "{self.config.model}"', prompt, self.labels)
        if self.classes == IMAGENET:
            found = target_of(prompt, ClassNames.known(), free_text=False)
            return dict(found.weights), found.note
        raise RefcoreError(
            f'classifier: the prompt "{shortened(prompt)}" is not a class of model "{self.config.model}", which has '
            f"no names; set `index`, or use a number from 0 to {self.classes - 1} as the prompt"
        )

    def _check(self) -> None:
        """Raises for names that cannot work, before the library tries to download anything."""
        model, weights = self.config.model, self.config.weights
        if weights is not None and not Path(expanduser(weights)).is_file():
            raise CheckpointError(f"classifier: there is no weights file {weights}")
        if weights is not None:
            refuse_pickle(weights, self.name)
        if model.startswith(LOCAL):
            folder = Path(model.removeprefix(LOCAL))
            if not (folder / "config.json").is_file():
                state = "has no config.json" if folder.is_dir() else "does not exist"
                raise CheckpointError(f'classifier: the folder of model "{model}" {state}; give one saved by timm')
            if weights is None:
                refuse_pickled_folder(folder, model, self.name, WEIGHTS)
        elif Path(expanduser(model)).is_file():
            raise CheckpointError(
                f'classifier: model "{model}" is a file of weights; set `model` to the name of its architecture (see '
                "timm.list_models()), and `weights` to the file, which must be safetensors"
            )
        elif not model.startswith(HUB) and not timm.is_model(model.split(".")[0]):
            near = difflib.get_close_matches(model.split(".")[0], timm.list_models(), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
            raise CheckpointError(f'classifier: unknown model "{model}"; {hint} (hub ids start with hf-hub:)')


def _fit(data: Mapping[str, Any], size: tuple[int, int], published: bool) -> Fit:
    """How timm's evaluation transform (`transforms_imagenet_eval`) fits images, with its `crop_pct` or without."""
    name = str(data.get("interpolation", "bicubic"))
    filter = cast(Filter, name) if name in ("nearest", "bilinear") else "bicubic"
    mode = data.get("crop_mode", "center")
    if mode == "border":
        red, green, blue = (round(255 * level) / 255 for level in data["mean"])
        return Fit(size, "pad", filter, (red, green, blue))
    if mode == "squash":
        return Fit(size, "stretch", filter)
    share = float(data.get("crop_pct") or 1.0)
    shorter = math.floor(size[0] / share) if published and share < 1 and size[0] == size[1] else None
    return Fit(size, "crop", filter, rounds=True, shorter=shorter)
