"""Checkpoints that name code or hold a pickle, and their refusal: a checkpoint is data, and nothing in it is run.

Model libraries let a checkpoint's JSON files name Python code (`auto_map`), other checkpoints, or pickled weights,
which are code too. Every loader calls `refuse_code` first, loads inside `data_only`, and reads only safetensors; arrays
that a package carries in a pickle are read by `read_arrays`, which builds arrays alone.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest.mock import patch

import numpy as np

from refcore.checkpoints import MOST_FILES
from refcore.errors import CheckpointError
from refcore.text_files import MOST_BYTES, read_json, special

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
"""JSON files that transformers reads beside the weights."""
DATA = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
"""JSON files whose keys are words of a vocabulary, not fields."""
ADAPTER = "adapter_config.json"
"""Names another checkpoint as its base, and a library to import."""

CODE = {
    "auto_map": "names Python code beside the checkpoint",
    "auto_mapping": "names a module to import",
    "custom_generate": "names Python code beside the checkpoint",
    "custom_pipeline": "names Python code beside the checkpoint",
    "custom_pipelines": "names Python code beside the checkpoint",
    "trust_remote_code": "asks for Python code to be run",
    "audio_tokenizer": "names another checkpoint",
    "checkpoint_path": "names another file of weights",
    "custom_load": "names another reader of weights",
    "state_dict": "holds weights in a config",
}
"""Fields that are refused at any depth, unless they are null, false or empty."""
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
"""Fields that name an attention kernel: one of the library or, with a slash, code on the hub."""
REFERENCES = frozenset({"architecture", "timm_model_name"})
"""Fields that name an architecture of timm or, with a colon or a slash, another checkpoint."""
WEIGHTS = frozenset({"transformers_weights", "hf_hub_filename"})
"""Fields that name the weights file."""
CLASSES: Final[Mapping[str, str]] = {
    "tokenizer_class": r"\w+(Tokenizer|TokenizerFast|Backend)",
    "processor_class": r"\w+Processor",
    "image_processor_type": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "image_processor_class": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "feature_extractor_type": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "feature_extractor_class": r"\w+(Processor|FeatureExtractor)(Fast|Pil)?",
    "video_processor_type": r"\w+Processor",
}
"""Fields that name a class of transformers -> pattern of the class's name."""
TOKENIZER_OPTIONS = frozenset(
    {"clean", "strip_sep_token", "language", "reduction_mask", "additional_special_tokens", "padding_side"}
)
"""Options of open_clip's own tokenizers; any other is passed on to transformers."""
LIBRARIES = ("diffusers", "transformers")
"""Libraries whose classes a model_index.json may name, beside diffusers' own pipelines."""
LAYERS = re.compile(r"(^|_)(layers|depth|n_layer)$")
"""Fields that say how many layers are built, before any weight is read."""
MOST_LAYERS = 1_000
SAFE = (".safetensors", ".safetensors.index.json")
REMEDY = "a checkpoint is data, and none of its code is run"
CONVERT = "`refcore convert clip-weights SOURCE OUT.safetensors` writes the tensors of a file that you trust"


def refuse_code(source: str | Path, model: str, plugin: str = "", on_hub: bool = False) -> None:
    """Raises if a JSON file of a checkpoint has a field that can name code.

    All JSON files of a folder are checked, down to two levels below it; of a hub id, those that transformers reads.
    Files that cannot be fetched are skipped; the library that needs them reports them.

    Args:
        source: A folder or a hub id, optionally with @REVISION.
        model: As in the config, for the message.
        plugin: Name of the plugin, with which errors begin.
        on_hub: Whether `source` is a hub id even if a folder has that name.

    Raises:
        CheckpointError: the message names the file, the field and the remedy.
    """
    folder = Path(source)
    if on_hub or not folder.is_dir():
        fetched = _fetch(str(source))
        if fetched is None:
            return
        folder = fetched
    _refuse_special(folder, model, plugin)
    for pattern in ("*.json", "*/*.json", "*/*/*.json"):
        for path in sorted(folder.glob(pattern)):
            if path.name in DATA or not path.is_file():
                continue
            name = path.relative_to(folder).as_posix()
            try:
                content = read_json(path)
            except (OSError, ValueError):
                continue  # unreadable; the library reports it where it is needed
            refuse_fields(content, name, model, plugin)


def _refuse_special(folder: Path, model: str, plugin: str) -> None:
    """Raises for a pipe or a device in a checkpoint, which a library would wait for or read without end, and for a JSON
    file that no model has; and for the root of a disk, say, in place of a checkpoint's folder."""
    of = f"{plugin}: " if plugin else ""
    paths = chain.from_iterable(folder.glob(pattern) for pattern in ("*", "*/*", "*/*/*"))
    for number, path in enumerate(paths):
        if number == MOST_FILES:
            _refuse(
                f'{of}model "{model}"', f"is a folder of more than {MOST_FILES:,} files", "name the checkpoint's own"
            )
        where = f'{of}{path.relative_to(folder).as_posix()} of model "{model}"'
        try:
            kind, size = special(path), path.stat().st_size
        except OSError:
            continue  # a link to nothing; the library that needs it reports it
        if kind is not None and not path.is_dir():
            _refuse(where, f"is no file: {kind}", "copy or download the checkpoint again")
        if kind is None and path.suffix == ".json" and size > MOST_BYTES:
            _refuse(where, f"has {size:,} bytes", f"expected at most {MOST_BYTES:,} in a JSON file")


def refuse_fields(content: Any, file: str, model: str, plugin: str = "") -> None:
    """Raises if the content of a JSON file can name code; see `refuse_code`.

    Args:
        content: The parsed file.
        file: Its name in the checkpoint.
        model: As in the config, for the message.
        plugin: Name of the plugin, with which errors begin.
    """
    where = f'{plugin}: {file} of model "{model}"' if plugin else f'{file} of "{model}"'
    base = file.rsplit("/", 1)[-1]
    if base == ADAPTER:
        _refuse(where, "is an adapter, which names another checkpoint to load", "merge it into its base model first")
    if base == "model_index.json" and isinstance(content, dict):
        _refuse_components(content, where)
    for field, name, value in _fields(content):
        if LAYERS.search(name) and isinstance(value, int) and value > MOST_LAYERS:
            _refuse(where, f"has {field} {_short(value)}", f"expected at most {MOST_LAYERS}, more than any model has")
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
        elif name == "quantization_config" and value is not None:
            _refuse(
                where,
                f"has {field}: {_short(value)}, which hands its weights to another package that quantises them",
                "expected plain floating-point weights: use the checkpoint before quantisation",
            )
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
    """Raises for a weights file that is not safetensors: a pickle is a program.

    Raises:
        CheckpointError: the message names the file and the conversion.
    """
    path = Path(path)
    if not path.name.endswith(SAFE):
        of = f' of model "{model}"' if model else ""
        _refuse(
            f"{plugin}: {path.name if model else path}{of}" if plugin else f"{path}{of}",
            "is not a safetensors file: weights in a pickle can run code when they are read",
            CONVERT,
        )


def refuse_pickled_folder(folder: Path, model: str, plugin: str = "", first: tuple[str, ...] = ()) -> None:
    """Raises for a folder from which a library would read a pickle, without safetensors or in spite of them.

    Args:
        folder: The checkpoint.
        model: As in the config, for the message.
        plugin: Name of the plugin, with which errors begin.
        first: Weights files in the library's order of preference; if none of them exists, any safetensors file is
            preferred.

    Raises:
        CheckpointError: the message names the pickle and the conversion.
    """
    pickles = sorted(p for end in ("bin", "pth", "pt", "ckpt", "pth.tar") for p in folder.glob(f"*.{end}"))
    if not pickles:
        return
    chosen = next((name for name in first if (folder / name).exists()), None)
    if chosen is None and any(folder.glob("*.safetensors")):
        return
    refuse_pickle(chosen or pickles[0], plugin, model)


ARRAYS: Final[Mapping[tuple[str, str], Any]] = {
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): np.ndarray.__reduce__(np.empty(0))[0]  # type: ignore[index]
        for core in ("core", "_core")
    },
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""(module, name) that a pickle of plain arrays may ask for -> what it is; nothing is imported by name."""


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows `ARRAYS` and nothing else, so that no other function can be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array of numpy and could run code")
        return ARRAYS[module, name]

    def persistent_load(self, _: Any) -> NoReturn:
        raise pickle.UnpicklingError("it names an object outside of the file")


def read_arrays(path: Path, expected: str) -> Any:
    """The content of a pickle of numpy arrays, in dictionaries, lists and tuples; nothing else in it is built or run.

    For packages that carry their weights in no other form.

    Args:
        path: The file.
        expected: Description of the right file, for errors: "the weights of its package".

    Raises:
        CheckpointError: the file is missing, corrupt, or holds anything but arrays of numbers and plain data.
    """
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
        _refuse_objects(content)
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deeply for {expected}; reinstall it") from error
    except Exception as error:  # a damaged pickle raises whatever its opcodes meet: ten kinds of errors are known
        raise CheckpointError(
            f"{path} cannot be read as a pickle of numpy arrays: {type(error).__name__}: {reason_of(error, 200)}; "
            f"expected {expected}"
        ) from error
    return content


def _refuse_objects(content: Any) -> None:
    """Raises for anything that is neither plain data nor an array of numbers or booleans."""
    waiting = [content]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array holds {value.dtype}; expected numbers")
        elif not isinstance(value, np.ndarray | str | int | float | bool | None):
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")


def fetch_safetensors(repository: str, names: tuple[str, ...], pickled: str, model: str, plugin: str) -> None:
    """Downloads the safetensors of a hub id into the cache, since the library would fall back to a pickle.

    Args:
        repository: Hub id, optionally with @REVISION.
        names: Weights files in order of preference.
        pickled: The file that the library would fall back to.
        model: As in the config, for the message.
        plugin: Name of the plugin, with which errors begin.

    Raises:
        CheckpointError: the repository has none of the files.
        Exception: the hub cannot be reached, in the client's own words.
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
    """Context in which transformers runs no code of a checkpoint, and does not ask on stdin whether to.

    The second line of defence: it covers the calls that libraries make to each other, too.
    """
    from transformers import dynamic_module_utils as dynamic

    def refused(*_: Any, **__: Any) -> NoReturn:
        raise CheckpointError(f"the checkpoint asks for Python code of its own; {REMEDY}")

    with (
        patch.object(dynamic, "TIME_OUT_REMOTE_CODE", 0),  # seconds to wait for an answer on stdin
        patch.object(dynamic, "get_cached_module_file", refused),  # copies the code and checks its imports
        patch.object(dynamic, "get_class_in_module", refused),
    ):
        yield


def without_code(cls: type) -> dict[str, bool]:
    """Options of `cls.from_pretrained` against code: none for a class of diffusers, which loads only itself."""
    return {"trust_remote_code": False} if cls.__module__.partition(".")[0] == "transformers" else {}


def reason_of(error: BaseException, length: int = 300) -> str:
    """A library's message on one line, in plain words, without its advice to unpickle everything.

    >>> reason_of(TypeError("bos_token has to be either str or AddedToken but got: <class 'list'>"))
    'bos_token has to be either str or AddedToken but got: list'
    """
    text = re.sub(r"torch\.Size\((\[[^\]]*\])\)", r"\1", " ".join(str(error).split()))
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).replace("NoneType", "None")
    text = re.sub(r"dict_(?:keys|values|items)\((\[[^\]]*\])\)", r"\1", text)
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
    """Raises if a component of a pipeline is not a class of a known library."""
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
    """(path, name, value) of every field at any depth."""
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
    """The repository's folder in the hub's cache, with its files of `CONFIGS`; None if it has none of them."""
    from transformers.utils import cached_file

    from refcore_plugins.models.hub_reach import offline_unless_reachable

    offline_unless_reachable()
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
        except Exception:  # the hub's client raises many classes; the library that needs the file reports the error
            continue
        if found is None:
            continue
        folder = Path(found).parent
        if name == "config.json":
            names += _listed(Path(found))
    return folder


def _listed(config: Path) -> list[str]:
    """Other JSON files named in config.json, for other versions of the library."""
    try:
        listed = read_json(config).get("configuration_files")
    except (OSError, ValueError, AttributeError):
        return []
    return [name for name in _several(listed) if isinstance(name, str) and re.fullmatch(r"[\w.-]+\.json", name)]
