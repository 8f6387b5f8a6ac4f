"""Prompts are cleaned as LAVIS cleans captions, wherever the paper's code reads one."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer

from refcore.checkpoints import zoo
from refcore.config import presets
from refcore_playground.render import render
from refcore_playground.world import Scene, Thing
from refcore_plugins.models.caption_text import blip_caption, clean
from refcore_plugins.priors.sds import Sds
from refcore_plugins.referees.blip2.referee import Blip2

CPU = torch.device("cpu")
PLAIN, WRITTEN = "a red circle left of a blue square", "A red circle left of a blue square."
LONG = "two " * 48 + "red circles, ONE blue square."

pytestmark = pytest.mark.fault("1.3")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (WRITTEN, PLAIN),
        ("  Two (2) cats: one  *big*; one ~small!  ", "two 2 cats one big one small"),
        ('A sign that says "STOP"', "a sign that says stop"),
        ("a.b#c", "a b c"),
        ("the cat's paw, half-open?", "the cat's paw, half-open?"),  # other punctuation stays
        ("one\ttab", "one\ttab"),  # a single white space stays as it is
        ("two\n\nlines\n", "two lines"),
        ("...", ""),
        ("", ""),
    ],
)
def test_it_is_laviss_caption_processor(given, read):
    """Results of `pre_caption` of LAVIS (lavis/processors/blip_processors.py, BlipCaptionProcessor, @506965b)."""
    assert blip_caption(given) == (read, "")


def test_fifty_words_are_read_and_the_rest_is_reported():
    text = " ".join(f"w{i}" for i in range(60))
    cleaned = clean([text, "short"], "blip_caption")
    assert cleaned.read == (" ".join(f"w{i}" for i in range(50)), "short")
    assert cleaned.truncated(["w49", ""]) == (" ".join(f"w{i}" for i in range(49, 60)), "")
    assert clean([text], "as_given").read == (text,)


def test_only_a_prompt_that_changes_has_a_note():
    cleaned = clean([PLAIN, WRITTEN], "blip_caption")
    assert cleaned.notes == ("", f'read as "{PLAIN}"')


@pytest.fixture(scope="module")
def picture():
    if not (zoo() / "blip2" / "model.safetensors").is_file():
        pytest.skip("the embedded checkpoint is not there")
    scene = Scene((Thing("red", "circle", "solid", 10, 18, 32), Thing("blue", "square", "solid", 10, 46, 32)))
    return torch.as_tensor(render(scene)).permute(2, 0, 1)[None].float()


def test_blip2_scores_a_sentence_as_the_words_that_it_was_trained_on(picture):
    """Every loss, too; the tokens are those of the library's tokenizer for the text that LAVIS would give it."""
    losses, scores = {}, {}
    for text, prompt in (("blip_caption", WRITTEN), ("blip_caption", PLAIN), ("as_given", WRITTEN)):
        referee = Blip2(text=text, itc=1.0)
        referee.load(CPU, torch.float32)
        read = referee.read([prompt])
        views = torch.nn.functional.interpolate(picture, referee.input_size, mode="bicubic").clamp(0, 1)
        scores[text, prompt] = float(referee.score(views, read)[0])
        losses[text, prompt] = referee.losses(views, read, torch.tensor([0]))
    tokens = AutoTokenizer.from_pretrained(zoo() / "blip2")(PLAIN).input_ids
    assert Blip2().config.text == "blip_caption"
    assert referee.read([PLAIN])["ids"].tolist() == [tokens]
    cleaned, plain, raw = scores.values()
    assert cleaned == plain
    assert raw < plain - 0.1, "the full stop no longer matters: the test says nothing"
    for name, loss in losses["blip_caption", WRITTEN].items():
        assert torch.equal(loss, losses["blip_caption", PLAIN][name])


@pytest.mark.parametrize("preset", ["vlminv", "vlminv-itm"])
@pytest.mark.parametrize("prompt", [WRITTEN, LONG])
def test_the_presets_sds_reads_the_template_around_the_cleaned_prompt(preset, prompt):
    """The public code: "A photo exactly contains " + text_processors["eval"](line)."""
    (term,) = presets.compose(preset).priors
    config = term.config
    asked = term.prompt.replace("{prompt}", prompt)
    (read,) = clean([asked], config["text"], config["words"]).read
    tokenizer = CLIPTokenizer.from_pretrained(zoo() / "diffusion", subfolder="tokenizer")
    theirs = "A photo exactly contains " + blip_caption(prompt)[0]
    assert tokenizer(read).input_ids == tokenizer(theirs).input_ids


def test_a_prior_reads_what_the_option_says():
    if not (zoo() / "diffusion" / "unet").is_dir():
        pytest.skip("the embedded diffusion model is not there")
    features = {}
    for text in ("as_given", "blip_caption"):
        prior = Sds(text=text)
        prior.load(CPU, torch.float32)
        features[text] = prior.read([WRITTEN, PLAIN])
    given, cleaned = features["as_given"], features["blip_caption"]
    assert torch.equal(cleaned["text"][0], cleaned["text"][1])
    assert torch.equal(cleaned["text"][1], given["text"][1])
    assert not torch.equal(given["text"][0], given["text"][1])
    assert given.notes == ("", "")
    assert cleaned.notes[0] == f'read as "{PLAIN}"'
