"""The conditioning of a referee or prior: its features of a run's prompts, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """A referee's or prior's features of P prompts: tensors whose first dimension is P.

    `truncated[i]` is the text of prompt i cut off by the model's context limit, or "". `notes[i]` is how the model
    understood prompt i where that is not obvious, or "".
    """

    prompts: tuple[str, ...]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    truncated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, prompt_index: Tensor) -> dict[str, Tensor]:
        """The tensors of the given prompts: `prompt_index` is [N] int64, each in 0 .. P-1; every result is [N, ...]."""
        return {name: value.index_select(0, prompt_index) for name, value in self.tensors.items()}

    def take(self, prompt_index: Sequence[int]) -> Conditioning:
        """The conditioning of some of the prompts, as if only these had been read; repeats are allowed."""
        tensors = {name: value[torch.tensor(prompt_index, device=value.device)] for name, value in self.tensors.items()}
        truncated = tuple(self.truncated[i] for i in prompt_index) if self.truncated else ()
        notes = tuple(self.notes[i] for i in prompt_index) if self.notes else ()
        return Conditioning(tuple(self.prompts[i] for i in prompt_index), tensors, truncated, notes)

    def to(self, device: torch.device | str) -> Conditioning:
        moved = {name: value.to(device, non_blocking=True) for name, value in self.tensors.items()}
        return Conditioning(self.prompts, moved, self.truncated, self.notes)
