"""How low a referee's loss gets on true matches: a small JSON file, and the threshold that a term takes from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refcore.checkpoints import EMBEDDED, zoo
from refcore.errors import RefcoreError

QUANTILES = 21
"""How many quantiles are kept, from the smallest loss to the largest, evenly spaced; between two it is interpolated."""


@dataclass(frozen=True)
class Curve:
    """The losses of one referee on images that do match, as quantiles."""

    name: str
    config: Mapping[str, Any]
    """The plugin's own fields, the defaults filled in."""
    prompt: str
    """The term's prompt template."""
    wanted: bool
    images: int
    """How many images were judged."""
    losses: Sequence[float]
    """QUANTILES quantiles of the mean loss over an image's views, rising."""
    prompts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The same of the images of each prompt."""

    def of(self, quantile: float, prompt: str | None = None) -> float:
        """The loss that the given share of the matching images (of a prompt) does not exceed.

        Raises:
            RefcoreError: the prompt was not calibrated.
        """
        losses = self.losses
        if prompt is not None:
            if prompt not in self.prompts:
                raise RefcoreError(
                    f'the calibration of "{self.name}" has no prompt "{prompt}" ({len(self.prompts)} others); '
                    "calibrate that prompt, or use satisfied_at.per: all"
                )
            losses = self.prompts[prompt]
        return float(np.interp(quantile, np.linspace(0, 1, len(losses)), losses))


def quantiles(losses: Sequence[float]) -> list[float]:
    """The QUANTILES quantiles of some losses, to six digits."""
    return [float(f"{value:.6g}") for value in np.quantile(np.asarray(losses), np.linspace(0, 1, QUANTILES))]


@dataclass(frozen=True)
class Calibration:
    """A calibration file: the curves of some referees, and the channel statistics of the matching images' latents."""

    curves: tuple[Curve, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    """What was judged: prompts, split, seed, views, versions."""
    latent: Mapping[str, Sequence[float]] | None = None
    """"mean" and "std" by channel: the mean over images of each latent's own; None on canvases without latents."""

    def curve(self, name: str, config: Mapping[str, Any], prompt: str, wanted: bool, where: str) -> Curve:
        """The curve of a referee that is asked the same question.

        Raises:
            RefcoreError: there is none.
        """
        for curve in self.curves:
            if (curve.name, dict(curve.config), curve.prompt, curve.wanted) == (name, dict(config), prompt, wanted):
                return curve
        known = ", ".join(f"{c.name}({'' if c.wanted else 'not '}{c.prompt})" for c in self.curves) or "none"
        raise RefcoreError(
            f'{where} has no calibration of "{name}" with these fields, prompt "{prompt}" and wanted {wanted}; it has: '
            f"{known}; calibrate this config"
        )

    def to_json(self) -> str:
        return json.dumps({"about": self.about, "latent": self.latent, "referees": [asdict(c) for c in self.curves]})

    @classmethod
    def read(cls, path: str) -> Calibration:
        """Reads a file; `playground:NAME` is the one that comes with the embedded checkpoints.

        Raises:
            RefcoreError: the file is missing, or no calibration.
        """
        file = zoo() / path.removeprefix(EMBEDDED) if path.startswith(EMBEDDED) else Path(path)
        try:
            found = json.loads(file.read_text("utf-8"))
            return cls(tuple(Curve(**curve) for curve in found["referees"]), found["about"], found["latent"])
        except OSError as error:
            raise RefcoreError(f'cannot read the calibration "{path}": {error.strerror or error}') from error
        except (ValueError, KeyError, TypeError) as error:
            raise RefcoreError(f'"{path}" is no calibration ({error}); write one anew') from error
