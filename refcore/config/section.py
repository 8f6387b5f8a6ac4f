"""The base class of every section of a config."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from refcore.nulls import without_nulls


class Section(BaseModel):
    """Base of a config's sections: immutable; null is the default; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        return without_nulls(cls, data)
