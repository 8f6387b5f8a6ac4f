"""Pictures and models of other people: images, checkpoints, ONNX files, and sources of conversions."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.cases import PROMPT, Case, Draw, dumped, image, small
from fuzz.pictures import ENDS, files
from fuzz.values import encodable, mutated, spoiled
from hypothesis import strategies as st
from safetensors.torch import save_file

from refcore import checkpoints


def pictures(draw: Draw, folder: Path) -> Case:
    name = "image." + draw(st.sampled_from(ENDS))
    content = draw(files())
    (folder / name).write_bytes(content)
    path = str(folder / name)
    command = draw(st.integers(0, 3))
    if command == 0:
        return Case(("judge", path, PROMPT), (name,))
    if command == 1:
        return Case(("score", path, PROMPT, "--referee", "clip"), (name,))
    if command == 2:
        return Case(("config", "validate", "--set", f"init={path}", "--set", f"prompts=['{PROMPT}']"), ("init", name))
    return Case(("invert", PROMPT, "--config", small(folder), "--set", f"init={path}"), ("init", name))


LINKED = ("clip", "owlv2", "blip2", "diffusion")


def checkpoint_folders(draw: Draw, folder: Path) -> Case:
    kind = draw(st.sampled_from(LINKED))
    copy = folder / kind
    shutil.copytree(checkpoints.zoo() / kind, copy, copy_function=os.link if _same_device(folder) else shutil.copy)
    names = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        spoil(draw, copy / name)
    image(folder)
    if kind == "diffusion":
        assigned = f"priors=[{{name: sds, config: {{model: '{copy}'}}}}]"
        run = (
            "invert",
            PROMPT,
            "--config",
            small(folder),
            "--set",
            "canvas={name: latent, config: {model: 'playground:diffusion'}}",
            "--set",
            "size=null",
        )
        return Case((*run, "--set", assigned), ())
    if draw(st.integers(0, 5)) == 0:
        return Case(("doctor", "--set", f"referees.{kind}.config.model={copy}"), ())
    model = f"local-dir:{copy}" if kind == "clip" else str(copy)
    return Case(
        (
            "score",
            str(folder / "image.png"),
            PROMPT,
            "--referee",
            kind,
            "--set",
            f"referees.{kind}.config.model={model}",
        ),
        (),
    )


def _same_device(folder: Path) -> bool:
    return folder.stat().st_dev == checkpoints.zoo().stat().st_dev


def spoil(draw: Draw, path: Path) -> None:
    """Changes a file of a checkpoint, which may be a link to the real one."""
    content = path.read_bytes()
    path.unlink()
    change = draw(st.integers(0, 9))
    if change == 0:
        return
    if change == 1:
        path.mkdir()
        return
    if change == 2:
        os.mkfifo(path)
        return
    if path.suffix == ".json" and change < 8:
        structure, _ = draw(mutated(json.loads(content)))
        path.write_text(encodable(dumped(structure)))
    elif path.suffix == ".safetensors" and change < 8:
        path.write_bytes(draw(st.one_of(spoiled_safetensors(content), spoiled(content))))
    else:
        path.write_bytes(draw(spoiled(content)))


@st.composite
def spoiled_safetensors(draw: Draw, content: bytes) -> bytes:
    """A safetensors file with another header: sizes, dtypes, shapes and offsets that lie."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    change = draw(st.integers(0, 3))
    if change == 0:
        claimed = draw(st.sampled_from((0, 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)))
        return claimed.to_bytes(8, "little") + content[8 : draw(st.sampled_from((8, 100, len(content))))]
    if change == 1:
        header, _ = draw(mutated(header, 1))
    else:
        name = draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
        entry = header[name]
        kinds = ("F16", "F64", "BF16", "I64", "BOOL", "F8_E4M3", "U8", "X")
        shapes = ([], [0], [2**40, 2**40], [-1], entry["shape"][::-1], [1, *entry["shape"]])
        if change == 2:
            entry["dtype"] = draw(st.sampled_from(kinds))
        else:
            entry["shape"] = draw(st.sampled_from(shapes))
    text = encodable(dumped(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


@functools.cache
def onnx_file() -> bytes:
    """A network that averages colours, as ONNX."""
    from onnx import TensorProto, helper

    shape = [1, 3, 16, 16]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["y"], "flat"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])]
    graph = helper.make_graph(nodes, "means", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()  # type: ignore


def onnx_files(draw: Draw, folder: Path) -> Case:
    words = (b"node0", b"'); import os; os.system('id') #", b"external", b"../../etc/passwd", b"Loop", b"If")
    file = folder / "it.onnx"
    file.write_bytes(draw(st.one_of(st.just(onnx_file()), spoiled(onnx_file(), words), spoiled(onnx_file(), words))))
    labels = draw(
        st.sampled_from(
            ("labels: [a, b, c]", "labels: coco", f"labels_file: '{folder / 'labels.txt'}'", "labels_file: /dev/zero")
        )
    )
    (folder / "labels.txt").write_bytes(draw(st.one_of(st.just(b"a\nb\nc\n"), st.binary(max_size=20))))
    image(folder)
    assigned = f"referees=[{{name: onnx, config: {{file: '{file}', size: 16, {labels}}}}}]"
    return Case(("score", str(folder / "image.png"), "a", "--config", small(folder), "--set", assigned), ())


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


CONVERSIONS = (
    "clip-weights",
    "hf-clip-weights",
    "blip2-itg",
    "hpsv2-weights",
    "image-reward-checkpoint",
    "aesthetic-head",
)


def conversions(draw: Draw, folder: Path) -> Case:
    source = folder / "source.bin"
    marker = folder / "marker"
    tensors = {"a": torch.ones(2), "layers.0.weight": torch.zeros(1, 4), "state_dict": {"b": torch.ones(3)}}
    content: Any = draw(
        st.sampled_from(
            (tensors, {}, [], 3, {"evil": Payload(marker)}, Payload(marker), {1: torch.ones(1)}, {"a": np.ones(2)})
        )
    )
    change = draw(st.integers(0, 4))
    if change == 0:
        source.write_bytes(pickle.dumps(content))
    elif change == 1:
        save_file({"a": torch.ones(2)}, source)
    elif change == 2:
        with source.open("wb") as file:
            np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=draw(st.booleans()))
    if draw(st.booleans()):
        source.write_bytes(
            draw(spoiled(source.read_bytes(), (b"cos\nsystem\n(S'id'\ntR.", b"\x80\x04", b"PK\3\4", b".")))
        )
    out = draw(st.sampled_from(("out/model.safetensors", "out", str(source), "/proc/x.safetensors", "out/x.bin")))
    return Case(("convert", draw(st.sampled_from(CONVERSIONS)), str(source), out), ())
