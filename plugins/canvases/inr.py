"""The `inr` canvas: a coordinate network for each sample, SIREN or FINER, whose weights are the parameters."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.canvas_size import check_image_size, check_least_side

FINER_BIAS = 1.0
"""Half-width of the first layer's biases of FINER where the config says nothing."""


class Inr(Canvas):
    """An image as a function of the place: x(p) = squash(network(p)), with a network of its own for each sample.

    Hidden layers are sin(w0 z) with z = W h + b (SIREN; Sitzmann et al., arXiv 2006.09661), or
    sin(w0 (|z| + 1) z) (FINER; Liu et al., arXiv 2312.02434), whose frequency grows with |z|, so that large
    biases of the first layer spread its frequencies. The last layer is linear. A step changes the whole picture at
    once, and early layers move coarse structure.

    Parameters: `layer0.weight` [B, out, in] and `layer0.bias` [B, out] of the first layer, and so on; the last has
    the number `layers`. Places are (row, column) in [-1, 1] from the centre of the first pixel to that of the last; in
    images that are not square, the shorter side spans proportionally less.

    The gradient is exact. FINER's public code treats (|z| + 1) as a constant in the backward pass; this does not.
    """

    class Config(PluginConfig):
        activation: Literal["siren", "finer"] = Field(
            "siren", description="siren: sin(w0 z). finer: sin(w0 (|z|+1) z)."
        )
        layers: int = Field(4, ge=1, le=64, description="Layers with a sine; a linear one to the colours follows.")
        hidden: int = Field(256, ge=1, le=4096, description="Width of these layers.")
        w0_first: float = Field(
            30.0,
            gt=0,
            le=1e4,
            description="w0 of the first layer. A side of n pixels can show frequencies up to pi n / 2, 100 for 64.",
        )
        w0: float = Field(30.0, gt=0, le=1e4, description="w0 of the other layers with a sine.")
        bias: float | None = Field(
            None,
            ge=0,
            le=1e3,
            description="Half-width of the uniform distribution of the first layer's initial biases. With finer its "
            "frequencies reach w0_first (2 bias + 1). null: 1 with finer, 1/sqrt(2) with siren.",
        )
        squash: Literal["clamp", "sigmoid"] = Field(
            "clamp",
            description="Map from outputs to colours. clamp: (output + 1) / 2, without gradient outside [0, 1]. "
            "sigmoid: 1 / (1 + exp(-2 output)), which is the same around grey, and always has some gradient.",
        )
        encode_steps: int = Field(
            300, ge=1, le=100_000, description="Steps of Adam that fit the network to an image that it starts from."
        )
        encode_lr: float = Field(3e-4, gt=0, le=1, description="Learning rate of these steps.")
        chunk: int | None = Field(
            4096,
            ge=1,
            description="Pixels evaluated at once. Larger images are evaluated sample by sample in chunks, whose "
            "activations are recomputed in the backward pass: the same gradient in less memory, for a second "
            "evaluation. null: all at once.",
        )

    name = "inr"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any size of at least 1x1 pixels; 256x256 by default. `dtype` is ignored: the weights are float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (256, 256)
        check_least_side(self.size, 1)
        self._known = {torch.float32: coordinates(self.size).to(self.device)}
        """Dtype -> places, [H * W, 2]."""
        hidden, layers = self.config.hidden, self.config.layers
        self.widths = [2, *[hidden] * layers, 3]
        """Numbers in and out of the layers: layer l has widths[l] in and widths[l + 1] out."""

    def init(self, rng: Rng) -> CanvasParams:
        """SIREN's initial weights (its section 3.2 and code): uniform, within 1 / in in the first layer and
        sqrt(6 / in) / w0 in the others, so that every sine's argument is nearly normal. Biases within 1 / sqrt(in),
        and within `bias` in the first layer."""
        params: CanvasParams = {}
        for layer, (inputs, outputs) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            weight = 1 / inputs if layer == 0 else math.sqrt(6 / inputs) / self.config.w0
            bias = self._first_bias if layer == 0 else 1 / math.sqrt(inputs)
            params[weight_name(layer)] = rng.uniform(-weight, weight, outputs, inputs).to(self.device)
            params[bias_name(layer)] = rng.uniform(-bias, bias, outputs).to(self.device)
        return params

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        output = self._output(params)
        return output.add(1).div(2).clamp(0, 1) if self.config.squash == "clamp" else torch.sigmoid(2 * output)

    @torch.enable_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """Networks fitted to images [B, 3, H, W] in [0, 1], (H, W) = `size`, all from the same initial weights.

        `encode_steps` steps of Adam on each sample's mean squared error, as deep-daze primes its network. With clamp,
        the error is that of the colours before clamping, so that no pixel is without a gradient.

        Raises:
            RefcoreError: the images have another size.
        """
        check_image_size(images, self.size)
        images = images.to(self.device, torch.float32)
        params = {
            name: value.requires_grad_() for name, value in self.init(Rng([0] * len(images), 0, "encode")).items()
        }
        optimizer = torch.optim.Adam(list(params.values()), lr=self.config.encode_lr)
        for _ in range(self.config.encode_steps):
            output = self._output(params)
            colours = (output + 1) / 2 if self.config.squash == "clamp" else torch.sigmoid(2 * output)
            error = (colours - images).square().flatten(1).mean(1).sum()  # a sum, so that samples do not interact
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return {name: value.detach() for name, value in params.items()}

    @property
    def _first_bias(self) -> float:
        if self.config.bias is not None:
            return self.config.bias
        return FINER_BIAS if self.config.activation == "finer" else 1 / math.sqrt(2)

    def _places(self, dtype: torch.dtype) -> Tensor:
        if dtype not in self._known:
            self._known[dtype] = coordinates(self.size, dtype).to(self.device)
        return self._known[dtype]

    def _output(self, params: CanvasParams) -> Tensor:
        """Outputs of the networks, [B, 3, H, W]."""
        layers = range(len(self.widths) - 1)
        weights = [params[name(layer)] for layer in layers for name in (weight_name, bias_name)]
        places = self._places(weights[0].dtype)
        # In bfloat16 a place would be off by more than a pixel, and a sine's argument by a tenth of a radian.
        with torch.autocast(self.device.type, enabled=False):
            if self.config.chunk is None or len(places) <= self.config.chunk:
                output = self._network(places, *weights)
            else:
                output = torch.cat(
                    [self._in_chunks(places, row) for row in zip(*(torch.split(w, 1) for w in weights), strict=True)]
                )
        return output.mT.reshape(len(output), 3, *self.size)

    def _in_chunks(self, places: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """`_network` of one sample, which keeps no activations for the backward pass."""
        assert self.config.chunk is not None, "called for more pixels than a chunk"
        parts = [
            checkpoint(self._network, part, *weights, use_reentrant=False, preserve_rng_state=False)
            for part in torch.split(places, self.config.chunk)
        ]
        return torch.cat(parts, dim=1)

    def _network(self, places: Tensor, *weights: Tensor) -> Tensor:
        """Places [P, 2] and each layer's weight [B, out, in] and bias [B, out] -> outputs [B, P, 3]."""
        x = places.expand(len(weights[0]), -1, -1)
        for layer in range(self.config.layers):
            x = linear(x, *weights[2 * layer : 2 * layer + 2])
            w0 = self.config.w0_first if layer == 0 else self.config.w0
            x = siren(x, w0) if self.config.activation == "siren" else finer(x, w0)
        return linear(x, *weights[-2:])


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`W x + b` for each sample: x [B, P, in], weight [B, out, in], bias [B, out] -> [B, P, out]."""
    return torch.baddbmm(bias[:, None], x, weight.mT)


def siren(z: Tensor, w0: float) -> Tensor:
    """`sin(w0 z)`; Sitzmann et al. (arXiv 2006.09661), section 3. Any shape."""
    return torch.sin(w0 * z)


def finer(z: Tensor, w0: float) -> Tensor:
    """`sin(w0 (|z| + 1) z)`; Liu et al. (arXiv 2312.02434), their variable-periodic sine. Any shape."""
    return torch.sin(w0 * (z.abs() + 1) * z)


def coordinates(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """[H * W, 2]: (row, column) of each pixel's centre; the longer side from -1 to 1, in equal steps on both."""
    step = 2 / max(1, max(size) - 1)
    rows, columns = ((torch.arange(side, dtype=dtype) - (side - 1) / 2) * step for side in size)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)


def weight_name(layer: int) -> str:
    """Name of a layer's weight."""
    return f"layer{layer}.weight"


def bias_name(layer: int) -> str:
    """Name of a layer's bias."""
    return f"layer{layer}.bias"
