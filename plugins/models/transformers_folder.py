"""A checkpoint of transformers, folder or hub id: its kind, its frozen model, tokenizer and processor, clear errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from refcore.checkpoints import offline_error, resolve
from refcore.errors import CheckpointError, article
from refcore_plugins.models.untrusted import CONVERT, data_only, reason_of, refuse_code, refuse_pickled_folder

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files of weights in the order in which transformers looks for them."""


class TransformersFolder:
    """What a config's `model` names: an embedded checkpoint, a local folder or a hub id.

    Args:
        plugin: its name, which errors begin with.
        model: as the config has it.
        expected: what it should have been, for errors: "expected a CLIPModel, such as openai/clip-vit-base-patch32".

    Raises:
        CheckpointError: `model` is a folder without config.json, does not exist, cannot be downloaded, or names code.
    """

    def __init__(self, plugin: str, model: str, expected: str) -> None:
        self.plugin, self.model, self.expected = plugin, model, expected
        self.source = resolve(model)
        """A folder or a hub id."""
        folder = Path(self.source).expanduser()
        self.is_local = bool(model) and folder.is_dir()
        if self.is_local:
            self.source = str(folder)
            if not (folder / "config.json").is_file():
                raise CheckpointError(f'{plugin}: the folder of model "{model}" has no config.json; {expected}')
        elif folder.is_absolute() or self.source.startswith((".", "~")) or self.source.count("/") != 1:
            raise CheckpointError(f'{plugin}: the folder of model "{model}" does not exist; {expected}')
        try:
            if self.is_local:
                refuse_pickled_folder(folder, model, plugin, WEIGHTS)
            refuse_code(self.source, model, plugin)
            self.config, _ = PreTrainedConfig.get_config_dict(self.source, trust_remote_code=False)
        except Exception as error:
            raise self.failure(error) from error

    @property
    def kind(self) -> str:
        """The architecture that the checkpoint was saved from, "CLIPModel" for example."""
        return str((self.config.get("architectures") or [self.config.get("model_type", "unknown")])[0])

    def require(self, kinds: Collection[str]) -> None:
        """Raises a CheckpointError unless the checkpoint is one of these architectures."""
        if self.kind not in kinds:
            raise CheckpointError(f'{self.plugin}: model "{self.model}" is {article(self.kind)}; {self.expected}')

    def load_model(self, architecture: Any, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Any:
        """The model, frozen and in eval mode, on the CPU.

        Args:
            architecture: the class of transformers, or one of its auto classes.
            dtype: of the weights.
            attention: the implementation, "eager" or "sdpa"; None lets the library choose.

        Raises:
            CheckpointError: files are missing or corrupt, or tensors are missing or of other shapes.
        """
        options = {} if attention is None else {"attn_implementation": attention}
        try:
            with _quiet(), data_only():
                model, info = architecture.from_pretrained(
                    self.source,
                    dtype=dtype,
                    output_loading_info=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    **options,
                )
        except Exception as error:  # the library raises whatever its parts do; all of it means: no checkpoint
            raise self.failure(error) from error
        if missing := sorted(info["missing_keys"]):
            raise CheckpointError(
                f'{self.plugin}: the checkpoint of model "{self.model}" lacks {len(missing)} tensors '
                f"({', '.join(missing[:3])}, ...); expected a complete {self.kind}: copy or download it again"
            )
        return model.eval().requires_grad_(False)

    def load_tokenizer(self, **options: Any) -> Any:
        """The tokenizer, cutting long text at its end."""
        return self._load(AutoTokenizer, truncation_side="right", **options)

    def load_image_processor(self) -> Any:
        """The image processor, which knows the constants of the preprocessing."""
        return self._load(AutoImageProcessor)

    def load_processor(self) -> Any:
        """The processor of images and text together, with its chat template."""
        return self._load(AutoProcessor)

    def failure(self, error: Exception) -> CheckpointError:
        """One readable line for what the library raised."""
        if isinstance(error, CheckpointError):
            return error
        if not self.is_local and isinstance(error, OSError) and "use_safetensors" in str(error):
            return CheckpointError(
                f'{self.plugin}: model "{self.model}" has no safetensors, and weights in a pickle can run code when '
                f"they are read: download it, and make safetensors of it; {CONVERT}"
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
            with data_only():
                return auto.from_pretrained(self.source, trust_remote_code=False, **options)
        except Exception as error:
            raise self.failure(error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own progress bar and load report; what matters in them is reported by `load_model`."""
    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
