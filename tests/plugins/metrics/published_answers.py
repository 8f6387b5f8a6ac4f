"""The published metrics that ask a model about an image, written out plainly, as the truth of parity tests.

Nothing here uses the package: torch, numpy and the models' own submodules alone. Each function names the public code
whose steps it follows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ENC, DEC, YES, NO = 30523, 30522, 2748, 2053
"""Ids of BLIP's [ENC], [DEC], "yes" and "no"."""
DROPPED = ("top", "the side", "the left", "the right")
"""Noun chunks that T2I-CompBench does not ask about."""


def asked_phrases(chunks: Sequence[str], most: int = 8) -> list[str]:
    """Noun chunks of a prompt -> those that T2I-CompBench asks about (BLIPvqa_eval)."""
    return [chunk for chunk in chunks if chunk not in DROPPED][:most]


def blip_question(phrase: str) -> str:
    """The question of a phrase, as BLIP cleans it: lower case, without .!"()*#:;~ and at most 50 words."""
    words = re.sub(r'[.!"()*#:;~]', "", f"{phrase}?".lower()).rstrip(" ").split(" ")
    return " ".join(words[:50])


def blip_pixels(image: Image.Image, side: int = 480) -> Tensor:
    """[1, 3, side, side]: both sides resized, bicubic, in 8 bits; then CLIP's mean and standard deviation."""
    resized = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = np.asarray(CLIP_MEAN, dtype=np.float32), np.asarray(CLIP_STD, dtype=np.float32)
    return torch.from_numpy((resized - mean) / std).permute(2, 0, 1)[None].contiguous()


@torch.no_grad()
def blip_yes(
    model: Any,
    tokenizer: Any,
    image: Image.Image,
    phrase: str,
    *,
    side: int = 480,
    interpolate: bool = False,
    enc: int = ENC,
    dec: int = DEC,
    yes: int = YES,
    no: int = NO,
) -> float:
    """p(yes) / (p(yes) + p(no)) of one phrase by a `BlipForQuestionAnswering`, not rounded."""
    seen = model.vision_model(pixel_values=blip_pixels(image, side), interpolate_pos_encoding=interpolate)[0]
    question = tokenizer(blip_question(phrase), truncation=True, max_length=35, return_tensors="pt")
    ids, mask = question.input_ids.clone(), question.attention_mask
    ids[:, 0] = enc
    everything = torch.ones(seen.shape[:2], dtype=torch.long)
    read = model.text_encoder(
        input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, encoder_attention_mask=everything
    )[0]
    start = torch.full((1, 1), dec)
    logits = model.text_decoder(
        input_ids=start,
        attention_mask=torch.ones_like(start),
        encoder_hidden_states=read,
        encoder_attention_mask=mask,
    ).logits[0, 0]
    p = logits.softmax(-1)
    return float(p[yes] / (p[yes] + p[no]))


def blip_vqa(model: Any, tokenizer: Any, image: Image.Image, phrases: Sequence[str], **ids: Any) -> float:
    """BLIP-VQA of T2I-CompBench: product over the phrases of probabilities, each of them and it rounded to 4 digits."""
    return blip_product([blip_yes(model, tokenizer, image, phrase, **ids) for phrase in phrases])


def blip_product(probabilities: Sequence[float]) -> float:
    """The value of an image: numbers of 4 digits, which a tensor of float32 holds, multiplied there and written so."""
    reward = torch.tensor([float(f"{p:.4f}") for p in probabilities])
    whole = reward[0].clone()
    for factor in reward[1:]:
        whole *= factor
    return float(f"{whole.item():.4f}")


def clip_pixels(image: Image.Image, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """[1, 3, side, side]: the shorter side resized, bicubic, in 8 bits, the centre cropped, then normalised.

    Half a pixel of margin is rounded to the even one, as torchvision's `CenterCrop` does, which OpenAI's code uses.
    """
    width, height = image.size
    short = min(width, height)
    new = (side * width // short, side * height // short)
    resized = image.convert("RGB").resize(new, Image.Resampling.BICUBIC) if image.size != new else image.convert("RGB")
    levels = np.asarray(resized)
    top, left = round((levels.shape[0] - side) / 2), round((levels.shape[1] - side) / 2)
    crop = torch.from_numpy(levels[top : top + side, left : left + side].copy()).permute(2, 0, 1).float() / 255
    return ((crop - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[None]


@torch.no_grad()
def clip_cosine(
    model: Any,
    tokenizer: Any,
    image: Image.Image,
    prompt: str,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> float:
    """Cosine of image and prompt by a `CLIPModel`: not times 100, and not clipped at 0 (T2I-CompBench, CLIPScore)."""
    pixels = clip_pixels(image, model.config.vision_config.image_size, mean, std)
    length = model.config.text_config.max_position_embeddings
    words = tokenizer([prompt], truncation=True, max_length=length, return_tensors="pt")
    a = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0]
    b = model.text_projection(
        model.text_model(input_ids=words.input_ids, attention_mask=words.attention_mask).pooler_output
    )[0]
    return float((a * b).sum() / (a.norm() * b.norm()))


def vqascore_question(prompt: str) -> str:
    """The question of VQAScore, as t2v_metrics 3.1 asks it of every model; the paper's says yes and no."""
    return f'Does this figure show "{prompt}"? Please answer Yes or No.'


def geneval2_vqascore_question(prompt: str) -> str:
    """The question that GenEval 2 asks for its VQAScore."""
    return f'Does this image show "{prompt}"? Answer the question with Yes or No.'


@torch.no_grad()
def first_token_probabilities(model: Any, processor: Any, image: Image.Image, question: str) -> Tensor:
    """[V] probabilities of the first token that a chat model of transformers answers with."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[image], return_tensors="pt")
    return model(**inputs).logits[0, -1].float().softmax(-1)


def vqascore(model: Any, processor: Any, image: Image.Image, prompt: str, answer: str = "Yes") -> float:
    """p("Yes" | image, question), the probability of the answer's first token over the whole vocabulary."""
    (first, *_) = processor.tokenizer(answer, add_special_tokens=False).input_ids
    return float(first_token_probabilities(model, processor, image, vqascore_question(prompt))[first])


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def soft_tifa_variants(question: str, answer: str) -> list[str]:
    """Spellings of an answer, whose first tokens are summed (GenEval 2)."""
    word = answer.lower()
    spelt = [word.capitalize(), word, f" {word}", f" {word.capitalize()}"]
    if question.startswith("How many") and word in NUMBERS:
        spelt += [str(NUMBERS.index(word)), f" {NUMBERS.index(word)}"]
    return spelt


def soft_tifa_answer(probabilities: Tensor, tokenizer: Any, variants: Sequence[str]) -> float:
    """Probability of an answer: the sum over its variants' first tokens, so that a shared one is counted twice."""
    firsts = [tokenizer(variant, add_special_tokens=False).input_ids[0] for variant in variants]
    return float(sum(probabilities[first] for first in firsts))


def soft_tifa_question(question: str) -> str:
    """The message of a question of GenEval 2."""
    return f"{question} Answer in one word."


def soft_tifa(probabilities: Sequence[float]) -> tuple[float, float]:
    """Arithmetic and geometric mean of a prompt's questions, times 100 (GenEval 2: atom level, prompt level)."""
    n = len(probabilities)
    return 100 * sum(probabilities) / n, 100 * math.prod(probabilities) ** (1 / n)


def dpg_crops(grid: np.ndarray, resolution: int) -> list[np.ndarray]:
    """The four images of a 2 x 2 grid, row by row."""
    return [
        grid[y * resolution : (y + 1) * resolution, x * resolution : (x + 1) * resolution]
        for y in range(2)
        for x in range(2)
    ]


def dpg_gated(answers: Mapping[int, str], parents: Mapping[int, Sequence[int]]) -> dict[int, float]:
    """Question -> 1 if its answer is "yes" and no parent counts 0; parents come first. Parent 0 stands for none."""
    scores = {question: float(answer == "yes") for question, answer in answers.items()}
    for question in scores:
        if any(parent and scores[parent] == 0 for parent in parents.get(question, ())):
            scores[question] = 0.0
    return scores


def dpg_image(answers: Mapping[int, str], parents: Mapping[int, Sequence[int]]) -> float:
    """Mean over the questions of an image (DPG-Bench)."""
    scores = dpg_gated(answers, parents)
    return sum(scores.values()) / len(scores)


def dpg_bench(prompts: Sequence[tuple[Sequence[Mapping[int, str]], Mapping[int, Sequence[int]]]]) -> float:
    """Mean over prompts of the mean over their images, times 100; a prompt is (answers of each image, parents)."""
    of_prompts = [sum(dpg_image(answers, parents) for answers in images) / len(images) for images, parents in prompts]
    return 100 * sum(of_prompts) / len(of_prompts)


def dpg_categories(answers: Mapping[int, str], category: Mapping[int, str]) -> dict[str, float]:
    """Category -> mean of the answers of its questions, which no parent gates: as the public code has it."""
    found: dict[str, list[float]] = {}
    for question, answer in answers.items():
        found.setdefault(category[question], []).append(float(answer == "yes"))
    return {name: sum(values) / len(values) for name, values in found.items()}
