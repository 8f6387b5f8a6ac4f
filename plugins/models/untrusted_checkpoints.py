"""Fields of checkpoint files that can name code or a pickle, and their refusal: a checkpoint is data and runs nothing.

The libraries that read checkpoints let some of their files name Python code (`auto_map`), other checkpoints, or pickled
weights, which are code too. Every loader calls `refuse_code` first, loads inside `data_only`, and takes safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest.mock import patch

from refcore.errors import CheckpointError

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
)
"""The files of settings that transformers looks for beside the weights."""
DATA = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
"""JSON files whose keys are words of a vocabulary, which name nothing."""
ADAPTER = "adapter_config.json"
"""Names another checkpoint as its base, and a library to import it with."""

CODE = {
    "auto_map": "names Python code beside the checkpoint",
    "auto_mapping": "names a module to import",
    "custom_generate": "names Python code beside the checkpoint",
    "custom_pipeline": "names Python code beside the checkpoint",
    "custom_pipelines": "names Python code beside the checkpoint",
    "trust_remote_code": "asks for Python code to be run",
    "audio_tokenizer": "names another checkpoint",
    "checkpoint_path": "names another file of weights",
    "custom_load": "names another way of reading weights",
    "state_dict": "names weights among the settings",
}
"""Fields that are refused wherever they stand, unless they are null, false or empty."""
ATTENTION = frozenset(
    {
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
    }
)
"""Fields that name a kernel: part of the library, or with a slash code on the hub."""
REFERENCES = frozenset({"architecture", "timm_model_name"})
"""Fields that name an architecture of timm, or with a colon or a slash another checkpoint."""
WEIGHTS = frozenset({"transformers_weights", "hf_hub_filename"})
"""Fields that name the file of the weights."""
CLASSES: Final[Mapping[str, str]] = {
    "tokenizer_class": r"\w+(Tokenizer|TokenizerFast|Backend)",
    "processor_class": r"\w+Processor",
    "image_processor_type": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "image_processor_class": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "feature_extractor_type": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "feature_extractor_class": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "video_processor_type": r"\w+Processor",
}
"""Fields that name a class of transformers, and what such a class is called."""
TOKENIZER_OPTIONS = frozenset(
    {"clean", "strip_sep_token", "language", "reduction_mask", "additional_special_tokens", "padding_side"}
)
"""Options of open_clip's tokenizers that say how text is cut; any other is passed on to transformers."""
LIBRARIES = ("diffusers", "transformers")
"""Those whose classes a model_index.json may name, beside diffusers' own pipelines."""
SAFE = (".safetensors", ".safetensors.index.json")
REMEDY = "a checkpoint is data, and none of its code is run"
CONVERT = "`refcore convert clip-weights SOURCE OUT.safetensors` writes the tensors of a file that you trust"


def refuse_code(source: str | Path, model: str, plugin: str = "", on_hub: bool = False) -> None:
    """Raises unless every file of settings in a checkpoint is free of what could name code.

    Of a folder, all its JSON files are read, down to two folders below; of a hub id, those that transformers reads.
    What cannot be fetched is passed over, for the library that needs it to report.

    Args:
        source: a folder or a hub id, with @REVISION if need be.
        model: as the config has it, for the message.
        plugin: its name, which errors begin with.
        on_hub: a hub id, even where there is a folder of that name.

    Raises:
        CheckpointError: naming the file, the field and the remedy.
    """
    folder = Path(source)
    if on_hub or not folder.is_dir():
        fetched = _fetch(str(source))
        if fetched is None:
            return
        folder = fetched
    for pattern in ("*.json", "*/*.json", "*/*/*.json"):
        for path in sorted(folder.glob(pattern)):
            if path.name in DATA or not path.is_file():
                continue
            name = path.relative_to(folder).as_posix()
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue  # nobody can read it; the library says so where it is needed
            refuse_fields(content, name, model, plugin)


def refuse_fields(content: Any, file: str, model: str, plugin: str = "") -> None:
    """Raises where what a JSON file holds could name code; see `refuse_code`.

    Args:
        content: of the file.
        file: its name in the checkpoint.
        model: as the config has it.
        plugin: its name.
    """
    where = f'{plugin}: {file} of model "{model}"' if plugin else f'{file} of "{model}"'
    base = file.rsplit("/", 1)[-1]
    if base == ADAPTER:
        _refuse(where, "is an adapter, which names another checkpoint to load", "merge it into its base model first")
    if base == "model_index.json" and isinstance(content, dict):
        _refuse_components(content, where)
    for field, name, value in _fields(content):
        if name in CODE and value:
            _refuse_code_field(where, field, value, CODE[name])
        elif name in ATTENTION and "/" in json.dumps(value):
            _refuse_code_field(where, field, value, "names code on the hub")
        elif name in REFERENCES and isinstance(value, str) and re.search(r"[:/\\]", value):
            _refuse(
                where, f"has {field} {_short(value)}, which names another checkpoint", "name an architecture of timm"
            )
        elif name in WEIGHTS and value and not str(value).endswith(SAFE):
            _refuse(
                where,
                f"has {field} {_short(value)}, which can run code when it is read",
                f"name safetensors; {CONVERT}",
            )
        elif name in CLASSES and not all(_is_class(one, CLASSES[name]) for one in _several(value)):
            _refuse(where, f"has {field} {_short(value)}", "expected the name of such a class of transformers")
        elif name == "_class_name" and not (isinstance(value, str) and _is_diffusers_class(value)):
            _refuse(where, f"has {field} {_short(value)}", "expected the name of a class of diffusers")
        elif name == "tokenizer_kwargs" and value:
            _refuse_tokenizer_options(value, field, where)
        elif name == "configuration_files" and not all(
            isinstance(one, str) and re.fullmatch(r"[\w.-]+\.json", one) for one in _several(value)
        ):
            _refuse(where, f"has {field} {_short(value)}", "expected names of JSON files in the same folder")
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if base.endswith(".safetensors.index.json") and isinstance(shards, dict):
        for shard in map(str, shards.values()):
            if not re.fullmatch(r"[\w.-]+\.safetensors", shard):
                _refuse(where, f"has weight_map {_short(shard)}", "expected safetensors files in the same folder")


def refuse_pickle(path: str | Path, plugin: str = "", model: str = "") -> None:
    """Raises for a file of weights that is no safetensors file: a pickle is a program.

    Raises:
        CheckpointError: naming the file and the conversion.
    """
    path = Path(path)
    if not path.name.endswith(SAFE):
        of = f' of model "{model}"' if model else ""
        _refuse(
            f"{plugin}: {path.name if model else path}{of}" if plugin else f"{path}{of}",
            "is no safetensors file: weights in a pickle can run code when they are read",
            CONVERT,
        )


def refuse_pickled_folder(folder: Path, model: str, plugin: str = "", first: tuple[str, ...] = ()) -> None:
    """Raises for a folder from which a library would read a pickle, for want of safetensors or in spite of them.

    Args:
        folder: of the checkpoint.
        model: as the config has it.
        plugin: its name.
        first: names of weights that the library prefers to all others, the most welcome first; with none, any
            safetensors file is preferred.

    Raises:
        CheckpointError: naming the pickle and the conversion.
    """
    pickles = sorted(p for end in ("bin", "pth", "pt", "ckpt", "pth.tar") for p in folder.glob(f"*.{end}"))
    if not pickles:
        return
    chosen = next((name for name in first if (folder / name).exists()), None)
    if chosen is None and any(folder.glob("*.safetensors")):
        return
    refuse_pickle(chosen or pickles[0], plugin, model)


def fetch_safetensors(repository: str, names: tuple[str, ...], pickled: str, model: str, plugin: str) -> None:
    """Brings the weights of a hub id into the hub's cache, where the library would fall back to a pickle without them.

    Args:
        repository: its id, with @REVISION if need be.
        names: of the weights, the most welcome first.
        pickled: what the library would take otherwise.
        model: as the config has it.
        plugin: its name.

    Raises:
        CheckpointError: the repository has none of the files.
        Exception: of the hub's client, which cannot reach it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name, _, revision = repository.partition("@")
    unreached: LocalEntryNotFoundError | None = None
    for file in names:
        try:
            hf_hub_download(name, file, revision=revision or None)
        except LocalEntryNotFoundError as error:
            unreached = error
        except EntryNotFoundError:
            continue
        else:
            return
    if unreached is not None:
        raise unreached
    refuse_pickle(pickled, plugin, model)


@contextmanager
def data_only() -> Iterator[None]:
    """Within it, transformers runs no code of a checkpoint, and never asks on stdin whether it may.

    The second line of defence: it holds for calls that the libraries make among themselves, too.
    """
    from transformers import dynamic_module_utils as dynamic

    def refused(*_: Any, **__: Any) -> NoReturn:
        raise CheckpointError(f"the checkpoint asks for Python code of its own; {REMEDY}")

    with (
        patch.object(dynamic, "TIME_OUT_REMOTE_CODE", 0),  # seconds that it waits for an answer
        patch.object(dynamic, "get_cached_module_file", refused),  # what copies the code and imports what it imports
        patch.object(dynamic, "get_class_in_module", refused),
    ):
        yield


def without_code(cls: type) -> dict[str, bool]:
    """What `cls.from_pretrained` takes to run no code: nothing for a class of diffusers, which loads only itself."""
    return {"trust_remote_code": False} if cls.__module__.partition(".")[0] == "transformers" else {}


def reason_of(error: BaseException, length: int = 300) -> str:
    """What a library said, on one line, without its advice to unpickle everything."""
    text = " ".join(str(error).split())
    if "weights_only" in text or "Weights only" in text:
        found = re.search(r"GLOBAL ([\w.]+)", text)
        return f"it holds more than tensors{f' ({found[1]})' if found else ''}, which could run code"
    return text[:length]


def _refuse(where: str, what: str, remedy: str) -> NoReturn:
    raise CheckpointError(f"{where} {what}; {remedy}")


def _refuse_code_field(where: str, field: str, value: Any, why: str) -> NoReturn:
    _refuse(
        where,
        f"has {field}: {_short(value)}, which {why}",
        f"{REMEDY}: remove that entry if the library has the architecture itself, or use another checkpoint",
    )


def _refuse_tokenizer_options(options: Any, field: str, where: str) -> None:
    if not isinstance(options, dict):
        _refuse(where, f"has {field} {_short(options)}", "expected an object")
    for name, value in options.items():
        if name not in TOKENIZER_OPTIONS:
            known = ", ".join(sorted(TOKENIZER_OPTIONS))
            _refuse(where, f"has {field}.{name}: {_short(value)}", f"only {known} are taken there: remove that entry")


def _refuse_components(index: Mapping[str, Any], where: str) -> None:
    """Raises for a component of a pipeline that is of no class in a known library."""
    for component, value in index.items():
        if component.startswith("_") or not isinstance(value, list):
            continue
        library, name = (*value, None, None)[:2]
        if library is None and name is None:
            continue
        known = isinstance(library, str) and library.isidentifier() and (library in LIBRARIES or _is_pipeline(library))
        if not known or not isinstance(name, str) or not name.isidentifier():
            _refuse(
                where,
                f"has {component}: {_short(value)}, which names code outside of {' and '.join(LIBRARIES)}",
                f"{REMEDY}: expected a class of one of them",
            )


def _fields(content: Any) -> Iterator[tuple[str, str, Any]]:
    """Every field at any depth: its path, its name and its value."""
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            for name, inner in value.items():
                yield f"{path}{name}", name, inner
                waiting.append((f"{path}{name}.", inner))
        elif isinstance(value, list):
            waiting += [(path, inner) for inner in value if isinstance(inner, dict | list)]


def _several(value: Any) -> list[Any]:
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None]


def _is_class(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and value.isidentifier() and re.fullmatch(pattern, value) is not None


def _is_diffusers_class(name: str) -> bool:
    import diffusers

    return name in dir(diffusers)


def _is_pipeline(name: str) -> bool:
    return find_spec(f"diffusers.pipelines.{name}") is not None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _fetch(model: str) -> Path | None:
    """The folder in the hub's cache, with every file of `CONFIGS` that the repository has; None where it has none."""
    from transformers.utils import cached_file

    repository, _, revision = model.partition("@")
    folder = None
    names = list(CONFIGS)
    for name in names:
        try:
            found = cached_file(
                repository,
                name,
                revision=revision or None,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        except Exception:  # the hub's client raises many kinds; whoever needs the file says what is wrong
            continue
        if found is None:
            continue
        folder = Path(found).parent
        if name == "config.json":
            names += _listed(Path(found))
    return folder


def _listed(config: Path) -> list[str]:
    """Other files of settings that config.json names, for other versions of the library."""
    try:
        listed = json.loads(config.read_text(encoding="utf-8")).get("configuration_files")
    except (OSError, ValueError, AttributeError, RecursionError):
        return []
    return [name for name in _several(listed) if isinstance(name, str) and re.fullmatch(r"[\w.-]+\.json", name)]
