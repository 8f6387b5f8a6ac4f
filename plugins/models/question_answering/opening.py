"""The question-answering model of a checkpoint, by its architecture."""

from __future__ import annotations

import torch

from refcore_plugins.models.question_answering.answering import Answering
from refcore_plugins.models.question_answering.blip import BLIP, BlipAnswering
from refcore_plugins.models.question_answering.chat import ChatAnswering
from refcore_plugins.models.question_answering.patches import KINDS, PatchAnswering
from refcore_plugins.models.transformers_folder import TransformersFolder

MODELS = (
    f"a {BLIP}, a Qwen2-VL, Qwen2.5-VL or Qwen3-VL, or another image-text-to-text model whose processor makes one "
    "square image (LLaVA 1.5, PaliGemma)"
)
"""For descriptions of the field `model`."""


def folder_of(plugin: str, model: str) -> TransformersFolder:
    """The checkpoint of a question-answering model; `plugin` is named in errors."""
    return TransformersFolder(
        plugin, model, f"expected a {BLIP} or an image-text-to-text model, such as llava-hf/llava-1.5-7b-hf"
    )


def open_answering(
    folder: TransformersFolder,
    answer: str | None,
    against: str | None,
    size: int | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Answering:
    """The loaded model.

    Args:
        folder: of `folder_of`.
        answer: Whose probability is asked for; None: "yes" for a BLIP, "Yes" for other models.
        against: Another answer that it is compared with, if any.
        size: Side of the input in pixels; None: the checkpoint's own.
        device: of the model.
        dtype: of the model.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or of a kind that is not supported.
        RefcoreError: the model takes no such size.
    """
    opened = BlipAnswering if folder.kind == BLIP else PatchAnswering if folder.kind in KINDS else ChatAnswering
    return opened(folder, answer, against, size, device, dtype)
