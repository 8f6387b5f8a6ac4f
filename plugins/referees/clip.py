"""The `clip` referee: the cosine between image and prompt in a CLIP of open_clip."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import open_clip
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from refcore.checkpoint import offline_error, resolve
from refcore.plugin import CheckpointError, PluginConfig
from refcore.referee import Reading, Referee
from refcore_plugins.referees.attention import fastest_attention, write_out_attention
from refcore_plugins.referees.preprocess import Normalise
from refcore_plugins.referees.text import text_beyond

LOCAL = "local-dir:"
HUB = "hf-hub:"
PROMPTS_AT_ONCE = 256
"""Prompts in one pass of the text tower, which bounds its memory."""


class Clip(Referee):
    """Contrastive language-image similarity (CLIP, arXiv 2103.00020); any model that open_clip can load.

    Wanted, the loss is 1 - cos (in [0, 2]) or half the squared angle (in [0, pi^2 / 2]). Not wanted, it is the
    part of the cosine above `absent_below` (or the angle's like): bounded below by 0, and with no gradient once the
    prompt is no longer seen in the image. A CLIP has no probability of a match, so there is no -log(1 - p) to take; and
    1 + cos would go on pushing an image without a trace of the prompt, towards features of nothing.
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:clip",
            description="an open_clip name (with `pretrained`), hf-hub:ORG/NAME, local-dir:FOLDER or playground:clip",
        )
        pretrained: str | None = Field(
            None, description="weights of a model given by name: a tag that open_clip knows, or a file"
        )
        loss: Literal["cosine", "spherical"] = Field(
            "cosine", description="cosine: 1 - cos; spherical: half the squared angle"
        )
        absent_below: float = Field(
            0.0,
            ge=-1.0,
            lt=1.0,
            description="with wanted: false, the cosine at which the prompt counts as absent and the loss is 0",
        )

    name = "clip"
    bounded_above: ClassVar[bool] = True
    score_unit: ClassVar[str] = "cosine"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. The model is in `dtype`; features are compared in float32 (float64 with float64)."""
        source = resolve(self.config.model)
        if source != self.config.model:
            source = LOCAL + source
        elif source.startswith(LOCAL):
            source = LOCAL + os.path.expanduser(source.removeprefix(LOCAL))
        self._check(source)
        try:
            model = open_clip.create_model(source, pretrained=self.config.pretrained, require_pretrained=True)
            self.tokenizer: Any = open_clip.get_tokenizer(source)
        except Exception as error:  # the library raises whatever its parts do; all of it means: no checkpoint
            raise self._failure(source, error) from error
        if device.type == "cpu":
            write_out_attention(model)
        self.model: Any = model.to(device, dtype).eval().requires_grad_(False)
        self.device, self.dtype = device, dtype
        size = model.visual.image_size
        self.input_size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.normalise = Normalise(model.visual.preprocess_cfg["mean"], model.visual.preprocess_cfg["std"], device)

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Reading:
        """Unit text features, tensor `text` [P, D], and the end of each prompt that is beyond the context."""
        tokens = self.tokenizer(list(prompts)).to(self.device)
        with fastest_attention(self.device):
            text = torch.cat([self.model.encode_text(part) for part in tokens.split(PROMPTS_AT_ONCE)])
        cut = tuple(self._unread(prompt) for prompt in prompts)
        return Reading(tuple(prompts), {"text": _unit(text)}, cut)

    def judge(self, views: Tensor, reading: Reading, rows: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        cosine = self._cosine(views, reading["text"].index_select(0, rows))
        absent = torch.full_like(cosine, self.config.absent_below)
        distance = _half_square_angle if self.config.loss == "spherical" else _one_minus
        return distance(cosine) if wanted else (distance(absent) - distance(cosine)).clamp(min=0)

    @torch.no_grad()
    def score(self, images: Tensor, reading: Reading) -> Tensor:
        """The cosine of each image and its prompt, in [-1, 1]."""
        return self._cosine(images, reading["text"])

    def _cosine(self, views: Tensor, text: Tensor) -> Tensor:
        """[N] cosines of views [N, 3, H, W] and unit text features [N, D]."""
        with fastest_attention(views.device):
            image = self.model.encode_image(self.normalise(views).to(self.dtype))
        return (_unit(image) * text).sum(-1)

    def _unread(self, prompt: str) -> str:
        context = self.tokenizer.context_length
        if hasattr(self.tokenizer, "tokenizer"):  # a transformers tokenizer in open_clip's wrapping
            return text_beyond(self.tokenizer.tokenizer, self.tokenizer.clean_fn(prompt), context)
        beyond = self.tokenizer.encode(prompt)[context - 2 :]  # two tokens are start and end of text
        return str(self.tokenizer.decode(beyond)).strip()

    def _check(self, source: str) -> None:
        """Raises for what can be told from the names alone, before the library tries to download anything."""
        pretrained = self.config.pretrained
        if source.startswith(LOCAL):
            folder = Path(source.removeprefix(LOCAL))
            if not (folder / "open_clip_config.json").is_file():
                state = "has no open_clip_config.json" if folder.is_dir() else "does not exist"
                raise CheckpointError(
                    f'clip: the folder of model "{self.config.model}" {state} ({folder}); '
                    "give a folder that open_clip saved, a model name with `pretrained`, or playground:clip"
                )
        elif not source.startswith(HUB):
            known = open_clip.list_models()
            if source not in known:
                near = difflib.get_close_matches(source, known, 3)
                hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()"
                raise CheckpointError(
                    f'clip: unknown model "{self.config.model}"; {hint} '
                    "(hub ids start with hf-hub:, folders with local-dir:, embedded checkpoints with playground:)"
                )
            tags = open_clip.list_pretrained_tags_by_model(source)
            if pretrained is None or (pretrained not in tags and not Path(pretrained).is_file()):
                choice = ", ".join(tags) or "(it has no tag)"
                raise CheckpointError(
                    f'clip: model "{source}" needs `pretrained`, a weights file or one of {choice}; got {pretrained!r}'
                )

    def _failure(self, source: str, error: Exception) -> CheckpointError:
        """One readable line for what the library raised."""
        broken = isinstance(error, SafetensorError) or "state_dict" in str(error)
        remote = source.startswith(HUB) or (
            not source.startswith(LOCAL) and not Path(self.config.pretrained or "").is_file()
        )
        if remote and not broken:
            if source.startswith(HUB):
                return offline_error(source.removeprefix(HUB), error)
            remedy = "connect to the network, or set `pretrained` to a file with the weights"
            return offline_error(f"{source} ({self.config.pretrained})", error, remedy)
        reason = " ".join(str(error).split())
        return CheckpointError(
            f'clip: the checkpoint of model "{self.config.model}" cannot be loaded: {type(error).__name__}: '
            f"{reason[:300]}; its files are corrupt or belong to another model: copy or download it again"
        )


def _unit(features: Tensor) -> Tensor:
    """Unit vectors along the last dimension, in float32 (float64 stays)."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _one_minus(cosine: Tensor) -> Tensor:
    return 1 - cosine


def _half_square_angle(cosine: Tensor) -> Tensor:
    """Half the squared angle of a cosine, kept off +-1, where the derivative of acos is infinite."""
    return 0.5 * cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos().square()
