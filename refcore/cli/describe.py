"""The fields of a run's config, read from its classes: names, types with their ranges, defaults, meanings, examples."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from refcore.cli.output import print_json, print_table, stdout
from refcore.config.run import RunConfig
from refcore.config.schedule import KINDS, Piece, number_of
from refcore.config.section import Section
from refcore.errors import unknown

ELEMENT = "N"
"""Stands in a path for the index or label of a list's element, and for a name of one's own."""
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
EXAMPLES: dict[str, str] = {
    "size": "size: [512, 768]",
    "init": "init: {steps: 10, guidance: 4.0, rounds: [[2, 0.6]]}\ncandidates: {count: 4}\npriors: [{name: sds}]",
    "candidates": "candidates: {count: 8, keep: [[10, 4], [40, 2]], by: loss}",
    "referees": "referees:\n  - {name: clip, weight: 2.0, window: [0, 80]}\n"
    '  - {name: clip, label: no-blur, prompt: "a blurry {prompt}", wanted: false}\n'
    "  - {name: owlv2, phrases: grammar, satisfied_at: 0.1}",
    "priors": "priors: [{name: tv, weight: {kind: linear, start: 0.5, end: 0.0}}]",
    "witnesses": "witnesses: [{name: blip2, coarse: 96}]",
    "views": "views:\n  main: {count: 4, augment: [{name: affine, config: {degrees: 10.0}}]}\n  fine: {count: 2}",
    "combine": "combine: {name: norm_balance, factor: 0.5}\npriors: [{name: tv}]",
    "optimizer": "optimizer: {name: adamw, lr: 0.02, schedule: cosine, warmup: 5, final: 0.1}",
    "noise": "noise: {kind: cosine, start: 0.2, end: 0.0}",
    "ema": "ema: {decay: 0.95, restarts: [39, 99]}\noutput: ema",
    "best": "best: {every: 5}\noutput: best",
    "early_stop": "early_stop: {patience: 3, min_delta: 0.01}",
    "chunk": "chunk: {clip: 4}",
}
"""Top-level field -> what a config may say about it."""
KIND_EXAMPLES: dict[str, str] = {
    "linear": "{kind: linear, start: 1.0, end: 0.2}",
    "cosine": "{kind: cosine, start: 800.0, end: 400.0, last: 160}",
    "warmup_cosine": "{kind: warmup_cosine, peak: 2.0, end: 1.0, warmup: 10}",
    "gaussian": "{kind: gaussian, peak: 0.05, centre: 0.5, width: 0.2}",
    "piecewise": "{kind: piecewise, pieces: [{until: 50, value: 0.2}, {value: 0.01}]}",
    "hypot": "{kind: hypot, of: [0.2, {kind: linear, start: 0.1, end: 0.0}]}",
    "product": "{kind: product, of: [2.0, {kind: cosine, start: 1.0, end: 0.0}]}",
}
"""Kind of schedule -> an example."""


@dataclass(frozen=True)
class Row:
    """One field."""

    path: str
    """Dotted, with ELEMENT where an index, label or name stands."""
    type: str
    default: str
    meaning: str
    section: str
    """Path of the mapping that it belongs to; "" for the config itself."""


@dataclass(frozen=True)
class Part:
    """One mapping of a config, and its fields."""

    path: str
    title: str
    """The path; with the name or kind where one of several is meant."""
    about: str
    rows: tuple[Row, ...]


def parts() -> list[Part]:
    """Every mapping of a config, the config itself first."""
    return list(_parts("", "", RunConfig))


def schedules() -> list[Part]:
    """Every kind of schedule, and the pieces of a piecewise one."""
    models: dict[str, type[BaseModel]] = {**KINDS, f"piecewise.pieces.{ELEMENT}": Piece}
    return [_part(name, name, model) for name, model in models.items()]


def describe(field: str | None, as_json: bool) -> None:
    """Prints the fields of a config: all of its own, or what is called `field`.

    Raises:
        RefcoreError: no field is called so.
    """
    found = parts()
    shown = found[:1] if field is None else _called(field, [*found, *schedules()])
    if as_json:
        print_json([vars(row) for part in (found if field is None else shown) for row in part.rows])
        return
    for part in shown:
        if part.title or part.about:
            stdout.print(f"{part.title or 'config'}: {part.about}", markup=False)
        rows = [(row.path, row.type, row.default, row.meaning) for row in part.rows]
        print_table(["field", "type", "default", "meaning"], rows)
        stdout.print()
    examples = {**EXAMPLES, **KIND_EXAMPLES}
    for name in dict.fromkeys(name for part in shown for name in (part.path, *(row.path for row in part.rows))):
        if field is not None and name in examples:
            stdout.print(f"for example:\n{examples[name]}", markup=False)
    if field is None:
        names = ", ".join(dict.fromkeys(part.path for part in found[1:]))
        kinds = ", ".join(KINDS)
        stdout.print(f"more with refcore config describe FIELD: {names}; of schedules: {kinds}", markup=False)


def _called(field: str, every: Sequence[Part]) -> list[Part]:
    """The mappings and fields that a dotted path, or a last name, means.

    Raises:
        RefcoreError: there is none.
    """
    whole = [part for part in every if _matches(part.path, field)]
    if whole:
        return whole
    for match in (_matches, lambda path, given: path.rpartition(".")[2] == given):
        rows = [(part, tuple(row for row in part.rows if match(row.path, field))) for part in every]
        found = [Part(part.path, part.title, part.about, own) for part, own in rows if own]
        if found:
            return found
    paths = {row.path for part in every for row in part.rows} | set(KINDS)
    raise unknown("field", field, paths if "." in field else {path.rpartition(".")[2] for path in paths})


def _matches(path: str, given: str) -> bool:
    """Whether `given` means `path`: `referees.0.weight`, `referees.clip.weight` and `referees.weight` are one field."""
    if not path:
        return False
    pattern = re.escape(path).replace(rf"\.{ELEMENT}", r"(\.[^.]+)?")
    return re.fullmatch(pattern, given) is not None


def _parts(path: str, title: str, model: type[BaseModel]) -> Iterator[Part]:
    yield _part(path, title, model)
    for name, info in model.model_fields.items():
        inner = list(_sections(info.annotation, f"{path}.{name}" if path else name))
        for own_path, section in inner:
            several = len([1 for other, _ in inner if other == own_path]) > 1
            tag = section.model_fields.get("name")
            yield from _parts(own_path, f"{own_path}, {tag.default}" if several and tag else own_path, section)


def _part(path: str, title: str, model: type[BaseModel]) -> Part:
    rows = tuple(_row(path, name, info) for name, info in model.model_fields.items())
    about = (model.__doc__ or "").strip().partition("\n")[0]
    return Part(path, title, about, rows)


def _row(path: str, name: str, info: FieldInfo) -> Row:
    limits = [
        f"{sign} {getattr(bound, limit):g}"
        for bound in info.metadata
        for limit, sign in SIGNS.items()
        if getattr(bound, limit, None) is not None
    ]
    default = "required" if info.is_required() else _plain(info.get_default(call_default_factory=True))
    full = f"{path}.{name}" if path else name
    return Row(full, ", ".join([_type(info), *limits]), default, info.description or "", path)


def _plain(default: Any) -> str:
    """A default as YAML would have it."""
    if isinstance(default, BaseModel):
        return "its defaults"
    if isinstance(default, dict):
        return "{" + ", ".join(f"{key}: {_plain(value)}" for key, value in default.items()) + "}"
    if isinstance(default, (list, tuple)):
        return f"[{', '.join(map(_plain, default))}]"
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(default)


def _type(info: FieldInfo) -> str:
    return _named(info.annotation)


def _named(annotation: Any) -> str:
    """An annotation as a reader of YAML would say it."""
    if number := number_of(annotation):
        return f"{number} or schedule"
    if annotation is None or annotation is type(None):
        return "null"
    if annotation is Any:
        return "any"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = [
            f" {sign} {getattr(bound, limit):g}"
            for mark in arguments[1:]
            for bound in getattr(mark, "metadata", [])
            for limit, sign in SIGNS.items()
            if getattr(bound, limit, None) is not None
        ]
        return _named(arguments[0]) + "".join(limits)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        names = list(dict.fromkeys(_named(part) for part in arguments))
        return " or ".join(names)
    if origin is list:
        inner = _named(arguments[0])
        return f"list of {'mappings' if inner == 'mapping' else inner}"
    if origin is tuple:
        return f"[{', '.join(_named(part) for part in arguments)}]"
    if origin is dict:
        return f"mapping of names to {_named(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true | false"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _sections(annotation: Any, path: str) -> Iterator[tuple[str, type[Section]]]:
    """The mappings in an annotation, with their paths; schedules are described apart."""
    if number_of(annotation):
        return
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, dict):
        yield from _sections(arguments[-1], f"{path}.{ELEMENT}")
    elif origin in (typing.Union, types.UnionType, typing.Annotated, tuple):
        for part in arguments[:1] if origin is typing.Annotated else arguments:
            yield from _sections(part, path)
    elif (
        isinstance(annotation, type)
        and issubclass(annotation, Section)
        and annotation.__module__ != Piece.__module__  # a schedule
    ):
        yield path, annotation
