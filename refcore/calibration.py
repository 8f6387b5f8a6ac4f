"""The losses of referees on images that match, as quantiles in a JSON file; `satisfied_at` takes thresholds from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from refcore.checkpoints import EMBEDDED, zoo
from refcore.errors import ConfigError, RefcoreError, shortened
from refcore.explain import validated
from refcore.text_files import read_json

QUANTILES = 21
"""Number of quantiles kept, evenly spaced from the smallest loss to the largest; interpolated in between."""


@dataclass(frozen=True)
class Curve:
    """The losses of one referee on matching images, as quantiles."""

    name: str
    config: Mapping[str, Any]
    """The plugin's own fields, defaults included."""
    prompt: str
    """The term's prompt template."""
    wanted: bool
    images: int
    """Number of images judged."""
    losses: Sequence[float]
    """QUANTILES quantiles of the mean loss over an image's views, ascending."""
    prompts: Mapping[str, Sequence[float]] = dataclass_field(default_factory=dict)
    """Prompt -> the same quantiles, of its images."""

    def of(self, quantile: float, prompt: str | None = None) -> float:
        """The loss that this fraction of the matching images (of a prompt) does not exceed.

        Raises:
            RefcoreError: the prompt was not calibrated.
        """
        losses = self.losses
        if prompt is not None:
            if prompt not in self.prompts:
                raise RefcoreError(
                    f'the calibration of "{self.name}" has no prompt "{shortened(prompt)}" ({len(self.prompts)} '
                    "others); calibrate this prompt, or set satisfied_at.per=all"
                )
            losses = self.prompts[prompt]
        return float(np.interp(quantile, np.linspace(0, 1, len(losses)), losses))


def quantiles(losses: Sequence[float]) -> list[float]:
    """QUANTILES quantiles of the losses, to six digits."""
    return [float(f"{value:.6g}") for value in np.quantile(np.asarray(losses), np.linspace(0, 1, QUANTILES))]


@dataclass(frozen=True)
class Calibration:
    """A calibration file: curves of referees, and channel statistics of the matching images' latents."""

    curves: tuple[Curve, ...]
    about: Mapping[str, Any] = dataclass_field(default_factory=dict)
    """How it was measured: prompts, split, seed, views, versions."""
    latent: Mapping[str, Sequence[float]] | None = None
    """Per-channel "mean" and "std", each averaged over the images' latents; None on canvases without latents."""

    def curve(self, name: str, config: Mapping[str, Any], prompt: str, wanted: bool, where: str) -> Curve:
        """The curve of a referee with the same fields, prompt template and `wanted`.

        Raises:
            RefcoreError: there is no such curve; `where` names the file in the message.
        """
        for curve in self.curves:
            if (curve.name, dict(curve.config), curve.prompt, curve.wanted) == (name, dict(config), prompt, wanted):
                return curve
        known = ", ".join(f"{c.name}({'' if c.wanted else 'not '}{c.prompt})" for c in self.curves) or "none"
        raise RefcoreError(
            f'{where} has no calibration of "{name}" with these fields, prompt "{shortened(prompt)}" and wanted '
            f"{wanted}; it has: {known}; calibrate this config anew"
        )

    def to_json(self) -> str:
        return json.dumps({"about": self.about, "latent": self.latent, "referees": [asdict(c) for c in self.curves]})

    @classmethod
    def read(cls, path: str) -> Calibration:
        """The calibration in a file; `playground:NAME` is the one that ships with the embedded checkpoints.

        Raises:
            RefcoreError: the file is missing, or is not a calibration.
        """
        file = zoo() / path.removeprefix(EMBEDDED) if path.startswith(EMBEDDED) else Path(path)
        try:
            found = read_json(file)
            _check(found)
            validated(_File, found)
            return cls(tuple(Curve(**curve) for curve in found["referees"]), found["about"], found["latent"])
        except OSError as error:
            raise RefcoreError(f'cannot read the calibration "{path}": {error.strerror or error}') from error
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            reason = "it is of another form" if isinstance(error, (KeyError, TypeError, AttributeError)) else error
            raise RefcoreError(f'"{path}" is not a calibration file ({reason}); write it anew') from error


class _Curve(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    config: dict[str, Any]
    prompt: str
    wanted: bool
    images: int
    losses: list[float]
    prompts: dict[str, list[float]] = {}


class _Latent(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    about: dict[str, Any]
    latent: _Latent | None
    referees: list[_Curve]


def _check(found: Any) -> None:
    """Refuses quantiles and statistics that are not finite numbers, and those that are not there.

    Raises:
        ValueError: naming the list.
    """
    lists = {}
    for index, curve in enumerate(found["referees"]):
        lists[f"referees.{index}.losses"] = curve["losses"]
        for prompt, losses in curve.get("prompts", {}).items():
            lists[f'referees.{index}.prompts."{prompt}"'] = losses
    for name, values in (found["latent"] or {}).items():
        lists[f"latent.{name}"] = values
    for name, values in lists.items():
        numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        if not values or not numbers:
            raise ValueError(f"{name} is {'empty' if not values else 'not of finite numbers'}")
