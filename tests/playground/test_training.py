"""Claims about the recipes: what they save loads through the libraries' own code, and training resumes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, CLIPTokenizer

from refcore.checkpoints import zoo
from refcore_playground.draw import NEGATIVES, draw_prompts
from refcore_playground.grammar import parse, words
from refcore_playground.render import NAMELESS, dark
from refcore_playground.training.data import attack, distort, distort_and_follow, draw_batch, follow
from refcore_playground.training.lessons import (
    FACTS,
    PATCH_CLASSES,
    FactHead,
    PatchHead,
    PhraseHead,
    patch_targets,
    request_facts,
    scene_facts,
)
from refcore_playground.training.loop import learning_rate
from refcore_playground.training.tokens import (
    CONTEXT_LENGTH,
    bert_tokenizer,
    clip_tokenizer,
    save_bert_tokenizer,
    save_clip_tokenizer,
)
from refcore_playground.world import COLOURS, Scene, Thing


def test_a_word_of_the_grammar_is_one_token_and_other_text_survives() -> None:
    clip, bert = clip_tokenizer(), bert_tokenizer()
    for word in words():
        assert len(clip(word).input_ids) == 3, word
        assert len(bert(word).input_ids) == 3, word
    assert clip.decode(clip("a zebra").input_ids, skip_special_tokens=True) == "a zebra"
    assert bert.unk_token_id not in bert("a zebra").input_ids


def test_the_end_of_text_has_the_largest_id() -> None:
    clip = clip_tokenizer()
    assert clip.eos_token_id == len(clip) - 1


def test_every_caption_fits_the_context() -> None:
    clip = clip_tokenizer()
    assert max(len(clip(p).input_ids) for p in draw_prompts(200, 3)) <= CONTEXT_LENGTH


def test_a_saved_tokenizer_reads_as_before(tmp_path: Path) -> None:
    text = "a picture of a striped cyan triangle, and two zebras"
    clip, bert = clip_tokenizer(), bert_tokenizer()
    save_clip_tokenizer(clip, tmp_path / "clip")
    save_bert_tokenizer(bert, tmp_path / "bert")
    assert CLIPTokenizer.from_pretrained(tmp_path / "clip")(text).input_ids == clip(text).input_ids
    assert BertTokenizer.from_pretrained(tmp_path / "bert")(text).input_ids == bert(text).input_ids


def test_patch_targets_name_what_lies_under_a_patch() -> None:
    batch = draw_batch(20, random.Random(0))
    classes, places = patch_targets(batch.scenes, 8)
    for i, scene in enumerate(batch.scenes):
        for thing in scene.things:
            patch = (thing.y // 8) * 8 + thing.x // 8
            assert classes["colour"][i, patch] == list(COLOURS).index(thing.colour)
            assert places[i, patch].tolist() == [(thing.x - 32) / 16, (thing.y - 32) / 16]
    ground = classes["colour"] < 0
    assert ground.any()
    assert places[ground].isnan().all()


def test_the_patch_lesson_reaches_every_attribute() -> None:
    batch = draw_batch(8, random.Random(1))
    head = PatchHead(16)
    tokens = torch.randn(8, 64, 16, requires_grad=True)
    head.loss(tokens, batch.scenes, 8).backward()
    assert tokens.grad is not None
    assert head.out.weight.grad is not None
    assert (head.out.weight.grad.abs().sum(1) > 0).sum() >= sum(PATCH_CLASSES.values()) - 4  # a class may be absent


def test_what_a_caption_says_holds_of_its_scene() -> None:
    batch = draw_batch(200, random.Random(3))
    holds = scene_facts(batch.scenes)
    says, known = request_facts(batch.requests)
    assert torch.equal(says * holds, says)  # what it says is true
    unsaid = (holds > says) & known.bool()
    assert not unsaid.any()  # and what it rules out does not hold
    assert (known < 1).any()


def test_a_relation_is_a_fact_both_ways_round() -> None:
    request = parse("a red circle left of a blue square")
    says, known = request_facts([request])
    assert says[0, FACTS["colour", "red", "left of", "blue"]] == 1
    assert says[0, FACTS["shape", "square", "right of", "circle"]] == 1
    assert says[0, FACTS["colour", "red", "above", "blue"]] == 0
    assert known[0, FACTS["colour", "red", "above", "blue"]] == 1
    assert known[0, FACTS[("colour", "texture"), "red", "striped"]] == 0  # the caption leaves it open


def test_the_fact_lesson_is_lower_for_an_embedding_of_the_facts() -> None:
    batch = draw_batch(60, random.Random(4))
    head = FactHead(len(FACTS))
    with torch.no_grad():
        head.out.weight.copy_(torch.eye(len(FACTS)))
    truth = scene_facts(batch.scenes)
    assert head.of_scenes(20 * truth, batch.scenes) < 0.5 * head.of_scenes(20 * truth.roll(1, 0), batch.scenes)
    assert head.of_requests(20 * truth, batch.requests) < head.of_requests(20 * truth.roll(1, 0), batch.requests)


def test_the_phrase_lesson_asks_every_noun() -> None:
    tokenizer = clip_tokenizer()
    requests = draw_batch(12, random.Random(5)).requests
    ids = tokenizer([str(r) for r in requests], padding=True, return_tensors="pt").input_ids
    head = PhraseHead(16, tokenizer.get_vocab())
    states = torch.randn(*ids.shape, 16, requires_grad=True)
    head.loss(states, ids, requests).backward()
    assert states.grad is not None
    asked = (states.grad.abs().sum(-1) > 0).sum(1)
    assert asked.tolist() == [len(r.phrases) for r in requests]


def test_an_attack_raises_the_loss_within_its_reach() -> None:
    images = torch.full((4, 3, 64, 64), 0.5)
    pattern = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    moved = attack(images, lambda x: (x * pattern).sum(), reach=2.0)
    assert ((moved * pattern).sum((1, 2, 3)) > (images * pattern).sum((1, 2, 3))).all()
    assert (moved - images).flatten(1).norm(dim=1).max() <= 2.0 * 1.5 + 1e-4  # the step and the random start


def test_distortions_keep_the_range_and_differ_between_pictures() -> None:
    images = draw_batch(6, random.Random(2)).images
    distorted = distort(images, torch.Generator().manual_seed(0))
    assert distorted.shape == images.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    assert (distorted - images).abs().mean((1, 2, 3)).unique().numel() > 1


@pytest.mark.parametrize("kind", NEGATIVES)
def test_a_batch_of_one_kind_of_wrong_caption_can_be_drawn(kind: str) -> None:
    batch = draw_batch(4, random.Random(3), wrong=2, kind=kind)
    assert [len(w) for w in batch.wrong] == [2] * 4


def test_a_batch_of_one_texture_names_it_in_every_caption() -> None:
    batch = draw_batch(12, random.Random(6), categories=("texture", "complex"), texture="dotted")
    assert all("dotted" in caption for caption in batch.captions)
    assert len({len(request.phrases) for request in batch.requests}) > 1


def test_the_diffusion_model_learns_from_checkers_and_the_cells_of_things() -> None:
    from refcore_playground.training.diffusion import CHECKERED, FRESH, DiffusionRecipe

    recipe = DiffusionRecipe(zoo() / "diffusion", 0)
    recipe.draw(2 * FRESH)
    checkered = [r for *_, r in recipe.pool if any(p.texture == "checkered" for p in r.phrases)]
    assert 2 * CHECKERED <= len(checkered) < 2 * FRESH
    for latent, covered, request in recipe.pool:
        assert covered.shape == (1, *latent.shape[1:])
        assert 0.01 * request.total < covered.float().mean() < 0.75, request
    recipe.batch = 4
    assert recipe.loss(0, 0.0).keys() == {"phrases"}
    recipe.warm_start()
    assert recipe.loss(0, 0.0).keys() == {"v"}


def test_the_learning_rate_rises_and_falls_with_the_budget() -> None:
    rates = [learning_rate(1.0, p / 100) for p in range(101)]
    assert rates[0] < rates[2]
    assert rates[2] == max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.02)


@pytest.mark.slow
def test_a_recipe_resumes_and_its_checkpoint_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    from refcore_playground.training import clip, loop

    monkeypatch.setattr(clip, "BATCH", 4)
    monkeypatch.setattr(clip.ClipRecipe, "evaluate", lambda self, quick: {})  # takes minutes, and is not the claim
    out, state = tmp_path / "clip", tmp_path / "state"

    def last() -> dict[str, float]:
        return json.loads((state / "log.jsonl").read_text().splitlines()[-1])

    loop.train(clip.ClipRecipe(out, 0), state, minutes=0.02, seed=0)
    first = last()
    loop.train(clip.ClipRecipe(out, 0), state, minutes=first["minutes"] + 0.02, seed=0)
    assert last()["step"] > first["step"] >= 1
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    tokens = open_clip.get_tokenizer(f"local-dir:{out}")(["a red circle"])
    assert model.encode_text(tokens).isfinite().all()


@pytest.mark.slow
def test_the_codebook_is_filled_with_latents_once_and_entries_without_use_are_moved(tmp_path: Path) -> None:
    from diffusers import VQModel

    from refcore_playground.training.vq import ENTRIES, REVIVE, VqRecipe

    recipe = VqRecipe(tmp_path / "vq", 0)
    recipe.batch = 4
    codebook = recipe.model.quantize.embedding.weight
    assert not recipe.filled
    losses = recipe.loss(1, 0.0)
    assert losses.keys() == {"codebook", "commitment", "l1", "l2", "edges", "colour"}
    assert all(loss.isfinite() for loss in losses.values())
    assert recipe.filled
    filled, used = codebook.detach().clone(), recipe.register > 0
    assert 0 < used.sum() < ENTRIES
    recipe.loss(REVIVE, 0.5)
    assert torch.equal(codebook[used], filled[used])
    assert not torch.equal(codebook, filled)
    recipe.save()
    saved = VQModel.from_pretrained(tmp_path / "vq", torch_dtype=torch.float32)
    assert torch.allclose(saved.quantize.embedding.weight, codebook, atol=1e-2)


def test_places_follow_a_distortion() -> None:
    """A bright dot is found where `follow` says it went."""
    torch.manual_seed(0)
    x, y = torch.randint(16, 48, (2, 40))
    images = torch.zeros(40, 3, 64, 64)
    for i in range(40):
        images[i, :, y[i] - 1 : y[i] + 2, x[i] - 1 : x[i] + 2] = 1
    moved, theta = distort_and_follow(images)
    assert 5 < (theta == torch.eye(2, 3)).all((1, 2)).sum() < 25
    brightness = torch.nn.functional.avg_pool2d(moved.mean(1, keepdim=True), 3, 1, 1).flatten(1)
    found = torch.stack([brightness.argmax(1) % 64, brightness.argmax(1) // 64], 1)
    expected = follow((torch.stack([x, y], 1) + 0.5) / 64, theta) * 64 - 0.5
    assert (found - expected).abs().max() <= 1.5


def test_nameless_textures_are_half_dark_and_run_along_one_diagonal() -> None:
    y, x = np.mgrid[-24:24:0.5, -24:24:0.5]
    for name in NAMELESS:
        shaded = dark(name, x, y)
        assert 0.4 < shaded.mean() < 0.6, name
        # Along its own diagonal a run-together texture stays as it is for longer than across it.
        shift = 4  # half pixels, a quarter of the checkers' period
        own, other = (1, -1) if name.startswith("slanted") else (-1, 1)
        same = {
            sign: (shaded[shift:, shift:] == shaded[:-shift, :-shift]).mean()
            if sign < 0
            else (shaded[shift:, :-shift] == shaded[:-shift, shift:]).mean()
            for sign in (own, other)
        }
        assert same[own] > same[other] + 0.15, (name, same)


def test_the_detector_is_asked_for_checkers_where_they_have_run_together(tmp_path: Path) -> None:
    from refcore_playground.training.owlv2 import SPOILT, Owlv2Recipe, spoil

    recipe = Owlv2Recipe(tmp_path, 0)
    scene = Scene((Thing("red", "square", "checkered", 14, 20, 20), Thing("blue", "ring", "dotted", 14, 45, 45)))
    spoilt = [spoil(scene, recipe.rng) for _ in range(400)]
    assert {made.things[1].texture for made in spoilt} == {"dotted"}
    nameless = [made for made in spoilt if made.things[0].texture in NAMELESS]
    assert abs(len(nameless) / 400 - SPOILT) < 0.1
    asked = {str(phrase) for made in nameless for phrase in recipe.ask([made])}
    assert any("checkered red square" in phrase for phrase in asked)
    assert not any(name in phrase for phrase in asked for name in NAMELESS)
