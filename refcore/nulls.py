"""Null in a config: the default of its field, wherever null is no value of its own."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel


def without_nulls(model: type[BaseModel], data: Any) -> Any:
    """`data` without the fields that are null and get their default; what is no mapping is returned as it is.

    A field whose type includes null keeps it, and a required one is left for the model to refuse.
    """
    if not isinstance(data, Mapping) or all(value is not None for value in data.values()):
        return data
    return {name: value for name, value in data.items() if value is not None or name not in _defaulted(model)}


@cache
def _defaulted(model: type[BaseModel]) -> frozenset[str]:
    """The fields with a default that cannot be null."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if not field.is_required() and not _takes_null(field.annotation)
    )


def _takes_null(annotation: Any) -> bool:
    if annotation is None or annotation is type(None) or annotation is Any:
        return True
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _takes_null(typing.get_args(annotation)[0])
    return origin in (typing.Union, types.UnionType) and any(map(_takes_null, typing.get_args(annotation)))
