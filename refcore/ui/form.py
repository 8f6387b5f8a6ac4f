"""The page's form: its fields as a run's config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from refcore import images
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.errors import RefcoreError
from refcore.prompts import parse_seeds
from refcore.ui.limits import Limits

Role = Literal["start", "reference"]
ROLES: tuple[Role, ...] = ("start", "reference")
REFERENCE = "reference"
"""Label of the referee that compares with an uploaded picture."""


def read(
    limits: Limits,
    prompt: str,
    preset: str,
    seeds: str,
    changes: str,
    upload: str | None,
    role: Role,
    strength: float,
) -> RunConfig:
    """The config of the filled-in form.

    Args:
        limits: on uploads.
        prompt: one.
        preset: its name.
        seeds: as on the command line: 0, 1,2 or 0-3.
        changes: assignments such as `steps=60`, one a line, as `--set` takes them.
        upload: path of an uploaded picture; None: none.
        role: what the picture is for: `start`, or `reference`, a referee that compares with it.
        strength: how far the start is from the picture, from 0, the picture itself, to 1.

    Raises:
        RefcoreError: a field is wrong.
    """
    fields: dict[str, Any] = {"prompts": [prompt], "seeds": parse_seeds(seeds or "0")}
    overrides = [line.strip() for line in changes.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if upload is not None:
        picture = checked(Path(upload), limits)
        if role == "reference":
            overrides.append(
                f"referees.+={{name: image, label: {REFERENCE}, config: {{reference: {_quoted(picture)}}}}}"
            )
        else:
            fields["init"] = {"image": str(picture), **({"strength": strength} if strength > 0 else {})}
    return presets.compose(preset, None, overrides, **fields)


def checked(path: Path, limits: Limits) -> Path:
    """An uploaded picture that is one, and no larger than the limits.

    Raises:
        RefcoreError: it is no image, or too large.
    """
    images.check(path)
    with Image.open(path) as file:
        side = max(file.size)
    if side > 4 * limits.side:
        raise RefcoreError(f"the picture is {side} px wide or high; this page takes at most {4 * limits.side}")
    return path


def keep(pictures: Sequence[bytes], folder: Path, number: int) -> Path:
    """Writes a picture of a run as a start for another one, and returns its path.

    Raises:
        RefcoreError: there is no picture yet.
    """
    if not pictures:
        raise RefcoreError("there is no picture yet; wait for the first one")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"run-{number}-{len(list(folder.iterdir()))}.png"
    path.write_bytes(pictures[0])
    return path


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
