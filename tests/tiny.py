"""Tiny random models: sizes, constants and weights; and how a referee is loaded or refuses to."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError, RefcoreError

Referees = TypeVar("Referees", bound=Referee)
CPU = torch.device("cpu")

SIZE = 16
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
"""A transformer of a few thousand parameters."""
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
"""Different in every channel, so that a swapped or missing constant is detected."""


def scramble(module: nn.Module, seed: int) -> None:
    """Sets random weights large enough for every part of the model to affect its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim > 1 else 0.2)
            parameter.copy_(parameter * 0 + noise if parameter.ndim > 1 else parameter + noise)


def text_config(tokenizer: Any, length: int) -> dict[str, Any]:
    """Config of a CLIP's text tower in transformers, for a tokenizer's vocabulary and `length` tokens."""
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**TOWER, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": length}


def loaded(referee: Referees, dtype: torch.dtype = torch.float32) -> Referees:
    """The referee itself, loaded on the CPU."""
    referee.load(CPU, dtype)
    return referee


def refusal_of(referee: Referee, error: type[RefcoreError] = CheckpointError) -> str:
    """The one line with which a referee refuses to load."""
    with pytest.raises(error) as caught:
        referee.load(CPU, torch.float32)
    assert "\n" not in str(caught.value)
    return str(caught.value)
