"""pydantic's validation errors as sentences: dotted field, what was given, what is allowed, nearest name."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from refcore.errors import ConfigError, nearest

Path = tuple[str | int, ...]
Model = typing.TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Any, prefix: str = "", steps: int | None = None) -> Model:
    """`data` validated as a `model`.

    Args:
        model: its class.
        data: nested dicts and lists.
        prefix: dotted path of the field that holds it.
        steps: of the run that it belongs to, for bounds between schedules; None where they are not known.

    Raises:
        ConfigError: the data is not valid; the message has one part for each wrong field.
    """
    try:
        return model.model_validate(data, context={"steps": steps})
    except ValidationError as error:
        raise _config_error(error, model, data, prefix) from None


def _config_error(error: ValidationError, model: type[BaseModel], data: Any, prefix: str) -> ConfigError:
    """The ConfigError for what `error` found when `data` was read as `model`."""
    messages: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    told: set[str] = set()
    for item in error.errors(include_url=False):
        path = _in_data(item["loc"], data, item["type"])
        if item["type"] == "union_tag_invalid":
            path = (*path, item["ctx"]["discriminator"].strip("'"))
        parts = [str(part) or '""' for part in path]
        field = ".".join([prefix, *parts] if prefix else parts)
        message = _message(item, path, model, data)
        known = message.partition("; known: ")[2].partition(";")[0]
        if known in told:  # once is enough for all fields beside each other
            message = message.replace(f"; known: {known}", "")
        elif known:
            told.add(known)
        if message not in messages.setdefault(field, []):
            messages[field].append(message)
        if item["type"] not in _SAYS_VALUE:
            given[field] = item["input"]
    width = WIDEST // min(max(len(messages), 1), MOST)
    said = [
        (f"{_short(field)}: " if field else "")
        + ", or ".join(alternatives)
        + (f"; given: {_shown(given[field], width)}" if field in given else "")
        for field, alternatives in messages.items()
    ]
    more = [f"and {len(said) - MOST} more fields are wrong"] if len(said) > MOST else []
    return ConfigError("; ".join([*said[:MOST], *more]))


MOST = 3
"""Fields that a message names; whoever has more wrong mistakes the whole."""
WIDEST = 80
"""Characters of the given values that a message shows, all of its fields together."""
MAPPING = "expected a mapping of fields"
_IN_WORDS = {
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "dict_type": MAPPING,
    "dict_attributes_type": MAPPING,
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "string_type": "expected text",
}
"""Types of pydantic errors whose own message speaks of Python."""

_SAYS_VALUE = ("extra_forbidden", "missing", "value_error", "union_tag_invalid", "literal_error")
"""Types of pydantic errors whose message already shows the value."""


def _message(item: Any, path: Path, model: type[BaseModel], data: Any) -> str:
    kind, given = item["type"], item["input"]
    if kind == "extra_forbidden":
        known, beside = _known_fields(path, model, data)
        hint = f"; it goes with {' and '.join(beside)}" if beside else _guess(path[-1], known)
        return f"unknown field; known: {', '.join(known) or 'none'}{hint}"
    if kind == "missing":
        return "required, but missing"
    if kind in ("literal_error", "union_tag_invalid"):
        context = item["ctx"]
        given = context.get("tag", given)
        allowed = context.get("expected_tags") or context["expected"]
        names = [part.strip("'") for part in allowed.replace(" or ", ", ").split(", ")]
        return f"{_shown(given, WIDEST // 2)} is unknown; expected {', '.join(names)}" + _guess(given, names)
    if kind in _IN_WORDS:
        return _IN_WORDS[kind]
    text: str = item["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return text
    return text[0].lower() + text[1:]


def _guess(given: Any, known: Iterable[str]) -> str:
    guess = nearest(str(given), known)
    return f'; did you mean "{guess}"?' if guess else ""


def _shown(value: Any, width: int = WIDEST) -> str:
    return _short("null" if value is None else f'"{value}"' if isinstance(value, str) else str(value), width)


def _short(text: str, width: int = WIDEST) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _in_data(location: Path, data: Any, kind: str) -> Path:
    """The path in the data within pydantic's location, which also names the members of unions."""
    path: list[str | int] = []
    for i, part in enumerate(location):
        if isinstance(data, BaseModel):
            data = dict(data)
        if (isinstance(data, Mapping) and part in data) or (
            isinstance(data, Sequence) and isinstance(part, int) and not isinstance(data, str) and part < len(data)
        ):
            path.append(part)
            data = data[part]  # type: ignore[index]
        elif i == len(location) - 1 and kind == "missing":
            path.append(part)
    return tuple(path)


def _known_fields(path: Path, model: type[BaseModel], data: Any) -> tuple[list[str], list[str]]:
    """What may stand in place of the last part of `path` in `data`, which is read as a `model`.

    Returns:
        The fields of the models that are allowed there, and what is required beside this field where another of them
        has it.
    """
    found: list[Any] = [model]
    for part in path[:-1]:
        found = [inner for annotation in found for inner in _inside(annotation, part)]
        data = getattr(data, str(part)) if isinstance(data, BaseModel) else data[part]
    models = [annotation for annotation in found if _is_model(annotation)]
    for tag in ("kind", "name"):  # the tags of unions
        tagged = [m for m in models if tag in m.model_fields and m.model_fields[tag].default == data.get(tag)]
        models = tagged or models
    having = [m for m in models if path[-1] in m.model_fields]
    beside = [name for m in having for name, field in m.model_fields.items() if field.is_required()]
    known = dict.fromkeys(name for m in models if m not in having for name in m.model_fields)
    return list(known), list(dict.fromkeys(beside))


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    if _is_model(annotation):
        if part in annotation.model_fields:
            yield from _members(annotation.model_fields[part].annotation)
        return
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and arguments:
        yield from _members(arguments[0])
    elif origin is dict and arguments:
        yield from _members(arguments[1])


def _members(annotation: Any) -> Iterable[Any]:
    """The plain types in an annotation, without unions and `Annotated`."""
    origin = typing.get_origin(annotation)
    if hasattr(annotation, "__value__"):  # a name for a type
        return _members(annotation.__value__)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
