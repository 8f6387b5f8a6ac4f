"""A diffusers folder, local or on the hub, and its components: JSON files and frozen models."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from logging import CRITICAL
from os.path import expanduser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from diffusers.utils import is_accelerate_available, logging
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import nn

from refcore.checkpoints import Download, offline_error, resolve
from refcore.errors import CheckpointError
from refcore.text_files import read_json
from refcore_plugins.models.loaded_weights import refuse_broken
from refcore_plugins.models.quiet_loading import quietly
from refcore_plugins.models.untrusted_checkpoints import (
    CONVERT,
    data_only,
    reason_of,
    refuse_code,
    refuse_fields,
    refuse_pickled_folder,
    without_code,
)

ModelT = TypeVar("ModelT", bound=nn.Module)

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Ends of files that torch pickles."""
FROM_SINGLE_FILE = (
    "python -c 'import sys; from diffusers import StableDiffusionPipeline as Model; "
    "Model.from_single_file(sys.argv[1]).save_pretrained(sys.argv[2])'"
)
"""Command that makes a folder of a single file."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


AUTOENCODER = {
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
PIPELINE = {
    "text_encoder": "text_encoder/model.safetensors",
    "unet": "unet/diffusion_pytorch_model.safetensors",
    **AUTOENCODER,
}
"""Component -> the file of its weights, the only ones that are read of a Stable Diffusion folder."""
CLIP_L, KL_AUTOENCODER, T5_XXL = 123_060_480, 83_653_863, 4_762_310_656
XL = {"text_encoder": CLIP_L, "text_encoder_2": 694_659_840, "unet": 2_567_463_684, "vae": KL_AUTOENCODER}
VERSION_1 = {"text_encoder": CLIP_L, "unet": 859_520_964, "vae": KL_AUTOENCODER}
VERSION_2 = {"text_encoder": 340_387_840, "unet": 865_910_724, "vae": KL_AUTOENCODER}
PARTS: dict[str, dict[str, int]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": VERSION_1,
    "CompVis/stable-diffusion-v1-4": VERSION_1,
    "stabilityai/stable-diffusion-2-1-base": VERSION_2,
    "stabilityai/sd-turbo": VERSION_2,
    "stabilityai/sdxl-turbo": XL,
    "stabilityai/stable-diffusion-xl-base-1.0": XL,
    "madebyollin/sdxl-vae-fp16-fix": {"vae": KL_AUTOENCODER},
    "ByteDance/Hyper-SD": {"unet": XL["unet"]},
    "PixArt-alpha/PixArt-XL-2-1024-MS": {
        "text_encoder": T5_XXL,
        "transformer": 611_349_152,
        "vae": KL_AUTOENCODER,
    },
    "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers": {
        "text_encoder": 2_614_341_888,
        "transformer": 593_501_216,
        "vae": 312_250_275,
    },
    "black-forest-labs/FLUX.1-schnell": {
        "text_encoder": CLIP_L,
        "text_encoder_2": T5_XXL,
        "transformer": 11_891_178_560,
        "vae": 83_819_683,
    },
}
"""Hub id -> component -> its parameters, counted on the architecture."""
TEXT_ENCODERS = frozenset({"text_encoder", "text_encoder_2"})
"""Components that only read the prompts."""


def download(model: str, components: Mapping[str, str]) -> Download:
    """What is read of some components of a Stable Diffusion folder on the hub."""
    counts = PARTS.get(model, {})
    return Download(
        ("*.json", "tokenizer/*", *components.values()) if "unet" in components else ("*.json", *components.values()),
        {name: counts[name] for name in components if name in counts},
        TEXT_ENCODERS,
    )


def generator_download(model: str, replaced: frozenset[str] = frozenset()) -> Download:
    """What is read of a generator's folder on the hub, of any family.

    Args:
        model: hub id.
        replaced: components that come from elsewhere: "unet" stands for a transformer, too.
    """
    replaced |= {"transformer"} if "unet" in replaced else set()
    counts = {name: n for name, n in PARTS.get(model, {}).items() if name not in replaced}
    # Not `*.safetensors`, which would bring the same weights in half precision, too.
    files = ["text_encoder*/model.safetensors", "text_encoder*/model-*.safetensors"]
    for name in ("unet", "transformer", "vae"):
        if name not in replaced:
            files += [f"{name}/diffusion_pytorch_model.safetensors", f"{name}/diffusion_pytorch_model-*.safetensors"]
    return Download(("*.json", "tokenizer*/*", *files), counts, TEXT_ENCODERS)


class DiffusersFolder:
    """The checkpoint that a config's `model` names: embedded (playground:NAME), a local folder or a hub id.

    Components are read one by one, so safety checkers and feature extractors are never loaded.

    Raises:
        CheckpointError: `model` is none of the three, or its files name code.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        """As in the config; errors quote it."""
        self.source = resolve(model)
        """Path of a folder, or a hub id."""
        path = Path(expanduser(self.source))
        self.is_local = bool(self.source) and path.is_dir()  # "" would be the current folder
        if self.is_local:
            self.source = str(path.resolve())
            refuse_code(path, model)
        elif path.is_file():
            raise single_file(path, model)
        elif not HUB_ID.fullmatch(self.source):
            raise CheckpointError(f'model "{model}" is neither an existing folder nor a hub id such as "owner/name"')

    def json(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file such as "unet/config.json"; None where the folder has no such file.

        Raises:
            CheckpointError: it is not a JSON object, it names code, or the hub cannot be reached.
        """
        if self.is_local:
            path = Path(self.source) / name
            if not path.is_file():
                return None
        else:
            try:
                path = Path(hf_hub_download(self.source, name))
            except LocalEntryNotFoundError as error:  # offline: only the cache counts
                if self._is_cached():
                    return None
                raise offline_error(self.model, error) from error
            except EntryNotFoundError:
                return None
            except Exception as error:  # the hub's client raises many classes, those of its HTTP library among them
                raise offline_error(self.model, error) from error
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f'{name} of "{self.model}" is corrupt ({error}); fetch the folder again') from error
        if not isinstance(content, dict):
            raise CheckpointError(f'{name} of "{self.model}" is not a JSON object; fetch the folder again')
        refuse_fields(content, name, self.model)
        return content

    def _check_fetched(self, component: str) -> None:
        """Raises if a component's files on the hub name code; `json` checks each file."""
        for name in ("config.json", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json"):
            self.json(f"{component}/{name}" if component else name)

    def _is_cached(self) -> bool:
        try:
            snapshot_download(self.source, local_files_only=True)
        except Exception:  # of several classes, all for "not cached"
            return False
        return True

    def _has(self, name: str) -> bool:
        """Whether a file is here, or in the hub's cache."""
        return Path(self.source, name).is_file() or isinstance(try_to_load_from_cache(self.source, name), str)

    @cached_property
    def pipeline(self) -> str | None:
        """The pipeline class named in model_index.json; None without that file (a bare component)."""
        index = self.json("model_index.json")
        return None if index is None else str(index.get("_class_name"))

    def config(self, component: str, file: str = "config.json") -> dict[str, Any]:
        """The config of a component ("" for a bare one).

        Raises:
            CheckpointError: the folder lacks the component.
        """
        name = f"{component}/{file}" if component else file
        config = self.json(name)
        if config is None:
            raise CheckpointError(f'"{self.model}" has no {name}; expected a diffusers folder with that file')
        return config

    def load(self, cls: type[ModelT], component: str, dtype: torch.dtype = torch.float32, **options: Any) -> ModelT:
        """A diffusers or transformers model on the CPU, frozen, in eval mode, with every weight from the file.

        Args:
            cls: of diffusers or transformers.
            component: folder of the model inside this one; "" for a bare one.
            dtype: of the weights. In float32, whatever the file stores, the caller casts only once; half precision
                saves memory where a model is too large for that, and keeps those layers of a text encoder in float32
                that its library keeps so.
            options: of `cls.from_pretrained`.

        Raises:
            CheckpointError: the weights are missing, corrupt, incomplete or of another shape.
        """
        where = f'{component or "the model"} of "{self.model}"'
        if self.is_local:
            refuse_pickled_folder(Path(self.source, component), self.model)
        else:
            self._check_fetched(component)
        return self._read(cls, self.source, component, where, dtype, options)

    def load_with(self, cls: type[ModelT], component: str, file: Path, named: str, dtype: torch.dtype) -> ModelT:
        """`load` of a diffusers model with the config of a component and the weights of a safetensors file.

        Args:
            cls: of diffusers.
            component: whose config it is.
            file: of the weights.
            named: as the config names the file, for errors.
            dtype: as in `load`.
        """
        config = self.config(component)
        with TemporaryDirectory(prefix="refcore-") as folder:
            Path(folder, "config.json").write_text(json.dumps(config))
            Path(folder, "diffusion_pytorch_model.safetensors").symlink_to(file.resolve())
            where = f'{component} of "{self.model}" with the weights of "{named}"'
            return self._read(cls, folder, "", where, dtype, diffusers_options())

    def _read(
        self, cls: type[ModelT], source: str, component: str, where: str, dtype: torch.dtype, options: dict[str, Any]
    ) -> ModelT:
        half = dtype.itemsize < 4
        name = "torch_dtype" if cls.__module__.partition(".")[0] == "diffusers" else "dtype"
        try:
            with data_only(), silently():
                model, report = cls.from_pretrained(  # type: ignore[attr-defined]
                    source,
                    subfolder=component,
                    output_loading_info=True,
                    use_safetensors=True,
                    **{name: dtype if half else torch.float32},
                    **without_code(cls),
                    **options,
                )
        except Exception as error:  # OSError, SafetensorError, RuntimeError, ValueError: whichever part broke
            if isinstance(error, CheckpointError):
                raise
            if not self.is_local and isinstance(error, OSError):
                cause = error.__cause__
                if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
                    raise CheckpointError(
                        f"{where} has no safetensors, and weights in a pickle can run code when they are read: "
                        f"download it and convert it; {CONVERT}"
                    ) from error
                raise offline_error(self.model, error) from error
            reason = reason_of(error).splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{where} cannot be loaded: {reason}; fetch or train that folder again") from error
        missing = sorted(map(str, report["missing_keys"]))
        if missing:
            raise CheckpointError(
                f"{where} lacks {len(missing)} weights, {missing[0]} the first; fetch or train that folder again"
            )
        remedy = "fetch or train that folder again"
        refuse_broken(model, map(str, report["unexpected_keys"]), where, remedy)
        frozen: ModelT = (model if half else model.float()).requires_grad_(False).eval()
        return frozen

    def load_text_encoder(self, cls: type[ModelT], component: str, dtype: torch.dtype = torch.float32) -> ModelT:
        """`load` of a text encoder of transformers, without its library's progress bar, since a run has its own."""
        with quietly():
            return self.load(cls, component, dtype)

    def load_tokenizer(self, tokenizer_class: Any, component: str = "tokenizer") -> Any:
        """The tokenizer in a folder.

        Args:
            tokenizer_class: of transformers.
            component: its folder.

        Raises:
            CheckpointError: it is missing or broken.
        """
        self.config(component, "tokenizer_config.json")
        try:
            with data_only():
                return tokenizer_class.from_pretrained(self.source, subfolder=component, trust_remote_code=False)
        except Exception as error:  # transformers raises another class for each broken file
            if find_spec("sentencepiece") is None and self._has(f"{component}/spiece.model"):
                raise CheckpointError(
                    f'{component} of "{self.model}" is read with the package sentencepiece, which is not installed: '
                    "pip install 'refcore[siglip]'"
                ) from error
            raise CheckpointError(
                f'{component} of "{self.model}" cannot be loaded: {reason_of(error, 200)}; fetch that folder again'
            ) from error


@contextmanager
def silently() -> Iterator[None]:
    """Without what diffusers logs of a broken folder, which is raised in any case, or of a pipeline that is made."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def single_file(path: Path, model: str) -> CheckpointError:
    """The error for a file in place of a folder, with the command that makes a folder of it.

    A single file holds the weights alone: diffusers fetches settings and tokenizer from the hub, by their shapes.

    Args:
        path: Of the file.
        model: As in the config.
    """
    if path.suffix in PICKLES:
        return CheckpointError(
            f'model "{model}" is a pickle, which can run code when it is read; if you trust it, '
            f"`refcore convert clip-weights {shlex.quote(str(path))} WEIGHTS.safetensors` writes its tensors, "
            "and `model: WEIGHTS.safetensors` then tells how a diffusers folder is made of them"
        )
    if path.suffix != ".safetensors":
        return CheckpointError(f'model "{model}" is a file; expected a diffusers folder, a hub id or playground:NAME')
    return CheckpointError(
        f'model "{model}" is a single file, without settings and tokenizer; make a diffusers folder of it once, on a '
        f"machine that reaches the hub: {FROM_SINGLE_FILE} {shlex.quote(str(path))} FOLDER (for a VAE alone "
        "AutoencoderKL), and set `model` to FOLDER"
    )


def place(model: ModelT, device: torch.device, dtype: torch.dtype) -> ModelT:
    """The model, moved to `device` and cast to `dtype`.

    Bypasses the `to` of diffusers, which warns at every cast to half precision, even where no module forbids it.
    """
    nn.Module.to(model, device=device, dtype=dtype)
    return model


def diffusers_options() -> dict[str, Any]:
    """Options of `DiffusersFolder.load` for diffusers models; with accelerate, there is no second copy in memory."""
    return {"low_cpu_mem_usage": is_accelerate_available()}
