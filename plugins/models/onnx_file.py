"""ONNX files as frozen networks: checked as data, their nodes renamed, and converted by onnx2torch.

An ONNX file is a graph of known operations, and may not be more: operations of other domains, functions of its own,
control flow and data in files elsewhere are refused. The converter writes the names of nodes into Python source that
it runs, so the file's names never reach it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refcore.errors import CheckpointError, unknown
from refcore_plugins.models.loaded_weights import refuse_non_finite
from refcore_plugins.models.untrusted_checkpoints import reason_of

DOMAINS = ("", "ai.onnx")
"""Domains of ONNX's own operations."""
MOST_NODES = 100_000
REMEDY = "pip install 'refcore[onnx]'"
MODULES = ("onnx", "onnx2torch")


class OnnxNetwork(nn.Module):
    """One image input [N, C, H, W] or [N, H, W, C] to one tensor, of a converted graph.

    A file exported for batches of one is run image by image.
    """

    def __init__(self, graph: nn.Module, shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.graph = graph
        self.shape = shape
        """Input shape with the batch first; None where the file leaves it open."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] -> [N, ...].

        Raises:
            CheckpointError: the file's output is not one tensor with a row for each image.
        """
        parts = [x] if self.shape[0] is None else torch.split(x, 1)
        outputs = [self.graph(part) for part in parts]
        for part, output in zip(parts, outputs, strict=True):
            if not isinstance(output, Tensor) or output.shape[:1] != part.shape[:1]:
                found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise CheckpointError(f"the ONNX file returns {found} for {len(part)} images; expected a row for each")
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def load(path: Path, output: str | None = None) -> OnnxNetwork:
    """The file's network, frozen, in eval mode, in float32 on the CPU.

    Args:
        path: The ONNX file.
        output: Name of the output that counts; None: the only one, or the first.

    Raises:
        CheckpointError: the packages or the file are missing, or the file is corrupt, more than data, of operations
            that onnx2torch does not know, or without such an output.
    """
    onnx, onnx2torch = _packages()
    model = read(path)
    graph = model.graph
    names = [one.name for one in graph.output]
    if output is not None and output not in names:
        raise CheckpointError(str(unknown(f"output of {path}", output, names)))
    chosen = graph.output[names.index(output) if output is not None else 0]
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(chosen)
    del graph.output[:]
    graph.output.append(kept)
    shape = _input_shape(graph, path)
    for i, node in enumerate(graph.node):
        node.name = f"node{i}"
    try:
        converted = onnx2torch.convert(model)
    except Exception as error:  # the converter raises whatever a node's attributes lead it to
        raise CheckpointError(
            f"onnx2torch cannot convert {path}: {type(error).__name__}: {reason_of(error)}; "
            "export it with plainer operations, at opset 13 to 17"
        ) from error
    network = OnnxNetwork(converted, shape)
    refuse_non_finite(network.state_dict().items(), f"the ONNX file {path}", "export it again")
    return network.eval().requires_grad_(False)


def read(path: Path) -> Any:
    """The file as onnx's ModelProto, with the data of files beside it; checked as `load` says.

    Raises:
        CheckpointError: as `load`.
    """
    onnx, _ = _packages()
    if not path.is_file():
        raise CheckpointError(f"there is no ONNX file {path}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's decoder has errors of its own, in C++ and in Python
        raise CheckpointError(f"{path} cannot be read as ONNX: {type(error).__name__}: {reason_of(error)}") from error
    _refuse_more_than_data(model, path)
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _refuse_outside(tensor, path)
    try:
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
        onnx.checker.check_model(model)
    except Exception as error:
        raise CheckpointError(f"{path} is no valid ONNX: {type(error).__name__}: {reason_of(error)}") from error
    return model


def _packages() -> tuple[Any, Any]:
    try:
        onnx, onnx2torch = (importlib.import_module(name) for name in MODULES)
    except ImportError as error:
        raise CheckpointError(f"an ONNX file needs the package {error.name}: {REMEDY}") from error
    return onnx, onnx2torch


def _refuse_more_than_data(model: Any, path: Path) -> None:
    if len(model.functions):
        raise CheckpointError(f"{path} defines functions of its own ({model.functions[0].name}); export it without")
    if len(model.graph.node) > MOST_NODES:
        raise CheckpointError(f"{path} has {len(model.graph.node)} nodes; expected at most {MOST_NODES}")
    for node in model.graph.node:
        if node.domain not in DOMAINS:
            raise CheckpointError(
                f'{path} has the operation {node.op_type} of the domain "{node.domain}"; expected ONNX\'s own alone'
            )
        for attribute in node.attribute:
            if attribute.HasField("g") or len(attribute.graphs):
                raise CheckpointError(f"{path} has control flow ({node.op_type}); export it without")


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor with data of a graph without control flow."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _refuse_outside(tensor: Any, path: Path) -> None:
    """Raises unless a tensor's data is in a plain file of the ONNX file's own folder, or below it."""
    folder = path.resolve().parent
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    place = (folder / location).resolve()
    if not location or not place.is_relative_to(folder) or not place.is_file():
        raise CheckpointError(
            f'{path}: the data of tensor "{tensor.name[:60]}" is to come from "{location[:100]}"; '
            "expected a file in the same folder"
        )


def _input_shape(graph: Any, path: Path) -> tuple[int | None, ...]:
    """(batch, ...) of the only input, None where the file leaves it open."""
    held = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in held]
    if len(inputs) != 1:
        raise CheckpointError(f"{path} has {len(inputs)} inputs; expected one, the image")
    dimensions = inputs[0].type.tensor_type.shape.dim
    if len(dimensions) != 4:
        raise CheckpointError(f"{path} takes {len(dimensions)} dimensions; expected 4: batch, channels and two sides")
    shape = tuple(one.dim_value if one.HasField("dim_value") and one.dim_value > 0 else None for one in dimensions)
    if shape[0] not in (1, None):
        raise CheckpointError(f"{path} takes batches of {shape[0]}; expected an open batch, or 1")
    return shape
