"""Low-rank adapters on a UNet's attention, with weights for each group of samples in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refcore.rng import Key, keyed_generator

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Linear layers of an attention block that have an adapter."""


class Adapters:
    """LoRA (arXiv 2106.09685, eq. 3): every target W x becomes W x + U D x, with D [rank, d_in], U [d_out, rank].

    The weights of a group are one flat vector, so that a batch can hold several groups and an optimiser can treat them
    separately. Outside `applied` the network is unchanged.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        self.rank = rank
        self._shapes: list[tuple[int, ...]] = []
        self._active: list[Tensor] | None = None
        """While applied: D and U of each target in turn, [N, ...] for a batch of N."""
        for name, module in network.named_modules():
            if name.endswith(TARGETS) and isinstance(module, nn.Linear):
                place = len(self._shapes)
                self._shapes += [(rank, module.in_features), (module.out_features, rank)]
                hook: Any = self._hook(place)
                module.register_forward_hook(hook)

    @property
    def size(self) -> int:
        """P, the number of weights of a group."""
        return sum(a * b for a, b in self._shapes)

    def init(self, key: Key, device: torch.device) -> Tensor:
        """[P] float32: D normal with std 1 / rank, drawn from the key alone; U zero, so nothing changes at first."""
        generator = keyed_generator(key, 0, "lora")
        parts = [
            torch.zeros(shape) if place % 2 else torch.randn(shape, generator=generator) / self.rank
            for place, shape in enumerate(self._shapes)
        ]
        return torch.cat([part.flatten() for part in parts]).to(device)

    @contextmanager
    def applied(self, vectors: Tensor, groups: Tensor) -> Iterator[None]:
        """Context in which sample n of a batch has the weights `vectors[groups[n]]`; [G, P] and [N] int64."""
        parts = torch.split(vectors, [a * b for a, b in self._shapes], dim=1)
        self._active = [torch.unflatten(p, 1, shape)[groups] for p, shape in zip(parts, self._shapes, strict=True)]
        try:
            yield
        finally:
            self._active = None

    def _hook(self, place: int) -> object:
        def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if self._active is None:
                return out
            down, up = self._active[place], self._active[place + 1]
            x = given[0].to(down.dtype)  # [N, tokens, d_in]
            return out + (x @ down.mT @ up.mT).to(out.dtype)

        return add
