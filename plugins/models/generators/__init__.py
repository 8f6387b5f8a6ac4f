"""Text-to-image generators of several families behind one interface, each family in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch

from refcore.errors import CheckpointError, article
from refcore_plugins.models.generators.generator import Generator, Sources
from refcore_plugins.models.stable_diffusion import PIPELINES

FAMILIES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(PIPELINES, ("stable_diffusion", "StableDiffusionGenerator")),
    "StableDiffusionXLPipeline": ("stable_diffusion_xl", "StableDiffusionXL"),
    "PixArtAlphaPipeline": ("pixart", "PixArt"),
    "SanaSprintPipeline": ("sana_sprint", "SanaSprint"),
    "FluxPipeline": ("flux", "Flux"),
}
"""Pipeline class in model_index.json -> module and class; a module is imported when its family is asked for."""


def load_generator(
    sources: Sources,
    device: torch.device,
    dtype: torch.dtype,
    size: tuple[int, int] | None = None,
    guidance: float = 1.0,
) -> Generator:
    """The generator in a folder, of the family that its model_index.json names; see `Generator`.

    Raises:
        CheckpointError: it names none that is known.
    """
    pipeline = sources.folder.pipeline
    if pipeline is None:  # a folder without an index can only be Stable Diffusion's, which says what it lacks
        pipeline = PIPELINES[0]
    if pipeline not in FAMILIES:
        raise CheckpointError(
            f'"{sources.folder.model}" is {article(pipeline)}; expected a folder of {", ".join(FAMILIES)}'
        )
    module, name = FAMILIES[pipeline]
    family: Callable[..., Generator] = getattr(import_module(f"{__name__}.{module}"), name)
    return family(sources, device, dtype, size, guidance)
