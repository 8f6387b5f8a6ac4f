"""A transformers checkpoint, folder or hub id: its architecture, frozen model, tokenizer and processors."""

from __future__ import annotations

import re
from collections.abc import Collection
from os.path import expanduser
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedConfig

from refcore.checkpoints import offline_error, resolve
from refcore.errors import CheckpointError, article
from refcore_plugins.models.loaded_weights import refuse_broken
from refcore_plugins.models.quiet_loading import quietly
from refcore_plugins.models.untrusted_checkpoints import (
    CONVERT,
    data_only,
    reason_of,
    refuse_code,
    refuse_pickled_folder,
)

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights files in transformers' order of preference."""

HEADS = r"(classifier|lm_head|cls|pooler)\."
"""Tensors that a class without this head leaves in the file."""


class TransformersFolder:
    """The checkpoint that a config's `model` names: embedded (playground:NAME), a local folder or a hub id.

    Args:
        plugin: Name of the plugin, with which errors begin.
        model: As in the config.
        expected: Description of the right checkpoint, for errors: "expected a CLIPModel, such as openai/clip-...".

    Raises:
        CheckpointError: the checkpoint lacks config.json, does not exist, cannot be downloaded, or names code.
    """

    def __init__(self, plugin: str, model: str, expected: str) -> None:
        self.plugin, self.model, self.expected = plugin, model, expected
        self.source = resolve(model)
        """Path of a folder, or a hub id."""
        folder = Path(expanduser(self.source))
        self.is_local = bool(model) and folder.is_dir()
        if self.is_local:
            self.source = str(folder)
            if not (folder / "config.json").is_file():
                raise CheckpointError(f'{plugin}: the folder of model "{model}" has no config.json; {expected}')
        elif model and folder.is_file():
            raise CheckpointError(
                f'{plugin}: model "{model}" is a file; set it to the folder that holds config.json, tokenizer and '
                f"weights in safetensors; {expected}"
            )
        elif folder.is_absolute() or self.source.startswith((".", "~")) or self.source.count("/") != 1:
            raise CheckpointError(f'{plugin}: the folder of model "{model}" does not exist; {expected}')
        try:
            if self.is_local:
                refuse_pickled_folder(folder, model, plugin, WEIGHTS)
            refuse_code(self.source, model, plugin)
            self.config, _ = PreTrainedConfig.get_config_dict(self.source, trust_remote_code=False)
            if not isinstance(self.config, dict):
                raise CheckpointError(
                    f'{plugin}: config.json of model "{model}" is not a JSON object; copy or download it again'
                )
        except Exception as error:
            raise self.failure(error) from error

    @property
    def kind(self) -> str:
        """The checkpoint's architecture, such as "CLIPModel"."""
        return str((self.config.get("architectures") or [self.config.get("model_type", "unknown")])[0])

    def require(self, kinds: Collection[str]) -> None:
        """Raises CheckpointError unless the checkpoint's architecture is one of these."""
        if self.kind not in kinds:
            raise CheckpointError(f'{self.plugin}: model "{self.model}" is {article(self.kind)}; {self.expected}')

    def load_model(
        self,
        architecture: Any,
        dtype: torch.dtype = torch.float32,
        attention: str | None = None,
        unused: str = "(?!)",
    ) -> Any:
        """The model, frozen and in eval mode, on the CPU.

        Args:
            architecture: A model class of transformers, or one of its auto classes.
            dtype: Dtype of the weights.
            attention: Implementation, "eager" or "sdpa"; None lets the library choose.
            unused: Regular expression of tensors that the class builds and never reads, which a file may lack.

        Raises:
            CheckpointError: files are missing or corrupt, or tensors are missing or have other shapes.
        """
        options = {} if attention is None else {"attn_implementation": attention}
        try:
            with quietly(), data_only():
                model, info = architecture.from_pretrained(
                    self.source,
                    dtype=dtype,
                    output_loading_info=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    **options,
                )
        except Exception as error:  # the library passes on its dependencies' errors, all of which mean: no checkpoint
            raise self.failure(error) from error
        if missing := sorted(name for name in info["missing_keys"] if not re.match(unused, name)):
            raise CheckpointError(
                f'{self.plugin}: the checkpoint of model "{self.model}" lacks {len(missing)} tensors '
                f"({', '.join(missing[:3])}, ...); expected a complete {self.kind}: copy or download it again"
            )
        where = f'{self.plugin}: the checkpoint of model "{self.model}"'
        refuse_broken(model, info["unexpected_keys"], where, "copy or download it again", HEADS)
        return model.eval().requires_grad_(False)

    def load_tokenizer(self, **options: Any) -> Any:
        """The tokenizer, which truncates text at its end."""
        tokenizer = self._load(AutoTokenizer, truncation_side="right", **options)
        if tokenizer.pad_token_id is None:
            raise CheckpointError(
                f'{self.plugin}: the tokenizer of model "{self.model}" has no padding token: its tokenizer_config.json '
                "is missing or of another model; copy or download it again"
            )
        return tokenizer

    def load_image_processor(self) -> Any:
        """The image processor, with the constants of the preprocessing."""
        return self._load(AutoImageProcessor)

    def load_processor(self) -> Any:
        """The combined processor of images and text, with its chat template."""
        return self._load(AutoProcessor)

    def failure(self, error: Exception) -> CheckpointError:
        """The library's error in one readable line."""
        if isinstance(error, CheckpointError):
            return error
        if not self.is_local and isinstance(error, OSError) and "use_safetensors" in str(error):
            return CheckpointError(
                f'{self.plugin}: model "{self.model}" has no safetensors, and weights in a pickle can run code when '
                f"they are read: download it and convert it; {CONVERT}"
            )
        if not self.is_local and isinstance(error, OSError):
            return offline_error(self.model, error)
        reason = reason_of(error)
        if isinstance(error, ImportError):
            return CheckpointError(
                f'{self.plugin}: model "{self.model}" needs a package that is not installed: {reason}'
            )
        return CheckpointError(
            f'{self.plugin}: the checkpoint of model "{self.model}" cannot be loaded: {type(error).__name__}: '
            f"{reason}; its files are corrupt or belong to another model: copy or download it again"
        )

    def _load(self, auto: Any, **options: Any) -> Any:
        try:
            with quietly(), data_only():
                return auto.from_pretrained(self.source, trust_remote_code=False, **options)
        except Exception as error:
            raise self.failure(error) from error
