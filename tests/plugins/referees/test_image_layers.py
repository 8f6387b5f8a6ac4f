"""The `image-layers` referee: CLIPasso's loss written out, and the reference in the same views as the image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP
from PIL import Image
from safetensors.torch import save_file
from tiny import MEAN, SIZE, STD, loaded, scramble
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore_plugins.referees.image.layers import ImageLayers

BLOCKS = {"transformer.resblocks.0": 0.5, "transformer.resblocks.1": 2.0}
STAGES = {"layer2": 1.0, "layer3": 0.5}


@pytest.fixture
def reference(photographs: list[Image.Image], tmp_path: Path) -> Path:
    photographs[0].resize((SIZE, SIZE)).save(tmp_path / "reference.png")
    return tmp_path / "reference.png"


@pytest.fixture(scope="module")
def resnet_folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP whose image tower is a ResNet, as CLIPasso's RN101."""
    folder = tmp_path_factory.mktemp("resnet")
    shutil.copytree(clip_folder, folder, dirs_exist_ok=True)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    model = CLIP(**{**config["model_cfg"], "vision_cfg": config["model_cfg"]["vision_cfg"]})
    scramble(model, 5)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def stages(visual: Any, x: Tensor) -> dict[str, Tensor]:
    """The activations of a ResNet's four stages, one after the other."""
    x = visual.stem(x)
    found = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = found[name] = getattr(visual, name)(x)
    return found


def test_the_loss_is_clipassos_on_a_resnet(resnet_folder: Path, reference: Path) -> None:
    """Mean squared distances of the stages by their weights, and 0.1 of the cosine distance of the embeddings."""
    model_name = f"local-dir:{resnet_folder}"
    referee = loaded(ImageLayers(reference=str(reference), model=model_name, layers=STAGES), torch.float64)
    model = open_clip.create_model(model_name).double().eval()
    normal = (torch.tensor(MEAN).view(3, 1, 1).double(), torch.tensor(STD).view(3, 1, 1).double())
    views, beside = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (x, y) = ((each - normal[0]) / normal[1] for each in (views, beside))
    with torch.no_grad():
        ours, theirs = stages(model.visual, x), stages(model.visual, y)
        expected = 0.1 * (1 - F.cosine_similarity(model.encode_image(x), model.encode_image(y)))
        for name, weight in STAGES.items():
            expected = expected + weight * (ours[name] - theirs[name]).square().mean((1, 2, 3))
    conditioning, first = referee.read([""]), torch.zeros(3, dtype=torch.int64)
    found = referee.judge_beside(views, beside, conditioning, first)
    assert torch.allclose(found, expected, rtol=1e-6)
    assert referee.judge_beside(views, beside, conditioning, first, wanted=False).max() < 1


def run(reference: Path, clip_folder: Path, **views: Any) -> Inversion:
    return Inversion(
        RunConfig.from_settings(
            {
                "canvas": {"name": "pixel"},
                "size": SIZE,
                "init": str(reference),
                "referees": [
                    {
                        "name": "image-layers",
                        "config": {
                            "reference": str(reference),
                            "model": f"local-dir:{clip_folder}",
                            "layers": BLOCKS,
                        },
                    }
                ],
                "views": {"main": {"count": 4, **views}},
                "prompts": ["a picture"],
                "steps": 2,
                "dtype": "float64",
            }
        )
    )


@pytest.mark.parametrize(
    "augment",
    [
        [],
        [{"name": "affine", "config": {"degrees": 30.0}}, {"name": "resized_crop"}],
        [{"name": "color_jitter"}, {"name": "erasing", "config": {"p": 1.0}}, {"name": "gaussian_noise"}],
    ],
)
def test_an_image_that_is_the_reference_has_no_loss_in_any_view(
    augment: list[dict[str, Any]], clip_folder: Path, reference: Path
) -> None:
    """The reference has the same random changes as the image, so it looks the same in each view."""
    panel = run(reference, clip_folder, augment=augment).engine.panel
    image = to_tensor(Image.open(reference))[None].double()
    assert panel.losses(image, group="main")["image-layers"].item() < 1e-9
    assert panel.losses(image.flip(3), group="main")["image-layers"].item() > 1e-3
    assert panel.scores(image)["image-layers"].item() == pytest.approx(1.0, abs=1e-5)


def test_its_gradient_leads_to_the_reference(clip_folder: Path, reference: Path) -> None:
    inversion = run(reference, clip_folder, augment=[{"name": "affine", "config": {"degrees": 20.0}}])
    image = to_tensor(Image.open(reference))[None].double()
    off = (0.9 * image + 0.1 * torch.rand_like(image)).requires_grad_()
    engine = inversion.engine
    ((_, gradient, before),) = engine.panel.gradients(off, engine.keys, [0], Moment(0, 2))
    nearer = (off - 1e-3 * gradient / gradient.abs().max()).detach().requires_grad_()
    ((_, _, after),) = engine.panel.gradients(nearer, engine.keys, [0], Moment(0, 2))
    assert after.item() < before.item()


def test_a_layer_that_the_tower_lacks_is_refused_with_those_that_it_has(clip_folder: Path, reference: Path) -> None:
    referee = ImageLayers(reference=str(reference), model=f"local-dir:{clip_folder}", layers={"layer2": 1.0})
    with pytest.raises(RefcoreError, match=r'has no layer "layer2"; expected one such as transformer\.resblocks\.0'):
        loaded(referee)


def test_it_holds_the_contract(clip_folder: Path, reference: Path, holds_the_contract: Any) -> None:
    referee = ImageLayers(reference=str(reference), model=f"local-dir:{clip_folder}", layers=BLOCKS)
    holds_the_contract(loaded(referee, torch.float64), reads_prompts=False)
