"""A start by search: samples of a prior's diffusion model, and in rounds more around those that the referees prefer."""

from __future__ import annotations

import torch

from refcore.config.start import SampleStart
from refcore.contracts.canvas import CanvasParams
from refcore.engine.step import Engine


@torch.no_grad()
def searched(engine: Engine, settings: SampleStart, params: CanvasParams) -> CanvasParams:
    """The parameters with a sample for the latent of every candidate, after the rounds of `settings`.

    A zero-order search in the space of samples (Ma et al., arXiv 2501.09732): in each round the best candidates of a
    sample stay where they are, and each of the others is made anew around one of them in turn, the best first.

    Args:
        engine: its `keys` say how many candidates there are, N.
        settings: of the sampler and the rounds.
        params: of a fresh canvas, each tensor [N, ...], in the run's dtype and on its device.

    Raises:
        RefcoreError: as `Engine.sample`.
    """
    name = engine.canvas.latent_name() or next(iter(params))
    shape, everyone = params[name].shape[1:], list(range(len(engine.keys)))
    latents = engine.sample(settings, shape, everyone).to(params[name])
    for number, (keep, _) in enumerate(settings.rounds, 1):
        best, _ = engine.ordered(engine.look({**params, name: latents}, everyone), everyone)
        parents = {row: own[turn % keep] for own in best for turn, row in enumerate(own[keep:])}
        around = latents[list(parents.values())]
        latents[list(parents)] = engine.sample(settings, shape, list(parents), around, number).to(latents)
    return {**params, name: latents}
