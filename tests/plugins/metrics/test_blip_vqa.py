"""The `blip-vqa` metric: equal to T2I-CompBench's BLIP-VQA, written out, on a small checkpoint of the same layout."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import published_answers as published
import pytest
import torch
from english_model import english_folder, with_model
from PIL import Image
from question_answering import blip_vqa_folder, capfilt_folder
from transformers import BertTokenizer, BlipForQuestionAnswering

from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import CheckpointError, RefcoreError
from refcore.testing import suite
from refcore_plugins.metrics.blip_vqa import BlipVqa, product
from refcore_plugins.models.caption_text import blip_question
from refcore_plugins.models.noun_phrases import DROPPED

pytestmark = with_model
CPU = torch.device("cpu")
PROMPTS = [
    "a red circle and two small blue squares",
    "A striped (green) star.",
    "a cat on the left, a dog on the right and a very long yellow train of twenty empty cars",
    "a red circle",
]


def metric_of(folder: Path, **fields: object) -> BlipVqa:
    fields = {"parser": str(english_folder()), "size": 32, "batch": 3, **fields}
    found = BlipVqa(model=str(folder), **fields)
    found.load(CPU, torch.float32)
    return found


@pytest.fixture(scope="module")
def clip_constants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 32 pixels, with CLIP's mean and standard deviation, as published."""
    folder = tmp_path_factory.mktemp("published")
    return capfilt_folder(folder, 32, image_mean=published.CLIP_MEAN, image_std=published.CLIP_STD)


@pytest.fixture(scope="module")
def of_24(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 24 pixels, to be interpolated."""
    folder = tmp_path_factory.mktemp("published24")
    return capfilt_folder(folder, 24, image_mean=published.CLIP_MEAN, image_std=published.CLIP_STD)


def ids(folder: Path) -> dict[str, int]:
    tokenizer = BertTokenizer.from_pretrained(folder)
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    return {"enc": len(tokenizer) + 1, "dec": len(tokenizer), "yes": yes, "no": no}


def expected(folder: Path, image: object, phrases: list[str], **options: object) -> list[float]:
    model, tokenizer = BlipForQuestionAnswering.from_pretrained(folder).eval(), BertTokenizer.from_pretrained(folder)
    settings = {**ids(folder), "side": 32, **options}
    return [published.blip_yes(model, tokenizer, Image.fromarray(image), phrase, **settings) for phrase in phrases]


@pytest.mark.parametrize("interpolated", [False, True])
def test_it_equals_the_public_code_written_out(interpolated, clip_constants, of_24, images):
    """Each probability to 1e-5 without rounding, and the same four digits with it; images of four sizes in chunks."""
    folder = of_24 if interpolated else clip_constants
    prompts = [BenchmarkPrompt(prompt) for prompt in PROMPTS]
    exact = metric_of(folder, rounding=False).measure(images, prompts)
    metric = metric_of(folder)
    rounded = metric.measure(images, prompts)
    for image, prompt, whole, cut in zip(images, PROMPTS, exact, rounded, strict=True):
        chunks = [chunk.text for chunk in metric.phrases.parsed(prompt).noun_chunks]
        phrases = published.asked_phrases(chunks)
        wanted = expected(folder, image, phrases, interpolate=interpolated)
        assert list(whole.parts) == [f"{phrase}?" for phrase in phrases]
        assert list(whole.parts.values()) == pytest.approx(wanted, abs=1e-5)
        assert whole.value == pytest.approx(math.prod(wanted), abs=1e-5)
        assert list(cut.parts.values()) == pytest.approx([round(p, 4) for p in wanted], abs=1.01e-4)
        assert cut.value == published.blip_product(list(cut.parts.values()))
        assert all(p == round(p, 4) for p in cut.parts.values())
    assert len({round(one.value, 6) for one in exact}) == len(exact)


def test_the_first_token_the_noun_and_the_picture_matter(clip_constants, images):
    """So that the parity says something: [CLS] in place of [ENC], or a caption's cleaning, would be seen."""
    (enc,), (cls,) = (
        expected(clip_constants, images[0], ["a red circle"], **options)
        for options in ({}, {"enc": BertTokenizer.from_pretrained(clip_constants).cls_token_id})
    )
    assert abs(enc - cls) > 1e-3
    (found,) = metric_of(clip_constants).measure(images[:1], [BenchmarkPrompt("a red circle")])
    assert found.value == pytest.approx(enc, abs=1e-4)


def test_the_value_is_the_product_as_the_public_code_rounds_it(clip_constants, images):
    model = BlipForQuestionAnswering.from_pretrained(clip_constants).eval()
    tokenizer = BertTokenizer.from_pretrained(clip_constants)
    picture, phrases = Image.fromarray(images[0]), ["a red circle", "a blue square"]
    whole = published.blip_vqa(model, tokenizer, picture, phrases, side=32, **ids(clip_constants))
    (found,) = metric_of(clip_constants).measure(images[:1], [BenchmarkPrompt("a red circle and a blue square")])
    assert found.value == pytest.approx(whole, abs=2e-4)


def test_a_product_between_two_numbers_is_rounded_as_in_float32():
    """The public code holds the four digits in a tensor: 0.5001 times 0.5 is 0.2501 there, and 0.25 in float64."""
    assert product(["a?", "b?"], [0.5001, 0.5], digits=4).value == published.blip_product([0.5001, 0.5]) == 0.2501
    draw = np.random.default_rng(0)
    for _ in range(2000):
        factors = draw.choice([0.25, 0.5, 0.75, *draw.random(3).round(4)], draw.integers(1, 5)).tolist()
        whole = product([f"{i}?" for i in range(len(factors))], factors, digits=4)
        assert whole.value == published.blip_product(factors), factors


@pytest.mark.parametrize(
    "phrase",
    [
        "A Red Circle", 'a "red" (circle)', "the dog's t-shirt", "a 3.5-inch disk", "a:b;c", "a circle. ",
        "#1 * ~ star", " ".join(["very"] * 60) + " red circle", "a cat!", "café",
    ],
)  # fmt: skip
def test_a_question_is_cleaned_as_blip_cleans_it(phrase):
    assert blip_question(f"{phrase}?") == published.blip_question(phrase)


def test_what_follows_the_thirty_fifth_token_is_not_read(clip_constants, images):
    """A vocabulary of letters makes many tokens of a word, of which [SEP] is the last one kept."""
    long = "a red circle and a yellow " + "zzzzzzzz" * 8
    prompts = [BenchmarkPrompt(long), BenchmarkPrompt(long + "qq")]
    metric = metric_of(clip_constants, rounding=False)
    first, second = metric.measure([images[0]] * 2, prompts)
    assert list(first.parts) != list(second.parts)
    assert first.value == pytest.approx(second.value, abs=1e-7)
    phrases = metric.phrases.of(long)
    assert list(first.parts.values()) == pytest.approx(expected(clip_constants, images[0], phrases), abs=1e-5)


def test_phrases_beyond_the_number_asked_are_factors_of_one(clip_constants, images):
    prompt = BenchmarkPrompt("a cat, a dog and a bird on the left")
    (all_three,) = metric_of(clip_constants).measure(images[:1], [prompt])
    (two,) = metric_of(clip_constants, phrases=2).measure(images[:1], [prompt])
    assert list(all_three.parts) == ["a cat?", "a dog?", "a bird?"]
    assert list(two.parts) == ["a cat?", "a dog?"]
    assert two.value == round(all_three.parts["a cat?"] * all_three.parts["a dog?"], 4)
    assert set(published.DROPPED) == DROPPED


def test_a_phrase_that_is_there_twice_counts_twice():
    found = product(["a cat?", "a dog?", "a cat?", "a cat?"], [0.5, 0.25, 0.5, 0.5])
    assert found.value == 0.5**3 * 0.25
    assert found.parts == {"a cat?": 0.5, "a dog?": 0.25, "a cat? (2)": 0.5, "a cat? (3)": 0.5}


def test_a_prompt_without_a_noun_phrase_is_refused_and_told_of_before(clip_constants, images):
    metric = metric_of(clip_constants)
    with pytest.raises(RefcoreError, match='"run!" has no noun phrase'):
        metric.measure(images[:1], [BenchmarkPrompt("run!")])
    assert any("cannot be measured" in remark for remark in metric.remarks([BenchmarkPrompt("run!")]))


def test_remarks_tell_of_merged_phrases_of_those_left_out_and_of_interpolation(clip_constants, of_24):
    prompts = [BenchmarkPrompt(text) for text in ("a green acorn and a brown leaf", "a red circle", "a red circle")]
    (merged,) = metric_of(clip_constants).remarks(prompts)
    assert merged.startswith("1 of 2 prompts are asked as ONE question")
    assert '"a brown leaf?"' in merged
    _, interpolated = metric_of(of_24).remarks(prompts)
    assert "interpolated to 32 pixels" in interpolated
    (cut,) = metric_of(clip_constants, phrases=1).remarks([BenchmarkPrompt("a red circle and a blue square")])
    assert "more than 1 noun phrases" in cut


def test_a_checkpoint_of_another_kind_or_without_enc_is_refused(clip_constants, tmp_path):
    with pytest.raises(CheckpointError, match=r"no \[ENC\]"):
        metric_of(blip_vqa_folder(tmp_path / "short", 32, "no"))
    other = shutil.copytree(clip_constants, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"architectures": ["BlipForConditionalGeneration"]}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is a BlipForConditionalGeneration; expected a BlipForQuestionAnswering"):
        metric_of(other)


def original_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of transformers under the names that BLIP's code has, with the buffers that it saves."""
    words = [
        ("vision_model.encoder.layers.", "visual_encoder.blocks."),
        ("vision_model.post_layernorm", "visual_encoder.norm"),
        ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
        ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
        ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
        (".self_attn.qkv.", ".attn.qkv."), (".self_attn.projection.", ".attn.proj."), (".layer_norm", ".norm"),
    ]  # fmt: skip
    found = {"text_encoder.embeddings.position_ids": torch.arange(64)[None]}
    for name, value in state.items():
        for ours, theirs in words if name.startswith("vision_model") else ():
            name = name.replace(ours, theirs)
        found[name] = value
    return found


def test_the_authors_file_becomes_a_folder_of_its_own_size(tmp_path, images):
    """The same tensors, and with BERT's tokenizer beside them the same probabilities; heads are 64 wide, as BLIP's."""
    source = capfilt_folder(
        tmp_path / "source", 48, wide=True, image_mean=published.CLIP_MEAN, image_std=published.CLIP_STD
    )
    model = BlipForQuestionAnswering.from_pretrained(source)
    torch.save({"model": original_names(model.state_dict())}, tmp_path / "model_base_vqa_capfilt_large.pth")
    folder = BlipVqa.conversions["checkpoint"](tmp_path / "model_base_vqa_capfilt_large.pth", tmp_path / "folder")
    BertTokenizer.from_pretrained(source).save_pretrained(folder)
    converted = BlipForQuestionAnswering.from_pretrained(folder)
    assert converted.config.vision_config.image_size == 48
    assert converted.config.vision_config.layer_norm_eps == 1e-6
    for name, value in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], value), name
    metric = metric_of(folder, size=48)
    assert not metric._answering.interpolates
    (found,) = metric.measure(images[:1], [BenchmarkPrompt("a red circle")])
    assert found.value == pytest.approx(expected(folder, images[0], ["a red circle"], side=48)[0], abs=1e-4)
    with pytest.raises(CheckpointError, match="exists"):
        BlipVqa.conversions["checkpoint"](tmp_path / "model_base_vqa_capfilt_large.pth", folder)
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not BLIP-VQA"):
        BlipVqa.conversions["checkpoint"](tmp_path / "other.pth", tmp_path / "none")


@pytest.fixture(scope="class")
def _folder(request, clip_constants):
    request.cls.case.plugin = BlipVqa(model=str(clip_constants), size=32, parser=str(english_folder()))


@pytest.mark.usefixtures("_folder")
class TestContract(suite(BlipVqa(), prompts=tuple(PROMPTS), refused={"model": "nowhere/at/all", "parser": "en_none"})):
    """The contract, on the small checkpoint."""
