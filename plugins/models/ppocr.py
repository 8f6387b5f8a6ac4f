"""The text recogniser of PP-OCRv4 as a torch network, with the tensors of the package `rapidocr-onnxruntime`.

The file is ONNX, of which the tensors and the alphabet are read and nothing is run. The architecture is
PP-OCRv4's (arXiv 2109.03144 and its successors): a MobileNet-like PPLCNetV3 of 28 convolutions, a neck of two
transformer blocks (SVTR, arXiv 2205.00159), and a linear layer over the alphabet for every eight pixels of width.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refcore.errors import CheckpointError

REMEDY = "pip install 'refcore[ocr]'"
HEIGHT = 48
"""Height in pixels of the views; the network reduces it to one row."""
STRIDE = 8
"""Pixels of width for each step of the reading."""
FILE = "ch_PP-OCRv4_rec_infer.onnx"
MEAN = STD = 0.5
"""Inputs are (x - 0.5) / 0.5, as in rapidocr's `resize_norm_img`."""
EMBEDDING, HEADS, MIXERS = 120, 8, 2
DEPTHWISE: tuple[tuple[int, tuple[int, int]], ...] = (
    (3, (1, 1)), (3, (1, 1)), (3, (1, 1)), (3, (2, 1)), (3, (1, 1)), (3, (1, 2)), (5, (1, 1)),
    (5, (1, 1)), (5, (1, 1)), (5, (1, 1)), (5, (2, 1)), (5, (1, 1)), (5, (2, 1)), (5, (1, 1)),
)  # fmt: skip
"""Kernel and stride (down, across) of each of the 14 depthwise convolutions; a pointwise one follows each."""
SQUEEZED = (10, 11)
"""Depthwise convolutions with squeeze-and-excitation after them."""


class Scaled(nn.Module):
    """A convolution, hard swish, and an affine map with one scale and one shift for all channels."""

    scale: Tensor
    shift: Tensor

    def __init__(self, conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(self.conv(x)) * self.scale + self.shift


class Squeeze(nn.Module):
    """Squeeze-and-excitation: channels scaled by a small network of their means."""

    def __init__(self, down: nn.Conv2d, up: nn.Conv2d) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Mixer(nn.Module):
    """A transformer block, normalised before attention and before the perceptron."""

    def __init__(self, norms: tuple[nn.LayerNorm, nn.LayerNorm], linears: list[nn.Linear]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.qkv, self.out, self.up, self.down = linears

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        attended = torch.softmax(q @ k.transpose(-1, -2) * (width // HEADS) ** -0.5, -1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, width))
        mixed: Tensor = x + self.down(F.silu(self.up(self.norm2(x))))
        return mixed


class Recogniser(nn.Module):
    """[N, 3, 48, W] in [-1, 1], W a multiple of 8, -> logits [N, W / 8, C] over blank, alphabet and space."""

    def __init__(self, backbone: nn.Sequential, neck: nn.ModuleList, mixers: nn.Sequential, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.backbone, self.neck, self.mixers, self.norm = backbone, neck, mixers, norm
        self.head: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        features = F.avg_pool2d(self.backbone(x), (3, 2))
        narrow, widen, back, merge, last = self.neck
        mixed = F.silu(widen(F.silu(narrow(features))))
        tokens = self.norm(self.mixers(mixed.flatten(2).transpose(1, 2)))
        mixed = F.silu(back(tokens.transpose(1, 2).unsqueeze(2)))
        out = F.silu(last(F.silu(merge(torch.cat([features, mixed], 1)))))
        logits: Tensor = self.head(out.squeeze(2).transpose(1, 2))
        return logits


def weights_file() -> Path:
    """Path of the recogniser's ONNX file inside the installed package, which is not imported.

    Raises:
        CheckpointError: the package is not installed, or lacks the file.
    """
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"the recogniser PP-OCRv4 is in the package rapidocr-onnxruntime: {REMEDY}")
    path = Path(next(iter(spec.submodule_search_locations))) / "models" / FILE
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; reinstall: pip install --force-reinstall rapidocr-onnxruntime")
    return path


def recogniser(path: Path | None = None) -> tuple[Recogniser, tuple[str, ...]]:
    """The frozen network in eval mode, float32 on the CPU, and its classes: "" for the blank, the alphabet, the space.

    Batch normalisation and the scale after each convolution are folded into it, so outputs equal those of the file up
    to rounding.

    Args:
        path: The ONNX file; by default that of the installed package.

    Raises:
        CheckpointError: a package is not installed, or the file is unreadable or of another network.
    """
    path = weights_file() if path is None else path
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise CheckpointError(f"reading {path.name} needs the package {error.name}: {REMEDY}") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
        alphabet = {entry.key: entry.value for entry in model.metadata_props}["character"].splitlines()
        network = _assembled(_Reader(onnx, model.graph))
        classes = ("", *alphabet, " ")
        if network.head.out_features != len(classes):
            raise ValueError(f"{network.head.out_features} outputs for {len(classes)} classes")
    except Exception as error:  # protobuf's, and whatever a file of another network leads to
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} is not the recogniser of PP-OCRv4 ({reason}); reinstall: "
            "pip install --force-reinstall rapidocr-onnxruntime==1.4.4"
        ) from error
    return network.eval().requires_grad_(False), classes


class _Reader:
    """Takes the layers of an ONNX graph in the order of the forward pass."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        nodes = list(graph.node)
        to_array = onnx.numpy_helper.to_array
        self.tensors: dict[str, Tensor] = {
            node.output[0]: torch.from_numpy(to_array(node.attribute[0].t).copy())
            for node in nodes
            if node.op_type == "Constant"
        }
        self.convs = iter([node for node in nodes if node.op_type == "Conv"])
        self.norms = iter([node for node in nodes if node.op_type == "BatchNormalization"])
        linear = [node.input[1] for node in nodes if node.op_type == "MatMul" and node.input[1] in self.tensors]
        self.linears = iter(linear)
        self.layer_norms = iter(
            sorted(name for name in self.tensors if name.startswith("layer_norm_") and ".w_" in name)
        )

    def conv(
        self, stride: tuple[int, int] = (1, 1), scale: Tensor | None = None, shift: Tensor | None = None
    ) -> nn.Conv2d:
        """The next convolution, padded to "same", with an affine map after it folded in."""
        names = list(next(self.convs).input)[1:]
        weight = self.tensors[names[0]]
        bias = self.tensors[names[1]] if len(names) > 1 else torch.zeros(len(weight))
        if scale is not None and shift is not None:
            weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale + shift
        out, per_group, *kernel = weight.shape
        depthwise = per_group == 1
        conv = nn.Conv2d(
            out if depthwise else per_group, out, (kernel[0], kernel[1]), stride, (kernel[0] // 2, kernel[1] // 2),
            groups=out if depthwise else 1,
        )  # fmt: skip
        conv.load_state_dict({"weight": weight, "bias": bias})
        return conv

    def normalised(self, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
        """The next convolution with the next batch normalisation."""
        node = next(self.norms)
        gamma, beta, mean, var = (self.tensors[name] for name in list(node.input)[1:])
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        scale = gamma / (var + epsilon).sqrt()
        return self.conv(stride, scale, beta - mean * scale)

    def scaled(self, index: int, stride: tuple[int, int] = (1, 1)) -> Scaled:
        """The next convolution with the `index`-th pair of affine maps, before and after hard swish."""
        before, after = f"mobile_one_block_{index}", f"whswish_b_{index + 1}"
        conv = self.conv(stride, self.tensors[f"{before}.w_0"], self.tensors[f"{before}.w_1"])
        return Scaled(conv, self.tensors[f"{after}.w_0"], self.tensors[f"{after}.w_1"])

    def linear(self) -> nn.Linear:
        name = next(self.linears)
        weight, bias = self.tensors[name].T.contiguous(), self.tensors[name.replace(".w_", ".b_")]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        return linear

    def layer_norm(self, epsilon: float) -> nn.LayerNorm:
        name = next(self.layer_norms)
        norm = nn.LayerNorm(EMBEDDING, eps=epsilon)
        norm.load_state_dict({"weight": self.tensors[name], "bias": self.tensors[name.replace(".w_", ".b_")]})
        return norm


def _assembled(take: _Reader) -> Recogniser:
    layers: list[nn.Module] = [take.normalised((2, 2))]
    for i, (kernel, stride) in enumerate(DEPTHWISE):
        depthwise = take.scaled(2 * i, stride)
        if depthwise.conv.kernel_size != (kernel, kernel):
            raise ValueError(f"convolution {2 * i} has a kernel of {depthwise.conv.kernel_size}")
        squeeze = [Squeeze(take.conv(), take.conv())] if i in SQUEEZED else []
        layers += [depthwise, *squeeze, take.scaled(2 * i + 1)]
    neck = [take.normalised(), take.normalised()]
    mixers = nn.Sequential(
        *(
            Mixer((take.layer_norm(1e-5), take.layer_norm(1e-5)), [take.linear() for _ in range(4)])
            for _ in range(MIXERS)
        )
    )
    norm = take.layer_norm(1e-6)
    neck += [take.normalised(), take.normalised(), take.normalised()]
    network = Recogniser(nn.Sequential(*layers), nn.ModuleList(neck), mixers, norm)
    network.head = take.linear()
    return network
