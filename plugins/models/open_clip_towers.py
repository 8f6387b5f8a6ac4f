"""Image and text towers of an open_clip model: any CLIP or SigLIP that the library can load."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from safetensors import SafetensorError
from torch import Tensor

from refcore.checkpoints import offline_error, resolve
from refcore.errors import CheckpointError
from refcore_plugins.models.attention import fastest_attention, write_out_attention
from refcore_plugins.models.feature_similarity import unit
from refcore_plugins.models.loaded_weights import refuse_broken
from refcore_plugins.models.preprocess import Filter, Fit, Normalise
from refcore_plugins.models.truncated_text import truncated_text
from refcore_plugins.models.two_towers import PROMPTS_AT_ONCE, TextCleaning
from refcore_plugins.models.untrusted_checkpoints import (
    data_only,
    fetch_safetensors,
    reason_of,
    refuse_code,
    refuse_fields,
    refuse_pickle,
    refuse_pickled_folder,
)

LOCAL = "local-dir:"
HUB = "hf-hub:"
CONFIG = "open_clip_config.json"
"""Config of a model; a folder with this file is in open_clip's format."""
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Weights files in open_clip's order of preference."""


class OpenClipTowers:
    """See `refcore_plugins.models.two_towers.Towers`.

    Args:
        plugin: Name of the plugin, with which errors begin.
        model: An open_clip name (with `pretrained`), hf-hub:ORG/NAME, local-dir:FOLDER or playground:NAME.
        pretrained: Weights of a model given by name: a tag of open_clip, or a safetensors file.
        text: "own": prompts are cleaned as the checkpoint's own tokenizer cleans them (lower case, canonical
            punctuation); "as_given": they are not.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, of another kind, or names code.
    """

    def __init__(
        self,
        plugin: str,
        model: str,
        pretrained: str | None,
        device: torch.device,
        dtype: torch.dtype,
        text: TextCleaning = "own",
    ) -> None:
        self._plugin, self._name, self._pretrained = plugin, model, pretrained
        source = resolve(model)
        if source != model:
            source = LOCAL + source
        elif source.startswith(LOCAL):
            source = LOCAL + os.path.expanduser(source.removeprefix(LOCAL))
        self._check(source)
        try:
            config = self._refuse_code(source)
            with data_only(), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                loaded = open_clip.create_model(
                    source,
                    pretrained=pretrained,
                    require_pretrained=True,
                    weights_only=True,
                    force_quick_gelu=self._needs_quick_gelu(source),
                )
                # open_clip's own tokenizers do not have this option.
                trust = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
                self.tokenizer: Any = open_clip.get_tokenizer(source, **trust)
        except CheckpointError:
            raise
        except Exception as error:  # the library passes on its dependencies' errors, all of which mean: no checkpoint
            raise self._failure(source, error) from error
        refuse_broken(
            loaded, (), f'{plugin}: the checkpoint of model "{model}"', "copy or download its files again"
        )  # left-over tensors are the library's own error
        if text == "as_given":
            self.tokenizer.clean_fn = str
        self.remarks = tuple(
            dict.fromkeys(
                " ".join(str(each.message).split()) for each in caught if issubclass(each.category, UserWarning)
            )
        )
        if device.type == "cpu":
            write_out_attention(loaded)
        self.model: Any = loaded.to(device, dtype).eval().requires_grad_(False)
        self.dtype = dtype
        size = loaded.visual.image_size
        self.input_size = (size, size) if isinstance(size, int) else (size[0], size[1])
        preprocess = loaded.visual.preprocess_cfg
        self.normalise = Normalise(preprocess["mean"], preprocess["std"], device)
        self.fit = _fit(preprocess, self.input_size)
        wide = torch.promote_types(dtype, torch.float32)
        self.scale = self.model.logit_scale.to(wide).exp()
        bias = self.model.logit_bias
        self.bias = torch.zeros_like(self.scale) if bias is None else bias.to(wide)

    def image(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, D] unit features, float32 or wider, differentiable."""
        with fastest_attention(views.device):
            return unit(self.model.encode_image(self.normalise(views).to(self.dtype)))

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """P prompts -> [P, D] unit features, float32 or wider."""
        tokens = self.tokenizer(list(prompts)).to(self.scale.device)
        with fastest_attention(tokens.device):
            return unit(torch.cat([self.model.encode_text(part) for part in tokens.split(PROMPTS_AT_ONCE)]))

    def truncated(self, prompt: str) -> str:
        """See `Towers.truncated`."""
        context = self.tokenizer.context_length
        if hasattr(self.tokenizer, "tokenizer"):  # open_clip's wrapper of a transformers tokenizer
            return truncated_text(self.tokenizer.tokenizer, self.tokenizer.clean_fn(prompt), context)
        beyond = self.tokenizer.encode(prompt)[context - 2 :]  # two tokens mark the start and end of the text
        return str(self.tokenizer.decode(beyond)).strip()

    def finish_reading(self) -> None:
        """Drops the text tower, 1.4 GB in float32 for a ViT-H. Only CLIP and CustomTextCLIP models can do without."""
        if isinstance(self.model, open_clip.CustomTextCLIP):
            self.model.text = None
        elif isinstance(self.model, open_clip.CLIP):
            self.model.transformer = self.model.token_embedding = None

    def _check(self, source: str) -> None:
        """Raises for names that cannot work, before the library tries to download anything."""
        plugin, pretrained = self._plugin, self._pretrained
        if source.startswith(LOCAL):
            folder = Path(source.removeprefix(LOCAL))
            if not (folder / CONFIG).is_file():
                state = f"has no {CONFIG}" if folder.is_dir() else "does not exist"
                raise CheckpointError(
                    f'{plugin}: the folder of model "{self._name}" {state} ({folder}); '
                    "give a folder in open_clip's format, a model name with `pretrained`, or playground:clip"
                )
        elif not source.startswith(HUB):
            known = open_clip.list_models()
            if os.path.isfile(os.path.expanduser(source)):
                raise CheckpointError(
                    f'{plugin}: model "{self._name}" is a file of weights; set `model` to the name of its architecture '
                    "(see open_clip.list_models()), and `pretrained` to the file, which must be safetensors"
                )
            if source not in known:
                near = difflib.get_close_matches(source, known, 3)
                hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()"
                raise CheckpointError(
                    f'{plugin}: unknown model "{self._name}"; {hint} '
                    "(hub ids start with hf-hub:, folders with local-dir:, embedded checkpoints with playground:)"
                )
            tags = open_clip.list_pretrained_tags_by_model(source)
            if pretrained is None or (pretrained not in tags and not Path(pretrained).is_file()):
                choice = ", ".join(tags) or "(it has no tag)"
                raise CheckpointError(
                    f'{plugin}: model "{source}" needs `pretrained`, a safetensors file or one of {choice}; '
                    f"got {pretrained!r}"
                )
            if pretrained not in tags:
                refuse_pickle(pretrained, plugin)

    def _needs_quick_gelu(self, source: str) -> bool:
        """Whether a tag's weights were trained with QuickGELU: OpenAI's were, whose names in open_clip have GELU."""
        if source.startswith((LOCAL, HUB)) or self._pretrained is None:
            return False
        return bool(open_clip.get_pretrained_cfg(source, self._pretrained).get("quick_gelu", False))

    def _refuse_code(self, source: str) -> dict[str, Any]:
        """The model's config, `model_cfg`; raises where it, or another checkpoint that it names, names code."""
        plugin, name = self._plugin, self._name
        if source.startswith(LOCAL):
            folder = Path(source.removeprefix(LOCAL))
            refuse_code(folder, name, plugin)
            refuse_pickled_folder(folder, name, plugin, WEIGHTS)
        config: dict[str, Any] = open_clip.get_model_config(source)
        refuse_fields({"model_cfg": config}, CONFIG, name, plugin)
        if source.startswith(HUB):
            fetch_safetensors(source.removeprefix(HUB), WEIGHTS[:2], WEIGHTS[2], name, plugin)
        text = config["text_cfg"]
        others = {text.get("hf_model_name"), None if source.startswith(LOCAL) else text.get("hf_tokenizer_name")}
        for other in sorted(filter(None, others)):
            refuse_code(other, f"{name} ({other})", plugin)
        return config

    def _failure(self, source: str, error: Exception) -> CheckpointError:
        """The library's error in one readable line."""
        broken = isinstance(error, SafetensorError) or "state_dict" in str(error)
        remote = source.startswith(HUB) or (not source.startswith(LOCAL) and not Path(self._pretrained or "").is_file())
        if remote and not broken:
            if source.startswith(HUB):
                return offline_error(source.removeprefix(HUB), error)
            remedy = "connect to the network, or set `pretrained` to a file with the weights"
            return offline_error(f"{source} ({self._pretrained})", error, remedy)
        reason = reason_of(error)
        return CheckpointError(
            f'{self._plugin}: the checkpoint of model "{self._name}" cannot be loaded: {type(error).__name__}: '
            f"{reason}; its files are corrupt or belong to another model: copy or download it again"
        )


def _fit(preprocess: Mapping[str, Any], size: tuple[int, int]) -> Fit:
    """How open_clip's transform of this preprocessing config fits images (`image_transform`)."""
    name = str(preprocess.get("interpolation", "bicubic"))
    filter = cast(Filter, name) if name in ("nearest", "bilinear") else "bicubic"
    mode = preprocess.get("resize_mode", "shortest")
    if mode == "longest":
        level = preprocess.get("fill_color", 0) or 0
        levels = [level] * 3 if isinstance(level, int | float) else list(level)
        return Fit(size, "pad", filter, (levels[0] / 255, levels[1] / 255, levels[2] / 255))
    return Fit(size, "stretch" if mode == "squash" else "crop", filter, rounds=True)
