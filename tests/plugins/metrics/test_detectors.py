"""Detectors, depth models and the segmenter: equal to the library's own post-processing, turned the right way."""

from __future__ import annotations

import re
import shutil

import detectors
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_images
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    Mask2FormerForUniversalSegmentation,
    Owlv2ForObjectDetection,
)

from refcore.errors import CheckpointError
from refcore.images import Levels
from refcore_playground.render import render
from refcore_playground.world import Scene, Thing
from refcore_plugins.models.coco_classes import COCO
from refcore_plugins.models.depth import UNUSED, Nearness
from refcore_plugins.models.instance_segmentation import InstanceSegmenter, box_around, coco_name
from refcore_plugins.models.open_vocabulary_detector import load_detector

CPU = torch.device("cpu")
LABELS = ["cat", "traffic light"]


@pytest.fixture(scope="module", autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def photograph() -> Levels:
    """A photograph, 180 x 240."""
    return np.ascontiguousarray(load_sample_images().images[0][100:280, 200:440])


def test_owlv2_finds_what_the_library_finds(tmp_path, photograph):
    """The same pixels: those that the referee's test compares with the library's own preprocessing."""
    folder = detectors.owlv2(tmp_path, length=24)
    detector = load_detector("x", str(folder), CPU, torch.float32)
    found = detector(photograph, LABELS, 0.0)
    model, processor = Owlv2ForObjectDetection.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    text = processor(text=[[f"a photo of a {label}" for label in LABELS]], return_tensors="pt", padding=True)
    views = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        out = model(**text, pixel_values=detector.network.normalise(detector.network.fit(views)))
    (theirs,) = processor.post_process_grounded_object_detection(out, threshold=0.0, target_sizes=[(180, 240)])
    order = theirs["scores"].argsort(descending=True)
    assert [LABELS.index(one.label) for one in found] == theirs["labels"][order].tolist()
    assert [one.score for one in found] == pytest.approx(theirs["scores"][order].tolist(), abs=1e-6)
    inside = torch.minimum(theirs["boxes"][order].clamp(min=0), torch.tensor([240.0, 180.0, 240.0, 180.0]))
    assert np.allclose([one.box for one in found], inside.numpy(), atol=1e-3)
    assert len(found) == 16


def test_the_embedded_detector_finds_things_where_they_are_drawn():
    """The only detector here whose weights are trained: boxes are in pixels of an image that is not square."""
    things = (
        Thing("red", "circle", "solid", 10, 18, 20),
        Thing("blue", "square", "solid", 10, 32, 46),
    )
    scene = (render(Scene(things)) * 255).round().astype(np.uint8)
    image = np.ascontiguousarray(scene[:, :48])
    detector = load_detector("x", "playground:owlv2", CPU, torch.float32, query="a {}", overlap=0.5)
    found = detector(image, ["red circle", "blue square", "green star"], 0.5)
    assert sorted(one.label for one in found) == ["blue square", "red circle"]
    for one in found:
        x, y = {"red circle": (18, 20), "blue square": (32, 46)}[one.label]
        assert one.centre == pytest.approx((x, y), abs=4)


def test_grounding_dino_scores_a_name_by_its_words(tmp_path, photograph):
    folder = detectors.grounding_dino(tmp_path)
    labels = ["cat", "Traffic light", "dog"]
    found = load_detector("x", str(folder), CPU, torch.float32)(photograph, labels, 0.0)
    model, processor = (
        AutoModelForZeroShotObjectDetection.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    inputs = processor(images=photograph, text=[[label.lower() for label in labels]], return_tensors="pt")
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
    assert tokens == ["[CLS]", "cat", ".", "traffic", "light", ".", "dog", ".", "[SEP]"]
    with torch.no_grad():
        out = model.eval()(**inputs)
    p = out.logits[0].sigmoid()
    scores = torch.stack([p[:, 1], p[:, 3:5].amax(1), p[:, 6]], 1)
    best, which = scores.max(1)
    order = best.argsort(descending=True)
    assert [one.label for one in found] == [labels[i] for i in which[order].tolist()]
    assert [one.score for one in found] == pytest.approx(best[order].tolist(), abs=1e-5)
    x, y, w, h = (out.pred_boxes[0][order] * torch.tensor([240.0, 180.0, 240.0, 180.0])).unbind(1)
    boxes = torch.stack([(x - w / 2).clamp(0, 240), (y - h / 2).clamp(0, 180), (x + w / 2).clamp(0, 240)], 1)
    assert np.allclose([one.box[:3] for one in found], boxes.numpy(), atol=1e-3)


def test_a_threshold_and_an_overlap_thin_out_what_is_found(tmp_path, photograph):
    folder = str(detectors.owlv2(tmp_path, length=24))
    everything = load_detector("x", folder, CPU, torch.float32)(photograph, LABELS, 0.0)
    assert len(everything) == 16  # one for each patch
    some = load_detector("x", folder, CPU, torch.float32)(photograph, LABELS, everything[3].score)
    assert some == everything[:3]
    apart = load_detector("x", folder, CPU, torch.float32, overlap=0.3)(photograph, LABELS, 0.0)
    assert apart[0] == everything[0]
    assert len(apart) < len(everything)
    assert load_detector("x", folder, CPU, torch.float32)(photograph, [], 0.0) == []


@pytest.mark.parametrize("kind", ["hybrid", "plain", "anything"])
def test_nearness_is_the_librarys_inverse_depth(tmp_path, photograph, kind):
    folder = detectors.depth_anything(tmp_path) if kind == "anything" else detectors.dpt(tmp_path, kind == "hybrid")
    near = Nearness("x", str(folder), CPU, torch.float32)(photograph, (90, 120))
    model, processor = AutoModelForDepthEstimation.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        out = model.eval()(**processor(images=photograph, return_tensors="pt"))
    (theirs,) = processor.post_process_depth_estimation(out, target_sizes=[(90, 120)])
    assert near.shape == (90, 120)
    scale = float(np.abs(near).max())
    assert np.allclose(near / scale, theirs["predicted_depth"].numpy() / scale, atol=1e-5)
    assert near.std() > 0


@pytest.mark.parametrize("make", [detectors.depth_pro, lambda folder: detectors.depth_anything(folder, "metric")])
def test_metres_are_turned_round(tmp_path, photograph, make):
    folder = make(tmp_path)
    near = Nearness("x", str(folder), CPU, torch.float32)(photograph, (90, 120))
    model, processor = AutoModelForDepthEstimation.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        out = model.eval()(**processor(images=photograph, return_tensors="pt"))
    (theirs,) = processor.post_process_depth_estimation(out, target_sizes=[(90, 120)])
    metres = theirs["predicted_depth"].numpy()
    usual = (metres > 1e-3) & (metres < 1e3)
    assert usual.any()
    assert np.allclose(near[usual] * metres[usual], 1.0, rtol=1e-3)


def test_a_dpt_sees_the_published_side(tmp_path, photograph):
    """480 pixels, of which the hybrid's checkpoint knows nothing."""
    folder = str(detectors.dpt(tmp_path))
    at_64 = Nearness("x", folder, CPU, torch.float32, side=64)(photograph, (90, 120))
    own = Nearness("x", folder, CPU, torch.float32)(photograph, (90, 120))
    assert at_64.shape == own.shape
    assert not np.allclose(at_64, own)


def test_intels_files_lack_tensors_that_are_never_used(tmp_path, photograph):
    """And a file that lacks any other is refused."""
    folder = detectors.dpt(tmp_path / "whole")
    tensors = load_file(folder / "model.safetensors")
    lacking = shutil.copytree(folder, tmp_path / "lacking")
    unused = {name for name in tensors if re.match(UNUSED, name)}
    assert len(unused) == 4
    save_file(
        {name: tensors[name] for name in tensors.keys() - unused}, lacking / "model.safetensors", {"format": "pt"}
    )
    near = [Nearness("x", str(one), CPU, torch.float32)(photograph, (90, 120)) for one in (folder, lacking)]
    assert np.array_equal(*near)
    needed = next(name for name in sorted(tensors) if "residual_layer2" in name)
    save_file(
        {name: tensors[name] for name in tensors.keys() - {needed}}, lacking / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match="lacks 1 tensors"):
        Nearness("x", str(lacking), CPU, torch.float32)


def test_a_dpt_sees_the_image_as_the_public_code_resizes_it(tmp_path, photograph):
    """Pillow's bilinear filter, whatever the checkpoint's processor says; 0.5 off and over 0.5. Its map is as large."""
    folder = detectors.dpt(tmp_path)
    near = Nearness("x", str(folder), CPU, torch.float32, side=64)(photograph)
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    model.dpt.embeddings.image_size = (64, 64)
    seen = np.asarray(Image.fromarray(photograph).resize((64, 64), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    with torch.no_grad():
        (wanted,) = model(pixel_values=torch.from_numpy(seen).permute(2, 0, 1)[None]).predicted_depth.numpy()
    assert near.shape == wanted.shape
    assert np.abs(near - wanted).max() < 0.01 * np.abs(wanted).max()


def test_instances_are_the_librarys_with_boxes_around_their_masks(tmp_path, photograph):
    folder = detectors.mask2former(tmp_path)
    found = InstanceSegmenter("x", str(folder), CPU, torch.float32)(photograph, 0.3)
    model, processor = (
        Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval(),
        AutoImageProcessor.from_pretrained(folder),
    )
    with torch.no_grad():
        out = model(**processor(images=photograph, return_tensors="pt"))
    (theirs,) = processor.post_process_instance_segmentation(
        out, threshold=0.3, target_sizes=[(180, 240)], return_binary_maps=True
    )
    assert len(found) == len(theirs["segments_info"]) > 1
    scores = [one.detection.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert sorted(scores) == pytest.approx(sorted(one["score"] for one in theirs["segments_info"]))
    assert {one.detection.label for one in found} == {COCO[one["label_id"]] for one in theirs["segments_info"]}
    assert all(one.mask.shape == (180, 240) and one.detection.box == box_around(one.mask) for one in found)
    assert InstanceSegmenter("x", str(folder), CPU, torch.float32)(photograph, 1.0) == []


def test_a_box_lies_around_its_mask():
    mask = np.zeros((10, 12), bool)
    mask[3:5, 2] = mask[4, 7] = True
    assert box_around(mask) == (2.0, 3.0, 8.0, 5.0)


def test_names_of_classes_are_cocos():
    assert coco_name("TVmonitor") == "tv"
    assert coco_name("diningtable") == "dining table"
    assert coco_name("traffic_light") == "traffic light"
    assert coco_name("unicorn") == "unicorn"


def test_checkpoints_of_other_kinds_are_refused(tmp_path):
    folder = str(detectors.clip(tmp_path))
    with pytest.raises(CheckpointError, match="is a CLIPModel; expected an Owlv2ForObjectDetection"):
        load_detector("x", folder, CPU, torch.float32)
    with pytest.raises(CheckpointError, match="is a CLIPModel; expected a DPTForDepthEstimation"):
        Nearness("x", folder, CPU, torch.float32)
    with pytest.raises(CheckpointError, match="is a CLIPModel; expected a Mask2FormerForUniversalSegmentation"):
        InstanceSegmenter("x", folder, CPU, torch.float32)
