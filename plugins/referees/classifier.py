"""The `classifier` referee: any image classifier of timm, asked for one of its classes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, cast

import timm
import torch
from pydantic import Field
from timm.data import resolve_model_data_config
from torch import Tensor

from refcore.checkpoints import offline_error
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError, RefcoreError, unknown
from refcore.plugin import PluginConfig
from refcore_plugins.models.class_loss import ClassLoss, class_loss, class_probability
from refcore_plugins.models.imagenet_classes import ClassNames, target_of
from refcore_plugins.models.preprocess import Normalise
from refcore_plugins.models.untrusted import (
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
"""Files of weights in the order in which timm takes them from a folder."""
LOCAL = "local-dir:"
HUB = "hf-hub:"
IMAGENET = 1000
"""Classes of ImageNet-1k: a prompt may then name them, unless the checkpoint has names of its own."""


class Classifier(Referee):
    """A classifier of timm (Wightman, "PyTorch Image Models") as referee: `index`, or the prompt, says which class.

    A prompt is a class's number, one of the names that the checkpoint carries, or with 1,000 classes the names of
    ImageNet as the referee `imagenet` understands them. The loss is the negated logit, or the cross-entropy; not
    wanted, -log(1 - p).

    Views are judged whole, at the size that the model was trained for; timm's own evaluation looks at the middle part
    (its `crop_pct`), which a run's `resized_crop` does as well as chance allows.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"weights": "name a safetensors file, or null for timm's own"})
        model: str = Field(
            description="a timm name with its tag (resnet50.a1_in1k), hf-hub:ORG/NAME or local-dir:FOLDER"
        )
        weights: str | None = Field(
            None, description="safetensors file of the weights of a model given by name; null: timm's own"
        )
        index: int | None = Field(None, ge=0, description="the class, from 0; null: the prompt says it")
        loss: ClassLoss = Field("logit", description="what a wanted class minimises")

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
                network = timm.create_model(model, pretrained=False, checkpoint_path=str(Path(weights).expanduser()))
        except CheckpointError:
            raise
        except Exception as error:  # the library raises whatever its parts do; all of it means: no checkpoint
            if weights is None and not model.startswith(LOCAL):
                remedy = "connect to the network, or set `weights` to a file, or `model` to local-dir:FOLDER"
                raise offline_error(model, error, remedy) from error
            reason = reason_of(error)
            raise CheckpointError(
                f'classifier: the checkpoint of model "{model}"{f" in {weights}" if weights else ""} cannot be loaded: '
                f"{type(error).__name__}: {reason}; its files are corrupt or belong to another model"
            ) from error
        data = resolve_model_data_config(network)
        self.network = cast(Any, network.to(device, dtype).eval().requires_grad_(False))
        self.classes = int(self.network.num_classes)
        if self.config.index is not None and self.config.index >= self.classes:
            raise RefcoreError(
                f'classifier: index {self.config.index} is out of range: model "{model}" has {self.classes} classes'
            )
        self.labels = tuple(str(label) for label in (self.network.pretrained_cfg or {}).get("label_names") or ())
        self.input_size = (int(data["input_size"][1]), int(data["input_size"][2]))
        self.normalise = Normalise(data["mean"], data["std"], device)
        self.device, self.dtype = device, dtype

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt's target over the classes: `target` [P, C], rows sum to 1.

        Raises:
            RefcoreError: a prompt names no class, and there is no `index`.
        """
        target = torch.zeros(len(prompts), self.classes)
        notes = []
        for row, prompt in enumerate(prompts):
            weights, note = self._target(prompt)
            notes.append(note)
            for index, weight in weights.items():
                target[row, index] = weight
        wide = torch.promote_types(self.dtype, torch.float32)
        return Conditioning(tuple(prompts), {"target": target.to(self.device, wide)}, ("",) * len(notes), tuple(notes))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        return class_loss(
            self.logits(views), conditioning["target"].index_select(0, prompt_index), self.config.loss, wanted
        )

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] probability that the network gives to the classes asked for, each as far as it is asked for."""
        return class_probability(self.logits(images), conditioning["target"])

    def logits(self, views: Tensor) -> Tensor:
        """[N, C] class logits, float32 or wider, of views [N, 3, H, W] in [0, 1]; differentiable."""
        logits = self.network(self.normalise(views).to(self.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _target(self, prompt: str) -> tuple[dict[int, float], str]:
        """Weights of the classes that a prompt asks for, and what to tell of how it was understood."""
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
            f'classifier: the prompt "{prompt}" is no class of model "{self.config.model}", which carries no names; '
            f"set `index`, or let the prompt be a number from 0 to {self.classes - 1}"
        )

    def _check(self) -> None:
        """Raises for what can be told from the names alone, before the library tries to download anything."""
        model, weights = self.config.model, self.config.weights
        if weights is not None and not Path(weights).expanduser().is_file():
            raise CheckpointError(f"classifier: there is no weights file {weights}")
        if weights is not None:
            refuse_pickle(weights, self.name)
        if model.startswith(LOCAL):
            folder = Path(model.removeprefix(LOCAL))
            if not (folder / "config.json").is_file():
                state = "has no config.json" if folder.is_dir() else "does not exist"
                raise CheckpointError(f'classifier: the folder of model "{model}" {state}; give one that timm saved')
            if weights is None:
                refuse_pickled_folder(folder, model, self.name, WEIGHTS)
        elif not model.startswith(HUB) and not timm.is_model(model.split(".")[0]):
            near = difflib.get_close_matches(model.split(".")[0], timm.list_models(), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
            raise CheckpointError(f'classifier: unknown model "{model}"; {hint} (hub ids start with hf-hub:)')
