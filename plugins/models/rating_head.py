"""The head that rates: linear layers from features to one number, as in LAION's aesthetics and ImageReward."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import write_safetensors

ACTIVATIONS = {(0,): "none", (0, 2, 4, 6, 7): "none", (0, 3, 6, 9, 11): "relu"}
"""Where the linear layers stand in the original `nn.Sequential` -> what stands between them.

A lone layer; with dropout alone behind the first three (most published heads, ImageReward's too: their ReLUs are
commented out); with a ReLU behind each but the last, and dropout ("reluMSE"). Dropout does nothing in a frozen model.
"""


class RatingHead(nn.Module):
    """[N, W] features -> [N] ratings, through linear layers with nothing or a ReLU between them."""

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
        """Of the features that it takes."""
        return int(self.layers[0].weight.shape[1])  # type: ignore[union-attr, arg-type, index]

    @classmethod
    def from_original(cls, state: Mapping[str, Tensor], source: Path, expected: str) -> RatingHead:
        """From a state dict with `weight` and `bias`, or with those of `layers.0`, `layers.2`, and so on.

        Raises:
            CheckpointError: it is no such head; `source` and `expected` are for the message.
        """
        if set(state) == {"weight", "bias"}:
            state = {f"layers.0.{name}": value for name, value in state.items()}
        places = tuple(sorted({int(m[1]) for name in state if (m := re.fullmatch(r"layers\.(\d+)\.weight", name))}))
        if places not in ACTIVATIONS:
            held = ", ".join(sorted(state)[:6]) or "no tensors"
            raise CheckpointError(f"{source} holds no rating head but {held}; expected {expected}")
        try:
            return cls._of(
                [(state[f"layers.{i}.weight"], state[f"layers.{i}.bias"]) for i in places], ACTIVATIONS[places]
            )
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the layers in {source} do not fit together: {error}; expected {expected}"
            ) from error

    def save(self, out: Path) -> Path:
        """Writes it as safetensors: `layers.0.weight`, `layers.0.bias`, and so on, with the activation as metadata."""
        return write_safetensors(self.state_dict(), out, {"activation": self.activation})

    @classmethod
    def from_file(cls, path: Path, remedy: str) -> RatingHead:
        """The head that `save` wrote, in float32, frozen.

        Raises:
            CheckpointError: no such file, or one that is corrupt or holds something else.
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
            return cls._of(layers, activation)
        except (SafetensorError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} is no rating head or is corrupt: {reason}; {remedy}") from error

    @classmethod
    def _of(cls, layers: list[tuple[Tensor, Tensor]], activation: str) -> RatingHead:
        head = cls([weight.shape[1] for weight, _ in layers], activation)
        tensors = {}
        for i, (weight, bias) in enumerate(layers):
            tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"] = weight.float(), bias.float()
        head.load_state_dict(tensors)
        return head.eval().requires_grad_(False)
