"""Where tracks start: from noise, from an image, or from a search among samples of a prior's diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refcore import images
from refcore.config.start import ImageStart, SampleStart, is_opened
from refcore.contracts.canvas import CanvasParams
from refcore.engine import checks
from refcore.engine.step import Engine
from refcore.engine.views import resize
from refcore.errors import RefcoreError
from refcore.rng import Rng
from refcore.text_files import read_named


@dataclass(frozen=True)
class Search:
    """How far the search before the first step has come, between two of its rounds."""

    latents: Tensor
    """[N, C, h, w] of the N tracks."""
    rounds: int
    """Rounds that are done; 0 once the first samples are made."""


OnRound = Callable[[Search], None]


def start(
    engine: Engine,
    tracks: Sequence[int] | None = None,
    search: Search | None = None,
    on_round: OnRound = lambda search: None,
) -> CanvasParams:
    """Parameters of step 0, each drawn by its track's key, a sample, or the `init` image.

    Args:
        engine: loaded.
        tracks: [N] numbers of the tracks; None: those of every sample's first try.
        search: of these tracks, to go on from; None begins it.
        on_round: called with the search when its first samples are made, and after each round.

    Raises:
        RefcoreError: the image is unreadable, or the canvas cannot start from one; the canvas has no latents or no
            prior can be sampled.
    """
    config, canvas = engine.config, engine.canvas
    tracks = engine.first_tracks(range(len(config.samples))) if tracks is None else tracks
    dtype = torch.float64 if config.dtype == "float64" else torch.float32

    def own(params: CanvasParams) -> CanvasParams:
        return {name: value.detach().to(engine.device, dtype, copy=True) for name, value in params.items()}

    def fresh() -> CanvasParams:
        return own(checks.init(canvas, Rng([engine.keys[track] for track in tracks], 0, "init", device=engine.device)))

    with torch.no_grad():
        if config.init is None:
            return fresh()
        if isinstance(config.init, SampleStart):
            return searched(engine, config.init, fresh(), tracks, search, on_round)
        params = own(encoded(engine, config.init, tracks))
        return params if config.init.strength is None else moved(engine, config.init, params, fresh(), tracks)


def encoded(engine: Engine, settings: ImageStart, tracks: Sequence[int]) -> CanvasParams:
    """The parameters of N tracks' images, each tensor [N, ...]; every file is read and encoded once, alone.

    A file of `Canvas.opens` is opened by the canvas, and no image.

    Raises:
        RefcoreError: an image is unreadable, or the canvas cannot start from it.
    """
    canvas, paths, made = engine.canvas, settings.paths(engine.config.samples), {}
    for path in dict.fromkeys(paths):
        if is_opened(path, canvas.opens):
            text = read_named(path, "init.image")
            try:
                made[path] = checks.open_document(canvas, text)
            except RefcoreError as error:
                raise type(error)(f'init.image "{path}": {error}') from error
            continue
        image = _middle(images.read(path).to(engine.device)[None], canvas.size)
        made[path] = checks.encode_image(canvas, resize(image, canvas.size))
    own = [made[paths[engine.sample_of(track)]] for track in tracks]
    return {name: torch.cat([params[name] for params in own]) for name in own[0]}


def moved(
    engine: Engine, settings: ImageStart, params: CanvasParams, fresh: CanvasParams, tracks: Sequence[int]
) -> CanvasParams:
    """Parameters of images, moved toward a fresh start by the strength of `settings`.

    The latent is noised as SDEdit does (arXiv 2108.01073), if a prior can do it; all else is interpolated.
    """
    assert settings.strength is not None, "a start without a strength is the image"
    result = {name: value.lerp(fresh[name], settings.strength) for name, value in params.items()}
    noised, name = engine.noised(settings, params, tracks), engine.canvas.latent_name()
    if noised is not None and name is not None:
        result[name] = noised.to(params[name])
    return result


@torch.no_grad()
def searched(
    engine: Engine,
    settings: SampleStart,
    params: CanvasParams,
    tracks: Sequence[int],
    search: Search | None = None,
    on_round: OnRound = lambda search: None,
) -> CanvasParams:
    """The parameters with a sample for the latent of every track, after the rounds of `settings`.

    A zero-order search in the space of samples (Ma et al., arXiv 2501.09732): in each round the best candidates of a
    sample stay where they are, and each of the others is made anew around one of them in turn, the best first.

    Args:
        engine: whose priors are sampled, and whose referees choose.
        settings: of the sampler and the rounds.
        params: of a fresh canvas, each tensor [N, ...], in the run's dtype and on its device.
        tracks: [N] numbers of the tracks.
        search: as for `start`.
        on_round: as for `start`.

    Raises:
        RefcoreError: as `Engine.sample`.
    """
    name = engine.canvas.latent_name() or next(iter(params))
    shape = params[name].shape[1:]
    if search is None:
        search = Search(engine.sample(settings, shape, tracks).to(params[name]), 0)
        on_round(search)
    latents = search.latents
    for number, (keep, _) in enumerate(settings.rounds, 1):
        if number <= search.rounds:
            continue
        best, _ = engine.ordered(engine.look({**params, name: latents}, tracks), tracks)
        parents = {row: own[turn % keep] for own in best for turn, row in enumerate(own[keep:])}
        around = latents[list(parents.values())]
        resampled = [tracks[row] for row in parents]
        latents[list(parents)] = engine.sample(settings, shape, resampled, around, number).to(latents)
        on_round(Search(latents, number))
    return {**params, name: latents}


def _middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest middle part of [1, 3, H, W] that has the aspect of `size`."""
    height, width = image.shape[-2:]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[..., top : top + rows, left : left + columns]
