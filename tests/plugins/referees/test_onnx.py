"""The `onnx` referee: what the file computes, which prompts it answers, and that a file is data."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import loaded, refusal_of
from torch import Tensor, nn

pytest.importorskip("onnx", reason="extra `onnx` is not installed")
pytest.importorskip("onnx2torch", reason="extra `onnx` is not installed")

from onnx import TensorProto, helper, numpy_helper

from refcore import images, testing
from refcore.engine.views import resize
from refcore.errors import RefcoreError
from refcore_plugins.models.coco_classes import COCO, OF_IMAGENET, SYNONYMS
from refcore_plugins.models.imagenet_classes import ClassNames
from refcore_plugins.referees.onnx import Onnx

SIDE, CLASSES = 32, 4
LABELS = ["cat", "dog", "red fox", "barn"]
ROOT = Path(__file__).parents[3]
WEIGHTS = Path(os.environ.get("REFCORE_TEST_WEIGHTS", ROOT.parent / "shared" / "weights"))
FASTESTDET = WEIGHTS / "FastestDet.onnx"


def weights(channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(0, 0.3, (8, 3, 3, 3)).astype("f4"),
        "bias": rng.normal(0, 0.3, 8).astype("f4"),
        "kernel2": rng.normal(0, 1.0, (channels, 8, 1, 1)).astype("f4"),
    }


def model_of(
    batch: int | str = "N", detector: bool = False, nhwc: bool = False, names: tuple[str, ...] = (), **changed: Any
) -> Any:
    """conv, ReLU, conv, and the mean over the map; or with the activations of FastestDet. Opset 13."""
    channels = 5 + CLASSES if detector else CLASSES
    held = [numpy_helper.from_array(value, name) for name, value in weights(channels).items()]
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "kernel2"], ["c"]),
    ]
    if nhwc:
        nodes[0].input[0] = "turned"
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]))
    if detector:
        held.append(numpy_helper.from_array(np.array([1, 4, CLASSES]), "parts"))
        nodes += [
            helper.make_node("Split", ["c", "parts"], ["object", "box", "class"], axis=1),
            helper.make_node("Sigmoid", ["object"], ["o"]),
            helper.make_node("Softmax", ["class"], ["k"], axis=1),
            helper.make_node("Concat", ["o", "box", "k"], ["y"], axis=1),
        ]
    else:
        nodes += [
            helper.make_node("GlobalAveragePool", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["y"]),
        ]
    for node, name in zip(nodes, names, strict=False):
        node.name = name
    shape = [batch, SIDE, SIDE, 3] if nhwc else [batch, 3, SIDE, SIDE]
    output = [batch, channels, SIDE // 2, SIDE // 2] if detector else [batch, channels]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, **changed)


def written(path: Path, model: Any) -> str:
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path / "tiny.onnx", model_of())


def referee_of(file: str, **fields: Any) -> Onnx:
    return loaded(Onnx(file=file, **{"labels": LABELS, **fields}))


def computed(x: Tensor, channels: int = CLASSES) -> Tensor:
    """[N, channels, 16, 16]: what the file's convolutions give of its input, by torch itself."""
    held = {name: torch.from_numpy(value) for name, value in weights(channels).items()}
    hidden = nn.functional.conv2d(x, held["kernel"], held["bias"], stride=2, padding=1).relu()
    return nn.functional.conv2d(hidden, held["kernel2"])


def views(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


# What it computes


@pytest.mark.parametrize("batch", ["N", 1])
def test_logits_are_those_of_the_file_whatever_its_batch(batch: int | str, tmp_path: Path) -> None:
    referee = referee_of(written(tmp_path / "tiny.onnx", model_of(batch)))
    torch.testing.assert_close(referee.evidence(views()), computed(views()).mean((2, 3)))


def test_layout_channels_scale_mean_and_std_are_those_of_the_config(tmp_path: Path) -> None:
    file = written(tmp_path / "tiny.onnx", model_of(nhwc=True))
    referee = referee_of(file, layout="nhwc", channels="bgr", scale=255, mean=[10, 20, 30], std=[50, 60, 70])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((10.0, 20.0, 30.0), (50.0, 60.0, 70.0)))
    expected = computed((255 * views().flip(1) - mean) / std).mean((2, 3))
    torch.testing.assert_close(referee.evidence(views()), expected, atol=1e-4, rtol=1e-4)


def test_a_detectors_probability_is_the_largest_product_over_the_cells(tmp_path: Path) -> None:
    referee = referee_of(written(tmp_path / "tiny.onnx", model_of(1, detector=True)), head="fastestdet")
    raw = computed(views(), 5 + CLASSES)
    p = (raw[:, :1].sigmoid() * raw[:, 5:].softmax(1)).amax((2, 3))
    conditioning = referee.read(["dog", "barn", "cat and dog"])
    expected = torch.stack([p[0, 1], p[1, 3], (p[2, 0] + p[2, 1]) / 2])
    torch.testing.assert_close(referee.score(views(), conditioning), expected)
    index = torch.tensor([0, 1, 2])
    odds = (p.log() - torch.log1p(-p)).neg()
    losses = torch.stack([odds[0, 1], odds[1, 3], (odds[2, 0] + odds[2, 1]) / 2])
    torch.testing.assert_close(referee.judge(views(), conditioning, index), losses)
    unwanted = -torch.stack([(1 - p[0, 1]).log(), (1 - p[1, 3]).log(), ((1 - p[2, 0]) * (1 - p[2, 1])).log()])
    torch.testing.assert_close(referee.judge(views(), conditioning, index, wanted=False), unwanted)
    assert referee.guess(views()) == [LABELS[i] for i in p.argmax(1)]


def test_a_file_that_ends_in_a_softmax_is_read_as_probabilities(tmp_path: Path) -> None:
    model = model_of()
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("Softmax", ["z"], ["y"], axis=1))
    referee = referee_of(written(tmp_path / "tiny.onnx", model), head="probabilities")
    p = computed(views(1)).mean((2, 3)).softmax(1)
    torch.testing.assert_close(referee.score(views(1), referee.read(["red fox"])), p[:, 2])


def test_another_output_can_be_named(tmp_path: Path) -> None:
    model = model_of()
    model.graph.output.insert(0, helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 8, 16, 16]))
    file = written(tmp_path / "tiny.onnx", model)
    assert "returns [2, 8, 16, 16]; expected [N, C]" in refusal_of(Onnx(file=file, labels=LABELS))
    assert referee_of(file, output="y").evidence(views()).shape == (3, CLASSES)
    assert "unknown output of" in refusal_of(Onnx(file=file, labels=LABELS, output="w"))


@pytest.mark.parametrize("head", ["logits", "fastestdet"])
@pytest.mark.parametrize("check", testing.CHECKS["referees"])
def test_it_keeps_the_contract(check: str, head: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = written(tmp_path_factory.mktemp("onnx") / "tiny.onnx", model_of(detector=head == "fastestdet"))
    case = testing.Case(Onnx(file=file, labels=LABELS, head=head), prompts=("cat", "dog", "barn"))
    try:
        testing.run(check, case)
    except testing.NotApplicable as why:
        pytest.skip(str(why))


# Prompts


def test_a_prompt_names_one_label_or_several(file: str) -> None:
    referee = referee_of(file)
    assert referee.read(["a red fox.", "cat, dog and barn"])["target"].tolist() == [
        [0, 0, 1, 0],
        pytest.approx([1 / 3, 1 / 3, 0, 1 / 3]),
    ]
    with pytest.raises(RefcoreError, match=r'"dgo" names no label of .*did you mean "dog"\?'):
        referee.read(["dgo"])


def test_labels_may_be_in_a_file_and_must_be_as_many_as_the_classes(file: str, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(LABELS) + "\n")
    assert referee_of(file, labels_file=str(names)).labels == tuple(LABELS)
    names.write_text("one\ntwo\n")
    assert "tells 4 classes apart, but there are 2 labels" in refusal_of(Onnx(file=file, labels_file=str(names)))
    assert "tells 4 classes apart, but there are 80 labels" in refusal_of(Onnx(file=file, labels="coco"))


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("golden retriever", "dog"),
        ("African elephant", "elephant"),
        ("a bald eagle", "bird"),
        ("aeroplane", "airplane"),
        ("airliner", "airplane"),
        ("tabby cat", "cat"),
        ("zebra", "zebra"),
    ],
)
def test_an_imagenet_class_stands_for_the_coco_class_that_it_is_a_kind_of(prompt: str, label: str) -> None:
    target, note = Onnx(file="none.onnx", labels="coco")._target(prompt, COCO)
    assert target == {COCO.index(label): 1.0}
    assert note == ("" if prompt == label else f"labels: {label}")


@pytest.mark.parametrize("prompt", ["volcano", "teapot", "timber wolf", "red fox"])
def test_what_coco_has_no_class_for_is_refused(prompt: str) -> None:
    with pytest.raises(RefcoreError, match=f'"{prompt}" names no label'):
        Onnx(file="none.onnx", labels="coco")._target(prompt, COCO)


def test_cocos_classes_are_80_and_those_of_imagenet_exist() -> None:
    assert len(COCO) == len(set(COCO)) == 80
    assert set(SYNONYMS.values()) <= set(COCO)
    names = ClassNames.known().names
    assert {names[i] for i, k in OF_IMAGENET.items() if COCO[k] == "train"} == {
        "bullet train",
        "electric locomotive",
        "passenger car",
        "steam locomotive",
    }


# A file is data


def test_a_name_that_would_be_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx2torch writes a node's name, quotes and all, into source that torch.fx runs at the first call."""
    marker = tmp_path / "marker"
    code = f'x", open({str(marker)!r}, "w"))("'
    monkeypatch.chdir(tmp_path)
    model = model_of(names=(code, code.replace(".", "/"), 'a"+str(1/0)+"'))
    referee = referee_of(written(tmp_path / "tiny.onnx", model))
    torch.testing.assert_close(referee.evidence(views()), computed(views()).mean((2, 3)))
    assert not marker.exists()


def external(model: Any, location: str) -> Any:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


@pytest.mark.parametrize("location", ["../kernel.bin", "/etc/hostname", "missing.bin", "link.bin", ""])
def test_data_from_outside_the_files_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "kernel.bin").write_bytes(weights(CLASSES)["kernel"].tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "kernel.bin")
    file = written(folder / "tiny.onnx", external(model_of(), location))
    assert f'is to come from "{location}"; expected a file in the same folder' in refusal_of(Onnx(file=file))


def test_data_in_a_file_beside_is_read(tmp_path: Path) -> None:
    (tmp_path / "kernel.bin").write_bytes(weights(CLASSES)["kernel"].tobytes())
    referee = referee_of(written(tmp_path / "tiny.onnx", external(model_of(), "kernel.bin")))
    torch.testing.assert_close(referee.evidence(views()), computed(views()).mean((2, 3)))


def custom(model: Any) -> Any:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def branching(model: Any) -> Any:
    graph = helper.make_graph([], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["y"], ["w"], then_branch=graph, else_branch=graph))
    return model


def with_function(model: Any) -> Any:
    node = helper.make_node("Relu", ["i"], ["o"])
    model.functions.append(helper.make_function("own", "F", ["i"], ["o"], [node], [helper.make_opsetid("", 13)]))
    return model


def with_nan(model: Any) -> Any:
    values = weights(CLASSES)["bias"]
    values[0] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "bias"))
    return model


def two_inputs(model: Any) -> Any:
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    return model


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (custom, 'the operation Relu of the domain "com.example"; expected ONNX\'s own alone'),
        (branching, "has control flow"),
        (with_function, "defines functions of its own"),
        (with_nan, "has NaN or infinity"),
        (two_inputs, "has 2 inputs; expected one"),
    ],
)
def test_a_file_that_is_more_than_a_plain_network_is_refused(change: Any, told: str, tmp_path: Path) -> None:
    assert told in refusal_of(Onnx(file=written(tmp_path / "tiny.onnx", change(model_of()))))


def test_a_file_that_is_no_onnx_and_one_that_is_missing_are_told_by_path(tmp_path: Path) -> None:
    (tmp_path / "wrong.onnx").write_bytes(b"\xff\x00 not a protobuf")
    assert "wrong.onnx cannot be read as ONNX" in refusal_of(Onnx(file=str(tmp_path / "wrong.onnx")))
    with pytest.raises(RefcoreError, match="there is no such file or folder; name an ONNX file"):
        Onnx(file=str(tmp_path / "none.onnx")).check()


def test_the_size_is_that_of_the_file(file: str) -> None:
    assert referee_of(file).input_size == (SIDE, SIDE)
    assert f"size is 64, but {file} takes 32 x 32" in refusal_of(Onnx(file=file, size=64))


# A real detector


@pytest.mark.skipif(not FASTESTDET.is_file(), reason=f"{FASTESTDET} is not there")
@pytest.mark.parametrize(("picture", "prompt"), [("chelsea.png", "cat"), ("astronaut.png", "person")])
def test_fastestdet_names_photographs(picture: str, prompt: str) -> None:
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image is not installed")
    data = Path(package.origin).parent / "data"
    referee = loaded(Onnx(file=str(FASTESTDET), head="fastestdet", labels="coco", channels="bgr"))
    seen = resize(images.read(data / picture)[None], referee.input_size)
    conditioning = referee.read([prompt])
    assert referee.rank(seen, conditioning).item() == 1
    assert referee.score(seen, conditioning).item() > 0.5
