"""The `blip2` referee: equal to transformers, one vision pass, differentiable, frozen, clear about its errors."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny import loaded, refusal_of
from torch import Tensor
from torchvision.transforms.functional import to_tensor
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval, BlipImageProcessor

from refcore.checkpoints import zoo
from refcore.engine.views import resize
from refcore_plugins.referees.blip2.itg_head import ItgHead
from refcore_plugins.referees.blip2.referee import Blip2

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares", "a striped green star left of a yellow heart"]
ALL = {"itm": 1.0, "itc": 1.0, "itg": 1.0}


def load(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> Blip2:
    return loaded(Blip2(model=str(folder), **{**ALL, **fields}), dtype)


@pytest.fixture(scope="module")
def exact(blip2_folder):
    """In float64, where equalities are equalities; its captioning loss without smoothing."""
    return load(blip2_folder, torch.float64, label_smoothing=0.0)


@pytest.fixture
def views():
    return torch.rand(4, 3, 16, 16, dtype=torch.float64)


@pytest.mark.parametrize("folder", ["tiny", "embedded"])
def test_matching_and_contrast_equal_the_librarys_own_forward(folder, blip2_folder, photographs):
    folder = blip2_folder if folder == "tiny" else zoo() / "blip2"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("the embedded checkpoint is not there")
    referee = load(folder, torch.float64)
    model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float64)
    encoded = AutoTokenizer.from_pretrained(folder)(PROMPTS[:2], padding=True, return_tensors="pt")
    images = torch.stack([resize(to_tensor(p).double()[None], referee.input_size)[0] for p in photographs])
    with torch.no_grad():
        pixels = referee.normalise(images)
        match = model(pixels, **encoded, use_image_text_matching_head=True).logits_per_image.softmax(-1)[:, 1]
        cosine = model(pixels, **encoded, use_image_text_matching_head=False).logits_per_image.diagonal()
    conditioning = referee.read(PROMPTS[:2])
    losses = referee.losses(images, conditioning, torch.arange(2))
    torch.testing.assert_close(referee.score(images, conditioning), match, atol=1e-9, rtol=0)
    torch.testing.assert_close(losses["itm"], -match.log(), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(losses["itc"], 1 - cosine, atol=1e-9, rtol=0)

    processor = BlipImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        pixels = processor(photographs, return_tensors="pt").pixel_values.double()
        match = model(pixels, **encoded, use_image_text_matching_head=True).logits_per_image.softmax(-1)[:, 1]
    # Through the library's own preprocessing, which rounds to 8 bits.
    torch.testing.assert_close(referee.score(images, conditioning), match, atol=0.02, rtol=0)


@torch.no_grad()
def teacher_forced(referee: Blip2, view: Tensor, prompt: str) -> list[Tensor]:
    """Logits for each next token of a prompt, one token at a time: no mask, only a past that grows, layer by layer."""
    model = referee.model
    image = model.vision_model(referee.normalise(view[None])).last_hidden_state
    words = referee.tokenizer(prompt).input_ids
    words[0] = referee.tokenizer.convert_tokens_to_ids("[DEC]")
    hidden = model.qformer.layernorm(model.query_tokens)
    past = []
    for layer in model.qformer.encoder.layer:
        past.append(hidden)
        hidden = layer(hidden, encoder_hidden_states=image, query_length=hidden.shape[1])
    logits = []
    for position, word in enumerate(words[:-1]):
        table = model.embeddings
        token = table.word_embeddings.weight[word] + table.position_embeddings.weight[position]
        hidden = model.qformer.layernorm(token.view(1, 1, -1))
        for i, layer in enumerate(model.qformer.encoder.layer):
            past[i] = torch.cat([past[i], hidden], 1)
            own = layer.attention.attention
            heads = (own.num_attention_heads, own.attention_head_size)
            query = own.query(hidden).view(*heads)
            keys, values = (project(past[i])[0].unflatten(-1, heads) for project in (own.key, own.value))
            weights = (torch.einsum("hd,thd->ht", query, keys) / math.sqrt(heads[1])).softmax(-1)
            mixed = torch.einsum("ht,thd->hd", weights, values).reshape(1, 1, -1)
            hidden = layer.feed_forward_chunk(layer.attention.output(mixed, hidden))
        logits.append(referee.head(hidden)[0, 0])
    return logits


@pytest.mark.parametrize("folder", ["tiny", "embedded"])
def test_captioning_equals_a_plain_token_by_token_loop(folder, blip2_folder):
    folder = blip2_folder if folder == "tiny" else zoo() / "blip2"
    if not (folder / "itg_head.safetensors").is_file():
        pytest.skip("the embedded checkpoint is not there")
    plain, smooth = (load(folder, torch.float64, label_smoothing=s) for s in (0.0, 0.1))
    views = torch.rand(3, 3, *plain.input_size, dtype=torch.float64)
    conditioning, prompt_index = plain.read(PROMPTS), torch.arange(3)
    without, with_smoothing = (r.losses(views, conditioning, prompt_index)["itg"] for r in (plain, smooth))
    for i, prompt in enumerate(PROMPTS):
        targets = plain.tokenizer(prompt).input_ids[1:]
        logs = [logits.log_softmax(-1) for logits in teacher_forced(plain, views[i], prompt)]
        entropy = torch.stack([-log[target] for log, target in zip(logs, targets, strict=True)]).mean()
        uniform = torch.stack([-log.mean() for log in logs]).mean()
        torch.testing.assert_close(without[i], entropy)
        torch.testing.assert_close(with_smoothing[i], 0.9 * entropy + 0.1 * uniform)


def test_one_vision_pass_and_one_q_former_pass_serve_all_losses(exact, views):
    calls = []
    conditioning = exact.read(PROMPTS)
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in (("vision", exact.model.vision_model), ("qformer", exact.model.qformer))
    ]
    exact.judge(views, conditioning, torch.tensor([0, 1, 2, 0]))
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == ["qformer", "vision"]


def test_the_loss_is_the_weighted_sum(blip2_folder, views, exact):
    referee = load(blip2_folder, torch.float64, itm=0.5, itc=2.0, itg=0.25, label_smoothing=0.0)
    conditioning, prompt_index = exact.read(PROMPTS), torch.tensor([2, 0, 1, 2])
    losses = exact.losses(views, conditioning, prompt_index)
    expected = 0.5 * losses["itm"] + 2 * losses["itc"] + 0.25 * losses["itg"]
    torch.testing.assert_close(referee.judge(views, conditioning, prompt_index), expected)


@pytest.mark.parametrize("weights", [{"itm": 1}, {"itc": 1}, {"itg": 1}, {"itm": 1, "itg": 1}, {"itc": 1, "itg": 1}])
def test_a_loss_is_the_same_whichever_others_are_asked_for(weights, blip2_folder, exact, views):
    referee = load(blip2_folder, torch.float64, label_smoothing=0.0, **{**dict.fromkeys(ALL, 0.0), **weights})
    conditioning, prompt_index = exact.read(PROMPTS), torch.tensor([2, 0, 1, 2])
    for wanted in (True, False):
        every, some = (r.losses(views, conditioning, prompt_index, wanted) for r in (exact, referee))
        assert set(some) == set(weights)
        for name, loss in some.items():
            torch.testing.assert_close(loss, every[name])


def test_unwanted_losses_are_the_negated_questions_and_bounded(exact, views):
    conditioning, prompt_index = exact.read(PROMPTS), torch.tensor([2, 0, 1, 2])
    wanted, unwanted = (exact.losses(views, conditioning, prompt_index, answer) for answer in (True, False))
    p, q = (-wanted["itm"]).exp(), (-wanted["itg"]).exp()
    torch.testing.assert_close(unwanted["itm"], -(1 - p + 1e-8).log(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(unwanted["itg"], -(1 - q + 1e-8).log(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(unwanted["itc"], (1 - wanted["itc"]).clamp(min=0))
    assert all((loss >= -2e-8).all() for loss in unwanted.values())


@pytest.mark.parametrize("name", ["itm", "itc", "itg"])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_gradient_is_the_slope_of_the_loss(name, wanted, blip2_folder, exact, views, slope):
    referee = load(blip2_folder, torch.float64, **{**dict.fromkeys(ALL, 0.0), name: 1.0})
    conditioning, prompt_index = exact.read(PROMPTS), torch.tensor([2, 0, 1, 2])
    if name == "itc":  # on the smooth side of both of its corners
        conditioning.tensors["text"][:] = F.normalize(torch.ones(3, 12, dtype=torch.float64), dim=-1)
        sign = referee.losses(views, conditioning, prompt_index)["itc"].neg().add(1).sum().sign()
        conditioning.tensors["text"].mul_(sign)
    by_autograd, by_difference = slope(lambda x: referee.judge(x, conditioning, prompt_index, wanted), views)
    assert by_difference != 0
    assert by_autograd == pytest.approx(by_difference, rel=1e-5)


def test_rows_say_which_prompt_each_view_is_judged_against(exact, views):
    conditioning = exact.read(PROMPTS)
    tables = [exact.losses(views, conditioning, torch.full((4,), row)) for row in range(3)]
    prompt_index = torch.tensor([2, 0, 1, 2])
    for name, loss in exact.losses(views, conditioning, prompt_index).items():
        table = torch.stack([losses[name] for losses in tables])
        torch.testing.assert_close(loss, table[prompt_index, torch.arange(4)])
        assert table.std(0).min() > 1e-5


def test_a_view_is_judged_alike_whatever_its_batch_mates(exact, views):
    """Also where a shorter prompt is padded to the length of its mates."""
    together = exact.losses(views, exact.read(PROMPTS), torch.tensor([2, 0, 1, 2]))
    for i, row in enumerate([2, 0, 1, 2]):
        alone = exact.losses(views[i : i + 1], exact.read([PROMPTS[row]]), torch.tensor([0]))
        for name, loss in alone.items():
            torch.testing.assert_close(together[name][i : i + 1], loss, atol=1e-11, rtol=1e-11)


def test_judging_leaves_the_weights_frozen_and_unchanged(blip2_folder, views):
    referee = load(blip2_folder)
    modules = torch.nn.ModuleList([referee.model, referee.head])
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    x = views.float().requires_grad_()
    referee.judge(x, referee.read(PROMPTS), torch.tensor([0, 1, 2, 0])).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(module.training for module in referee.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in modules.parameters())
    for name, value in modules.state_dict().items():
        assert torch.equal(value, before[name])


def test_in_half_precision_the_vision_tower_alone_is_half(blip2_folder, views):
    half, full = load(blip2_folder, torch.bfloat16), load(blip2_folder)
    assert {p.dtype for p in half.model.vision_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.model.qformer.parameters()} == {torch.float32}
    conditioning, prompt_index = full.read(PROMPTS), torch.tensor([2, 0, 1, 2])
    expected = full.judge(views.float(), conditioning, prompt_index)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = full.judge(views.float(), conditioning, prompt_index)
    low = half.judge(views.float(), conditioning, prompt_index)
    assert expected.dtype == mixed.dtype == low.dtype == torch.float32
    torch.testing.assert_close(low, expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(mixed, expected, rtol=0.1, atol=0.1)


def test_the_language_head_stays_in_float32_under_autocast():
    head = ItgHead(16, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.randn(2, 16, dtype=torch.bfloat16)).dtype == torch.float32


def test_what_a_prompt_says_beyond_32_tokens_is_reported(exact):
    long = "a red circle and " * 8 + "a Blue square"
    conditioning = exact.read(["a red circle", long])
    assert conditioning.truncated == ("", "circle and a blue square")
    assert conditioning["ids"].shape == (2, 32)
    assert exact.read([long.removesuffix("circle and a Blue square")]).truncated == ("",)


def test_an_image_is_scored_with_the_probability_of_a_match(exact, views):
    score = exact.score(views[:3], exact.read(PROMPTS))
    assert exact.score_unit == "probability"
    assert ((score > 0) & (score < 1)).all()
    assert not score.requires_grad


def refusal(**fields: object) -> str:
    return refusal_of(Blip2(**fields))


def test_captioning_without_a_head_is_refused_with_the_remedy(blip2_folder, tmp_path):
    folder = shutil.copytree(blip2_folder, tmp_path / "headless")
    (folder / "itg_head.safetensors").unlink()
    message = refusal(model=str(folder))
    assert f'the captioning loss (itg: 1) of model "{folder}" needs a head' in message
    assert "refcore convert blip2-itg" in message
    assert "or set itg: 0" in message
    load(folder, itg=0.0)
    load(folder, itg_head=str(blip2_folder / "itg_head.safetensors"))
    assert "no captioning head at" in refusal(model=str(folder), itg_head=str(tmp_path / "none"))


def test_a_missing_corrupt_or_foreign_checkpoint_is_refused(blip2_folder, tmp_path):
    assert "does not exist" in refusal(model=str(tmp_path / "nowhere"))
    assert "has no config.json" in refusal(model=str(tmp_path))

    broken = shutil.copytree(blip2_folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f'"{broken}" cannot be loaded' in refusal(model=str(broken))
    weights.unlink()
    assert f'"{broken}" cannot be loaded' in refusal(model=str(broken))

    other = shutil.copytree(blip2_folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["qformer_config"]["num_hidden_layers"] = 3
    (other / "config.json").write_text(json.dumps(config))
    assert "expected a complete Blip2ForImageTextRetrieval" in refusal(model=str(other))
    config["architectures"] = ["Blip2ForConditionalGeneration"]
    (other / "config.json").write_text(json.dumps(config))
    assert "is a Blip2ForConditionalGeneration; expected a Blip2ForImageTextRetrieval" in refusal(model=str(other))
    (other / "config.json").write_text("{")
    assert f'"{other}"' in refusal(model=str(other))


@pytest.mark.usefixtures("offline")
def test_what_is_out_of_reach_is_named_with_the_remedy():
    message = refusal(model="nobody/no-such-blip2")
    assert '"nobody/no-such-blip2" is not on this machine' in message
    assert "hf download nobody/no-such-blip2" in message


def test_settings_that_judge_nothing_or_are_out_of_range_are_refused():
    with pytest.raises(ValidationError, match="nothing would be judged"):
        Blip2(itm=0, itg=0, itc=0)
    for fields in ({"itm": -1}, {"label_smoothing": 1.0}, {"modle": "x"}):
        with pytest.raises(ValidationError):
            Blip2(**fields)
