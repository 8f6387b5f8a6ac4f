"""Scenes of the playground as pictures of a task."""

from __future__ import annotations

from functools import partial

from refcore_bench.examinations.task import Picture
from refcore_playground.render import render_levels
from refcore_playground.world import Scene


def rendered(scene: Scene, name: str) -> Picture:
    """A scene, rendered when it is scored."""
    return Picture(name, partial(render_levels, scene))
