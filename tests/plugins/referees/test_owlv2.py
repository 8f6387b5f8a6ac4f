"""The `owlv2` referee: equal to OWLv2 in transformers, and its probability to one counted by hand."""

from __future__ import annotations

import math
import random
import shutil
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from tiny import loaded, refusal_of
from transformers import AutoProcessor, Owlv2ForObjectDetection

from refcore.errors import RefcoreError
from refcore_playground.draw import draw_negative, draw_pair
from refcore_playground.render import render_batch
from refcore_playground.world import relation
from refcore_plugins.referees.owlv2.counts_and_relations import (
    DIRECTIONS,
    centre,
    log_count,
    log_direction,
    log_number,
    numbers,
)
from refcore_plugins.referees.owlv2.referee import Owlv2

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares"]


def load(model: object, dtype: torch.dtype = torch.float32, **fields: object) -> Owlv2:
    return loaded(Owlv2(model=str(model), **fields), dtype)


@pytest.mark.parametrize("proposals", [1, 2, 5, 7])
def test_the_count_is_that_of_every_combination(proposals):
    logits = torch.randn(3, proposals, dtype=torch.float64)
    p = logits.sigmoid()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for real in product((0, 1), repeat=proposals):
        if sum(real) <= 3:
            chosen = torch.tensor(real, dtype=torch.bool)
            expected[:, sum(real)] += torch.where(chosen, p, 1 - p).prod(-1)
    torch.testing.assert_close(log_count(logits, 3).exp(), expected)
    asked = numbers([1, 2, 3]).expand(3, 3, 3)
    each = log_number(logits[:, None].expand(-1, 3, -1), asked).exp()
    torch.testing.assert_close(each, expected[:, 1:])
    some = log_number(logits, numbers([0, 0, 0])).exp()
    torch.testing.assert_close(some, 1 - expected[:, 0])


def test_counting_keeps_its_gradient_where_proposals_are_certain():
    logits = torch.tensor([[60.0, -60.0, -60.0], [-60.0, -60.0, -60.0], [60.0, 60.0, 60.0]], requires_grad=True)
    loss = -log_number(logits, numbers([2, 1, 2]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()
    assert (gradient[0] < 0)[1:].any()  # a second one is missing
    assert (gradient[1] < 0).any()  # the first is missing
    assert (gradient[2] > 0).any()  # one too many
    assert log_number(logits, numbers([0, 0, 0])).isfinite().all()


def test_the_likeliest_direction_is_the_relation():
    places = torch.rand(200, 2, 2)
    found = log_direction(places[:, 0], places[:, 1], 0.05).argmax(-1)
    for (a, b), direction in zip(places.tolist(), found.tolist(), strict=True):
        assert relation(a[0] - b[0], a[1] - b[1]) == DIRECTIONS[direction]


def test_the_centre_is_where_the_proposals_are():
    places = torch.tensor([[0.1, 0.2], [0.7, 0.6], [0.9, 0.1]])
    torch.testing.assert_close(centre(torch.tensor([-30.0, 30.0, -30.0]), places), places[1])


def test_scores_equal_detections_in_transformers(owlv2_folder, photographs, pixels):
    """The same pixels to 1e-5; through the library's own processor, which resizes with a blur, to 0.02."""
    referee = load(owlv2_folder)
    model = Owlv2ForObjectDetection.from_pretrained(owlv2_folder).eval()
    processor = AutoProcessor.from_pretrained(owlv2_folder)
    inputs = processor(text=[[prompt] for prompt in PROMPTS], images=photographs, return_tensors="pt")
    images = pixels(referee.input_size)
    score = referee.score(images, referee.read(PROMPTS))
    for given, tolerance in ((referee.normalise(images), 1e-5), (inputs.pixel_values, 0.02)):
        with torch.no_grad():
            out = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, pixel_values=given)
        expected = 1 - (1 - out.logits[..., 0].sigmoid()).prod(1)
        torch.testing.assert_close(score, expected, atol=tolerance, rtol=0)


def test_a_parsed_prompt_is_judged_by_the_librarys_boxes_and_objectness(owlv2_folder, pixels):
    prompt = "a red circle left of a blue square"
    referee = load(owlv2_folder, parser="grammar", total=0.5, relation=2.0, softness=0.2)
    model = Owlv2ForObjectDetection.from_pretrained(owlv2_folder).eval()
    images = pixels(referee.input_size)[:1]
    processor = AutoProcessor.from_pretrained(owlv2_folder)
    text = processor(text=[["a red circle", "a blue square"]], return_tensors="pt")
    with torch.no_grad():
        out = model(**text, pixel_values=referee.normalise(images))

    def exactly(s: list[float], wanted: int) -> float:
        counts = [1.0, *[0.0] * wanted]
        for p in s:
            counts = [counts[0] * (1 - p), *(c * (1 - p) + b * p for b, c in pairwise(counts))]
        return counts[wanted]

    logits = out.logits[0]
    value = sum(math.log(exactly(logits[:, i].sigmoid().tolist(), 1)) for i in range(2))
    value += 0.5 * math.log(exactly(out.objectness_logits[0].sigmoid().tolist(), 2))
    (ax, ay), (bx, by) = ((logits[:, i].softmax(0)[:, None] * out.pred_boxes[0, :, :2]).sum(0).tolist() for i in (0, 1))
    offsets = np.array([bx - ax, ax - bx, by - ay, ay - by]) / 0.2
    value += 2.0 * (offsets[0] - np.log(np.exp(offsets).sum()))
    conditioning, prompt_index = referee.read([prompt]), torch.zeros(1, dtype=torch.int64)
    torch.testing.assert_close(referee.judge(images, conditioning, prompt_index), torch.tensor([-value]).float())
    unwanted = referee.judge(images, conditioning, prompt_index, wanted=False)
    torch.testing.assert_close(unwanted, torch.tensor([-math.log1p(-math.exp(value))]).float())


def test_prompts_of_different_length_share_a_reading(owlv2_folder, pixels):
    """Padding to the most things, counts and relations of any prompt changes nothing."""
    referee = load(owlv2_folder, torch.float64, parser="grammar", total=1.0)
    prompts = ["a red circle", "three blue squares", "a green star above a pink ring, and a cyan cross"]
    images = pixels(referee.input_size).double()[[0, 1, 0]]
    together = referee.judge(images, referee.read(prompts), torch.arange(3))
    for i, prompt in enumerate(prompts):
        alone = referee.judge(images[i : i + 1], referee.read([prompt]), torch.zeros(1, dtype=torch.int64))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=0)


def test_it_holds_the_contract(owlv2_folder, holds_the_contract):
    short = ("a red circle", "two small blue squares", "a striped green star")
    holds_the_contract(load(owlv2_folder, torch.float64), prompts=short)
    holds_the_contract(load(owlv2_folder, torch.float64, parser="grammar", total=1.0))


def test_what_is_cut_and_what_is_not_judged_is_said(owlv2_folder, monkeypatch):
    referee = load(owlv2_folder)
    conditioning = referee.read(["a red circle", "a small dotted green star and a large striped purple heart"])
    assert conditioning.truncated[0] == ""
    assert conditioning.truncated[1].endswith("heart")
    from refcore.contracts.parser import ParsedPrompt, Phrase, Relation

    parts = ParsedPrompt("a cat in a box", (Phrase("a cat"), Phrase("a box")), (Relation(0, "in", 1),))
    monkeypatch.setattr(referee, "_parse", lambda prompt: parts)
    assert "relations that are not judged: in" in referee.read([parts.prompt]).notes[0]


def refusal(**fields: object) -> str:
    return refusal_of(Owlv2(**fields), RefcoreError)


def test_what_it_cannot_load_is_refused(clip_folder, hf_clip_folder, owlv2_folder, tmp_path):
    assert "is a CLIPModel; expected an Owlv2ForObjectDetection" in refusal(model=str(hf_clip_folder))
    assert "does not exist" in refusal(model=str(tmp_path / "nowhere"))
    assert "grammar" in refusal(model=str(owlv2_folder), parser="grammer")
    broken = shutil.copytree(owlv2_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"")
    assert "cannot be loaded" in refusal(model=str(broken))


@pytest.mark.usefixtures("offline")
def test_what_is_out_of_reach_is_named_with_the_remedy():
    assert "hf download google/owlv2-base-patch16-ensemble" in refusal(model="google/owlv2-base-patch16-ensemble")


@pytest.mark.parametrize(("kind", "least"), [("relation", 0.95), ("count", 0.95), ("colour", 0.95), ("swap", 0.9)])
def test_the_embedded_detector_tells_true_captions_from_wrong_ones(kind, least):
    rng = random.Random(f"owlv2-{kind}")
    category = {"relation": "spatial", "count": "numeracy"}.get(kind, "complex")
    scenes, right, wrong = [], [], []
    while len(scenes) < 60:
        scene, request = draw_pair(rng, category)
        try:
            other, _ = draw_negative(scene, request, rng, kind)
        except ValueError:
            continue
        scenes.append(scene)
        right.append(str(request))
        wrong.append(str(other))
    referee = load("playground:owlv2", parser="grammar", total=1.0)
    images = torch.from_numpy(render_batch(scenes))
    better = referee.score(images, referee.read(right)) > referee.score(images, referee.read(wrong))
    assert better.float().mean() >= least
