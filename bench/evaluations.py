"""Counts model evaluations as they happen: every pass of a network over one picture, forward and backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from refcore.engine.step import Engine
from refcore_plugins.priors.statistics import Statistics

NETWORKS = ("referee", "unet", "decoder", "encoder", "statistics")
KINDS = tuple(f"{network}_{way}" for network in NETWORKS for way in ("forward", "backward"))
"""What is told apart; one evaluation is one network passed over one picture (a view, or a latent), one way. The prior
`statistics` passes the early layers of its network alone, and counts as if it were all of it."""


class Tally(Counter[str]):
    """Evaluations by kind (`KINDS`). Use `counting`."""

    def watch(self, engine: Engine) -> None:
        """Counts, from now on, the views that its referees judge and the crops that its statistics priors see, and the
        gradients that go back through them."""
        for referee in {id(use.referee): use.referee for use in engine.panel.referees}.values():
            referee.judge = self._counted("referee", referee.judge)  # type: ignore[method-assign]
        for use in engine.priors:
            if isinstance(use.prior, Statistics):
                use.prior.distance = self._counted("statistics", use.prior.distance)  # type: ignore[method-assign]

    def passed(self, network: str, output: Tensor) -> None:
        """A network has given `output`, [N, ...] of N pictures."""
        n = len(output)
        self[f"{network}_forward"] += n
        if output.requires_grad:
            output.register_hook(lambda gradient: self.update({f"{network}_backward": n}))

    def per_image(self, images: int) -> dict[str, float]:
        """Every kind's number, over `images`."""
        return {kind: self[kind] / images for kind in KINDS}

    def _counted(self, network: str, function: Callable[..., Tensor]) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Tensor:
            output = function(*args, **kwargs)
            self.passed(network, output)
            return output

        return counted


@contextmanager
def counting() -> Iterator[Tally]:
    """Counts what the UNets and autoencoders of diffusers do inside the `with`, and watched engines.

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

    handle = register_module_forward_hook(passed)
    try:
        yield tally
    finally:
        handle.remove()
