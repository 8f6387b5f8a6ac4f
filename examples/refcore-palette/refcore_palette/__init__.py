"""Registers the referees `palette` and `symmetry`; nothing heavy is imported here."""

from __future__ import annotations

from refcore.hooks import Register, hookimpl

api_version = 2
"""Version of refcore's hooks and contracts that this package supports."""


@hookimpl
def register_referees(register: Register) -> None:
    register("palette", "refcore_palette.palette:Palette", summary="Colours of the picture, compared with a palette")
    register("symmetry", "refcore_palette.symmetry:Symmetry", summary="Mirror symmetry of the picture")
