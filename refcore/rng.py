"""Random numbers keyed by (seed of a sample, step, stream name): a sample's draws do not depend on its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Key = int | str
"""The key of a sample's draws: its seed, or text that starts with it."""


def candidate_key(seed: int, candidate: int) -> Key:
    """The key of a sample's candidate. Candidate 0 has the seed itself, as in a run without candidates.

    >>> [candidate_key(7, candidate) for candidate in range(3)]
    [7, '7.1', '7.2']
    """
    return seed if candidate == 0 else f"{seed}.{candidate}"


def keyed_generator(seed: Key, step: int, stream: str) -> torch.Generator:
    """A CPU generator whose state is a hash of the key; the same key gives the same numbers on every machine."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Deferred:
    """[N, *shape] numbers, standard normal or uniform, that are drawn on use, for some elements at a time.

    For draws as large as the views themselves. It holds the state of each sample's generator, so the numbers are the
    same however often and in whatever selection they are taken; in increasing order, none is drawn twice. The last
    selection is kept, since the next referee usually judges the same views.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        count: int,
        shape: Sequence[int],
        device: torch.device,
        fill: Callable[..., Tensor] = Tensor.normal_,
    ) -> None:
        """`generators`: one per sample, for `count` elements each; nothing else may draw from them."""
        self.count = count
        self._fill = fill
        """Fills a tensor with numbers of a `generator`, in place."""
        self.shape = tuple(shape)
        self.device = device
        self._generators = generators
        self._starts = [generator.get_state() for generator in generators]
        self._next = [0] * len(generators)
        self._last: tuple[Sequence[int], Tensor] | None = None

    def __len__(self) -> int:
        return len(self._generators) * self.count

    def take(self, index: Sequence[int]) -> Tensor:
        """[n, *shape]: the numbers of the elements `index`, each in 0 .. N - 1; not to be modified."""
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        self._last = None  # freed before the next is made
        taken = torch.empty(len(index), *self.shape)
        for place, i in enumerate(index):
            sample, element = divmod(i, self.count)
            generator = self._generators[sample]
            if element < self._next[sample]:
                generator.set_state(self._starts[sample])
                self._next[sample] = 0
            while self._next[sample] <= element:  # those before it are overwritten
                self._fill(taken[place], generator=generator)
                self._next[sample] += 1
        self._last = (index, taken.to(self.device, non_blocking=True))
        return self._last[1]


class Rng:
    """Draws for a batch of samples, each from its own generator, `count` elements per sample.

    Every method returns a tensor whose first dimension is N = len(seeds) * count, sample by sample (the elements of
    sample b are rows b*count .. (b+1)*count - 1). Numbers are drawn on the CPU in float32 and moved to `device`, so
    that they are the same on every device.
    """

    def __init__(
        self, seeds: Sequence[Key], step: int, stream: str, count: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.seeds = tuple(seeds)
        self.step = step
        self.stream = stream
        self.count = count
        self.device = torch.device(device)
        self._generators = [keyed_generator(seed, step, stream) for seed in self.seeds]
        self._deferred = 0

    @property
    def n(self) -> int:
        """N, the number of elements in every draw."""
        return len(self.seeds) * self.count

    @property
    def generators(self) -> list[torch.Generator]:
        """[B] of the samples, on the CPU, for libraries that draw by themselves; later draws continue them."""
        return self._generators

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """[N, *shape] uniform in [low, high)."""
        return self._draw(lambda g: torch.rand(self.count, *shape, generator=g) * (high - low) + low)

    def normal(self, *shape: int) -> Tensor:
        """[N, *shape] standard normal."""
        return self._draw(lambda g: torch.randn(self.count, *shape, generator=g))

    def deferred_normal(self, *shape: int) -> Deferred:
        """As `normal`, but drawn on use, so that not all N are held at once.

        It takes over the generators: later draws of this Rng come from new ones with related keys.
        """
        return self._deferred_to(Tensor.normal_, shape)

    def deferred_uniform(self, *shape: int) -> Deferred:
        """As `deferred_normal`, but uniform in [0, 1)."""
        return self._deferred_to(Tensor.uniform_, shape)

    def _deferred_to(self, fill: Callable[..., Tensor], shape: Sequence[int]) -> Deferred:
        deferred = Deferred(self._generators, self.count, shape, self.device, fill)
        self._deferred += 1
        stream = f"{self.stream}/{self._deferred}"
        self._generators = [keyed_generator(seed, self.step, stream) for seed in self.seeds]
        return deferred

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """[N, *shape] int64, uniform in low .. high - 1."""
        return self._draw(lambda g: torch.randint(low, high, (self.count, *shape), generator=g))

    def shared_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """As `uniform`, but all elements of a sample share one draw."""
        return self._draw(
            lambda g: (torch.rand(1, *shape, generator=g) * (high - low) + low).expand(self.count, *shape)
        )

    def _draw(self, draw: object) -> Tensor:
        parts = [draw(g) for g in self._generators]  # type: ignore[operator]
        return torch.cat(parts).to(self.device, non_blocking=True)
