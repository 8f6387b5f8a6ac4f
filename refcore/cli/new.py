"""`refcore new`: writes a plugin package, ready to install and with passing tests, for its author to change."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from refcore import registry
from refcore.cli import new_templates as templates
from refcore.cli.output import print_json, stdout
from refcore.errors import RefcoreError, unknown
from refcore.hooks import API_VERSION
from refcore.runs import rundir

NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
LONGEST = 40
"""Maximum length of a name, which becomes part of a module and a distribution."""
_WORD = re.compile(r"\b[A-Z]\w*\b")


def run(kind: str, name: str, out: Path, as_json: bool) -> None:
    written = write(kind, name, out)
    if as_json:
        print_json({"folder": str(written[0].parent), "files": [str(path) for path in written]})
        return
    for path in written:
        stdout.print(f"wrote {path}", markup=False, soft_wrap=True)
    folder = written[0].parent
    stdout.print(f'\nnext: cd {folder} && pip install -e ".[test]" && pytest', markup=False, soft_wrap=True)


KINDS: dict[str, registry.Kind] = {registry.SINGULAR[kind]: kind for kind in registry.KINDS if kind in templates.MODULE}
"""Singular -> plural of the kinds with a template."""


def write(kind: str, name: str, out: Path) -> list[Path]:
    """Writes the package `OUT/refcore-NAME` and returns the paths of its files.

    Args:
        kind: referee, prior, augmentation, canvas, parser, metric or tracker.
        name: registered name of the plugin.
        out: parent folder of the package.

    Raises:
        RefcoreError: the kind is unknown, the name is invalid or taken, or the folder exists.
    """
    if kind not in KINDS:
        raise unknown("kind of plugin", kind, KINDS)
    plural = KINDS[kind]
    _check_name(plural, name)
    folder = out / f"refcore-{name.replace('_', '-')}"
    if folder.exists() or folder.is_symlink():
        raise RefcoreError(f'the folder "{folder}" exists and is not overwritten; move it, or choose another --out')
    files = _files(plural, name)
    try:
        folder.mkdir(parents=True)
        for inner in {folder / path.parent for path in map(Path, files)}:
            inner.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefcoreError(f'cannot make the folder "{folder}": {error.strerror or error}') from error
    for file, text in files.items():
        rundir.write_text(folder / file, text)
    return [folder / path for path in files]


def _check_name(kind: registry.Kind, name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        guess = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:LONGEST].strip("-")
        hint = f'; for example "{guess}"' if NAME.fullmatch(guess) else ""
        raise RefcoreError(
            f'"{name}" is not a valid plugin name; expected lowercase letters and digits, joined by - or _, at most '
            f"{LONGEST} characters{hint}"
        )
    taken = registry.rows()
    for row in taken:
        if (row.kind, row.name) == (kind, name):
            raise RefcoreError(
                f'the {registry.SINGULAR[kind]} "{name}" already exists, from {row.distribution}; choose another name'
            )


def _files(kind: registry.Kind, name: str) -> dict[str, str]:
    """Path in the package -> text of the file."""
    singular = registry.SINGULAR[kind]
    identifier = name.replace("-", "_")
    module = f"refcore_{identifier}"
    words = {
        "name": name,
        "identifier": identifier,
        "module": module,
        "distribution": module.replace("_", "-"),
        "kind": singular,
        "kinds": kind,
        "cls": class_name(kind, name),
        "summary": templates.SUMMARY[kind],
        "lower": templates.SUMMARY[kind][0].lower() + templates.SUMMARY[kind][1:],
        "where": templates.WHERE[kind][0],
        "language": templates.WHERE[kind][1],
        "usage": registry.contract(kind).usage.replace("NAME", name),
        "imports": templates.IMPORTS[kind],
        "options": templates.OPTIONS[kind],
        "api_version": str(API_VERSION),
    }
    words["more"] = Template(templates.MORE[kind]).substitute(words)
    texts = {
        "pyproject.toml": templates.PYPROJECT,
        "README.md": templates.README,
        f"{module}/__init__.py": templates.INIT,
        f"{module}/{singular}.py": templates.MODULE[kind],
        f"tests/test_{identifier}.py": templates.TEST_HEAD + templates.TEST[kind],
    }
    return {path: Template(text).substitute(words) for path, text in texts.items()}


def class_name(kind: registry.Kind, name: str) -> str:
    """The class name for a plugin's name; the kind is appended if the template already uses the plain word.

    >>> class_name("referees", "edge-sharpness"), class_name("referees", "tensor")
    ('EdgeSharpness', 'TensorReferee')
    """
    plain = "".join(word.capitalize() for word in re.split("[_-]", name))
    used = {
        *_WORD.findall(templates.MODULE[kind]),
        *_WORD.findall(templates.TEST_HEAD),
        *map(str, keyword.kwlist),
    }
    return plain + registry.SINGULAR[kind].capitalize() if plain in used else plain
