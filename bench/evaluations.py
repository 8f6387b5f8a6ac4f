"""Counts model evaluations as they happen: each pass of a network over one picture, forward or backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from refcore.engine.step import Engine
from refcore_plugins.models.ffdnet import FFDNet
from refcore_plugins.priors.statistics import Statistics

NETWORKS = ("referee", "unet", "decoder", "encoder", "statistics", "denoiser")
KINDS = tuple(f"{network}_{way}" for network in NETWORKS for way in ("forward", "backward"))
"""Kinds of evaluation: one network, one picture (a view or a latent), one direction. The prior `statistics` runs only
the early layers of its network and counts as a full evaluation."""


class Tally(Counter[str]):
    """Evaluations by kind (`KINDS`). Use `counting`."""

    def watch(self, engine: Engine) -> None:
        """Counts, from now on, the views its referees judge and the crops its statistics priors see, both ways."""
        for referee in {id(use.referee): use.referee for use in engine.panel.referees}.values():
            for way in ("judge", "judge_beside"):
                setattr(referee, way, self._counted("referee", getattr(referee, way)))
        for use in engine.priors:
            if isinstance(use.prior, Statistics):
                use.prior.distance = self._counted("statistics", use.prior.distance)  # type: ignore[method-assign]

    def passed(self, network: str, output: Tensor) -> None:
        """Counts a network's `output` [N, ...] for N pictures, and its backward pass if there is one."""
        n = len(output)
        self[f"{network}_forward"] += n
        if output.requires_grad:
            output.register_hook(lambda gradient: self.update({f"{network}_backward": n}))  # type: ignore[no-untyped-call]

    def per_image(self, images: int) -> dict[str, float]:
        """Evaluations per image, by kind."""
        return {kind: self[kind] / images for kind in KINDS}

    def _counted(self, network: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: Any, **kwargs: Any) -> Tensor:
            output = function(*args, **kwargs)
            self.passed(network, output)
            return output

        return counted


@contextmanager
def counting() -> Iterator[Tally]:
    """Counts the passes of UNets, autoencoders and denoisers inside the `with`, and those of watched engines.

    Example:
        >>> with counting() as tally:                                       # doctest: +SKIP
        ...     tally.watch(inversion.engine)
        ...     for step in inversion: pass
        >>> tally["referee_backward"]                                       # doctest: +SKIP
    """
    from diffusers.models import UNet2DConditionModel
    from diffusers.models.autoencoders.vae import Decoder, Encoder

    tally = Tally()

    def passed(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, Decoder):
            tally.passed("decoder", output)
        elif isinstance(module, Encoder):
            tally.passed("encoder", output)
        elif isinstance(module, UNet2DConditionModel):
            tally.passed("unet", output[0])
        elif isinstance(module, FFDNet):
            tally.passed("denoiser", output)

    handle = register_module_forward_hook(passed)
    try:
        yield tally
    finally:
        handle.remove()
