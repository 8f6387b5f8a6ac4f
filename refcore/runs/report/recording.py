"""What is recorded of a run for its report: pictures of some moments, views, and scores of the start, in a folder."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refcore import images
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.runs.rundir import RECORDING, to_json, write, write_text

FOLDER = RECORDING
INDEX = "recording.json"
NAME = re.compile(r"(step|views)-\d+(-\d+)?\.(png|webp)")
"""Names of a recording's pictures; a folder may come from somebody else, so that no other file is opened."""
VIEW_SAMPLES = 3
"""Samples whose views are recorded: the first ones."""
SMALL = 96
"""Side in pixels up to which pictures are kept as they are: lossy ones would blur their edges."""
QUALITY = 92


@dataclass(frozen=True)
class Frame:
    """The pictures of one moment, side by side in one file."""

    step: int
    """That judged them, counted from 0; of the result, the number of all steps."""
    file: str
    candidates: list[int]
    """[b] number of the candidate that each one shows."""


@dataclass(frozen=True)
class Seen:
    """Views of one step that some referees are shown: one row a sample, in one file."""

    step: int
    """Counted from 0."""
    referees: list[str]
    file: str
    views: int
    """Of each sample."""


@dataclass
class Recording:
    """The contents of `recording.json`, and the pictures beside it."""

    began: str = ""
    """Time of the start, in UTC."""
    preset: str | None = None
    """Name of the preset that the run began with."""
    changed: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted field of the config, as written -> a list of its value in the preset; empty where the preset lacks it."""
    objective: str = ""
    """As written, without the plugins' defaults."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    """[b] the samples that are recorded."""
    frames: list[Frame] = field(default_factory=list)
    """In the order of their steps."""
    seen: list[Seen] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    """Label -> [B] score of the start, by each referee and witness; null where one failed."""

    @classmethod
    def read(cls, run: Path) -> Recording:
        """The recording in the folder of a run; an empty one where there is none, or none that can be read."""
        try:
            found = json.loads((run / FOLDER / INDEX).read_text("utf-8"))
            known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
            known["frames"] = [Frame(**each) for each in known.get("frames", [])]
            known["seen"] = [Seen(**each) for each in known.get("seen", [])]
            return cls(**known)
        except (OSError, ValueError, TypeError, AttributeError):
            return cls()

    def write(self, run: Path) -> None:
        """Writes `recording.json`, after the pictures that it names."""
        write_text(run / FOLDER / INDEX, to_json(asdict(self), indent=1) + "\n")

    def before(self, step: int) -> Recording:
        """The recording of a run that goes on with `step`: what came from there on is left out, and made again."""
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        kept["frames"] = [frame for frame in self.frames if frame.step < step]
        kept["seen"] = [seen for seen in self.seen if seen.step < step]
        return Recording(**kept)

    def last(self, run: Path) -> tuple[dict[int, Levels], dict[int, int]] | None:
        """Picture and candidate of each sample in the last frame; None where there is none."""
        if not self.frames:
            return None
        frame = self.frames[-1]
        tiles = self.pictures(run, frame.file, len(self.samples))
        if tiles is None or len(frame.candidates) != len(self.samples):
            return None
        candidates = dict(zip(self.samples, frame.candidates, strict=True))
        return dict(zip(self.samples, tiles[0], strict=True)), candidates

    def pictures(self, run: Path, file: str, columns: int, rows: int = 1) -> list[list[Levels]] | None:
        """The tiles of one of the pictures, row by row; None where it is missing or broken."""
        if not NAME.fullmatch(file) or not columns or not rows:
            return None
        try:
            sheet = images.read_levels(run / FOLDER / file)
        except RefcoreError:
            return None
        height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
        if not height or not width:
            return None
        return [
            [sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for c in range(columns)]
            for r in range(rows)
        ]


def write_sheet(run: Path, name: str, tiles: list[list[Levels]]) -> str:
    """Writes tiles of one size as one picture, and returns the file's name.

    Args:
        run: folder of the run.
        name: of the file, without its ending.
        tiles: row by row.
    """
    sheet = Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in tiles], 0))
    small = max(tiles[0][0].shape[:2]) <= SMALL
    buffer = io.BytesIO()
    if small:
        sheet.save(buffer, "PNG", compress_level=1)
    else:
        sheet.save(buffer, "WEBP", quality=QUALITY, method=1)
    file = f"{name}.{'png' if small else 'webp'}"
    write(run / FOLDER / file, buffer.getvalue())
    return file


def finite(scores: Mapping[str, list[float]]) -> dict[str, list[float | None]]:
    """Scores with null in the place of NaN."""
    return {label: [value if np.isfinite(value) else None for value in own] for label, own in scores.items()}
