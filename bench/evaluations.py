"""Counts model evaluations as they happen: each pass of a network over one picture, forward or backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from refcore.engine.step import Engine
from refcore_plugins.models.ffdnet import FFDNet
from refcore_plugins.priors.statistics import Statistics

NETWORKS = ("referee", "unet", "decoder", "encoder", "statistics", "denoiser", "transformer")
KINDS = tuple(f"{network}_{way}" for network in NETWORKS for way in ("forward", "backward"))
"""Kinds of evaluation: one network, one picture (a view or a latent), one direction. The prior `statistics` runs only
the early layers of its network and counts as a full evaluation. A `transformer` stands where others have a `unet`; a
`denoiser` is FFDNet, which works on pixels."""
TRANSFORMERS = "diffusers.models.transformers."
"""Package of the transformers that predict noise or velocity."""
LAYERS = frozenset({"Transformer2DModel", "DualTransformer2DModel", "TransformerTemporalModel", "PriorTransformer"})
"""Classes of that package which are layers of UNets, or no denoiser."""


class Tally(Counter[str]):
    """Evaluations by kind (`KINDS`). Use `counting`."""

    by_input = False
    """Whether a backward pass also counts where a loss is of a UNet's layers, not of its output, as attention is."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[tuple[int, str], tuple[Any, Any]] = {}
        """(id of a plugin, name of a method whose calls are counted) -> the plugin, its own attribute of that name."""

    def watch(self, engine: Engine) -> None:
        """Counts, from now on, the views its referees judge and the crops its statistics priors see, both ways."""
        for referee in {id(use.referee): use.referee for use in engine.panel.referees}.values():
            for way in ("judge", "judge_beside"):
                self._count_calls(referee, way, "referee")
        for use in engine.priors:
            if isinstance(use.prior, Statistics):
                self._count_calls(use.prior, "distance", "statistics")

    def unwatch(self) -> None:
        """Gives watched plugins their methods back: loaded ones may serve other runs."""
        for (_, method), (plugin, own) in self._watched.items():
            delattr(plugin, method)
            if own is not None:
                setattr(plugin, method, own)
        self._watched.clear()

    def passed(self, network: str, output: Tensor | Sequence[Tensor], given: Tensor | None = None) -> None:
        """Counts a network's `output` [N, ...] for N pictures, and its backward pass if there is one.

        Args:
            network: One of `NETWORKS`.
            output: What it returned.
            given: What it was given, where a gradient that arrives there is a backward pass, too.
        """
        n, backward = len(output), 0

        def arrived(gradient: Tensor) -> None:
            nonlocal backward
            backward += 1
            self[f"{network}_backward"] += n

        def passed_through(gradient: Tensor) -> None:
            nonlocal backward
            if not backward:  # not by way of the output, whose gradient comes before
                self[f"{network}_backward"] += n
            backward = 0

        self[f"{network}_forward"] += n
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(arrived)  # type: ignore[no-untyped-call]
        if given is not None and given.requires_grad:
            given.register_hook(passed_through)  # type: ignore[no-untyped-call]

    def per_image(self, images: int) -> dict[str, float]:
        """Evaluations per image, by kind."""
        return {kind: self[kind] / images for kind in KINDS}

    def _count_calls(self, plugin: Any, method: str, network: str) -> None:
        if (id(plugin), method) not in self._watched:
            self._watched[id(plugin), method] = plugin, vars(plugin).get(method)
            setattr(plugin, method, self._counted(network, getattr(plugin, method)))

    def _counted(self, network: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: Any, **kwargs: Any) -> Tensor:
            output = function(*args, **kwargs)
            self.passed(network, output)
            return output

        return counted


@contextmanager
def counting(by_input: bool = False) -> Iterator[Tally]:
    """Counts the passes of UNets, transformers, autoencoders and denoisers, and those of watched engines, inside the
    `with`.

    Args:
        by_input: See `Tally.by_input`.

    Example:
        >>> with counting() as tally:                                       # doctest: +SKIP
        ...     tally.watch(inversion.engine)
        ...     for step in inversion: pass
        >>> tally["referee_backward"]                                       # doctest: +SKIP
    """
    from diffusers.models import UNet2DConditionModel
    from diffusers.models.autoencoders import autoencoder_dc, vae

    tally = Tally()
    tally.by_input = by_input

    def passed(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, vae.Decoder | autoencoder_dc.Decoder):
            tally.passed("decoder", output)
        elif isinstance(module, vae.Encoder | autoencoder_dc.Encoder):
            tally.passed("encoder", output)
        elif isinstance(module, UNet2DConditionModel):
            tally.passed("unet", output[0], args[0] if by_input and args else None)
        elif _predicts(module):
            tally.passed("transformer", output[0])
        elif isinstance(module, FFDNet):
            tally.passed("denoiser", output)

    handle = register_module_forward_hook(passed)
    try:
        yield tally
    finally:
        handle.remove()
        tally.unwatch()


def _predicts(module: nn.Module) -> bool:
    """Whether a module is a whole transformer that predicts noise or velocity, and no layer of one."""
    cls = type(module)
    if not cls.__module__.startswith(TRANSFORMERS):
        return False
    from diffusers.models import ModelMixin

    return isinstance(module, ModelMixin) and cls.__name__ not in LAYERS
