"""Rating heads: linear layers from features to one number, as in LAION-Aesthetics and ImageReward."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import write_safetensors
from refcore_plugins.models.loaded_weights import refuse_left_over, refuse_non_finite

ACTIVATIONS = {(0,): "none", (0, 2, 4, 6, 7): "none", (0, 3, 6, 9, 11): "relu"}
"""Indices of the linear layers in the original `nn.Sequential` -> the activation between them.

A single layer; layers with only dropout between them (most published heads, ImageReward's too: their ReLUs are
commented out); layers with ReLU and dropout ("reluMSE"). Dropout has no effect in eval mode.
"""


class RatingHead(nn.Module):
    """[N, W] features -> [N] ratings, through linear layers with or without ReLU between them."""

    def __init__(self, widths: list[int], activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths, [*widths[1:], 1], strict=True)])

    def forward(self, features: Tensor) -> Tensor:
        """[N, W] -> [N]."""
        for i, layer in enumerate(self.layers):
            features = layer(features.relu() if i and self.activation == "relu" else features)
        return features.squeeze(-1)

    @property
    def width(self) -> int:
        """W, the width of the features."""
        return int(self.layers[0].weight.shape[1])  # type: ignore[index]

    @classmethod
    def from_original(cls, state: Mapping[str, Tensor], source: Path, expected: str) -> RatingHead:
        """The head in a state dict with `weight` and `bias`, or with those of `layers.0`, `layers.2`, and so on.

        Raises:
            CheckpointError: `state` is not such a head; the message names `source` and `expected`.
        """
        if set(state) == {"weight", "bias"}:
            state = {f"layers.0.{name}": value for name, value in state.items()}
        places = tuple(sorted({int(m[1]) for name in state if (m := re.fullmatch(r"layers\.(\d+)\.weight", name))}))
        if places not in ACTIVATIONS:
            held = ", ".join(sorted(state)[:6]) or "no tensors"
            raise CheckpointError(f"{source} has no rating head; it holds {held}; expected {expected}")
        try:
            return cls._of(
                [(state[f"layers.{i}.weight"], state[f"layers.{i}.bias"]) for i in places], ACTIVATIONS[places]
            )
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the layers in {source} do not fit together: {error}; expected {expected}"
            ) from error

    def save(self, out: Path) -> Path:
        """Writes safetensors: `layers.0.weight`, `layers.0.bias`, and so on, with the activation in the metadata."""
        return write_safetensors(self.state_dict(), out, {"activation": self.activation})

    @classmethod
    def from_file(cls, path: Path, remedy: str) -> RatingHead:
        """The head written by `save`, in float32, frozen.

        Raises:
            CheckpointError: the file is missing, corrupt or not a rating head.
        """
        if not path.is_file():
            raise CheckpointError(f"there is no rating head at {path}; {remedy}")
        try:
            with safe_open(path, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                activation = (file.metadata() or {}).get("activation", "none")
            layers = [(state[f"layers.{i}.weight"], state[f"layers.{i}.bias"]) for i in range(len(state) // 2)]
            if not layers:
                raise KeyError("layers.0.weight")
            places = range(len(layers))
            known = {f"layers.{i}.{part}" for i in places for part in ("weight", "bias")}
            refuse_left_over(state.keys() - known, str(path), remedy)
            refuse_non_finite(state.items(), str(path), remedy)
            return cls._of(layers, activation)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} is corrupt or not a rating head: {reason}; {remedy}") from error

    @classmethod
    def _of(cls, layers: list[tuple[Tensor, Tensor]], activation: str) -> RatingHead:
        if any(weight.ndim != 2 for weight, _ in layers):
            raise RuntimeError(f"weights of {[list(weight.shape) for weight, _ in layers]}, not of matrices")
        head = cls([weight.shape[1] for weight, _ in layers], activation)
        tensors = {}
        for i, (weight, bias) in enumerate(layers):
            tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"] = weight.float(), bias.float()
        head.load_state_dict(tensors)
        return head.eval().requires_grad_(False)
