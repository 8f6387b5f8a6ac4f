"""The OWLv2 recipe: a small open-vocabulary detector, saved as a transformers `Owlv2ForObjectDetection` folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

from refcore_playground.draw import NEGATIVES
from refcore_playground.grammar import Phrase
from refcore_playground.render import NAMELESS, render_batch
from refcore_playground.training.data import (
    BINDING,
    VISION_FIRST,
    distort_and_follow,
    draw_batch,
    draw_checkered,
    follow,
)
from refcore_playground.training.lessons import PatchHead
from refcore_playground.training.tokens import clip_tokenizer, save_clip_tokenizer
from refcore_playground.world import COLOURS, RADII, SHAPES, SIZE, TEXTURES, Scene, Thing
from refcore_plugins.models.owlv2 import patch_features, query_features
from refcore_plugins.referees.owlv2.referee import Owlv2

PATCH = 8
WIDTH = 128
BATCH = 48
CONTEXT_LENGTH = 12
"""Tokens of a query, including start and end; the longest phrase has 7."""
SCENES = (*BINDING, "texture", "texture")
"""Categories of the scenes; textures come more often, since many of them are spoilt."""
CHECKERED = BATCH // 3
"""Scenes of a batch with at least one checkered thing."""
SPOILT = 0.5
"""Share of checkered things drawn with a texture without a word instead."""
PATTERN_WEIGHT = 6.0
"""Weight of a query with "checkered" for checkered and spoilt things that fit it otherwise: few of the targets, and the
finest distinction."""

_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "texture": TEXTURES,
    "size": tuple(RADII),
}
_WORDS = [len(values) + (name in ("texture", "size")) for name, values in _ATTRIBUTES.items()]
"""Number of classes of each attribute in a query; the last texture and size mean "not named"."""
_SIDE = SIZE // PATCH


class Owlv2Recipe:
    """Open-vocabulary detection (OWL-ViT, arXiv 2205.06230; objectness of OWLv2, arXiv 2306.09683).

    The patch at a thing's centre detects it, where the paper matches boxes to things: things of this world never share
    a patch, so the probabilities of all patches add up to a count.
    """

    lr = 1e-3
    ema_decay = 0.998

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed + 4)
        self.out, self.rng = out, random.Random(seed + 4)
        self.tokenizer = clip_tokenizer()
        self.tokenizer.model_max_length = CONTEXT_LENGTH  # OWLv2's processor pads queries to this length
        common = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
        ends = {"bos_token_id": self.tokenizer.bos_token_id, "eos_token_id": self.tokenizer.eos_token_id}
        config = Owlv2Config(
            vision_config={**common, "num_hidden_layers": 6, "image_size": SIZE, "patch_size": PATCH},
            text_config={
                **common,
                **ends,
                "num_hidden_layers": 2,
                "vocab_size": len(self.tokenizer),
                "max_position_embeddings": CONTEXT_LENGTH,
                "pad_token_id": self.tokenizer.pad_token_id,
            },
            projection_dim=WIDTH,
        )
        self.model = Owlv2ForObjectDetection(config)
        for embedding in (self.model.owlv2.vision_model.embeddings, self.model.owlv2.text_model.embeddings):
            nn.init.normal_(embedding.position_embedding.weight, std=0.1)
        for head in (self.model.class_head, self.model.box_head, self.model.objectness_head):
            for layer in head.modules():
                if isinstance(layer, nn.Linear):  # the library initialises them with a standard deviation of 1
                    nn.init.normal_(layer.weight, std=(0.5 if layer.out_features < 8 else 1.0) * WIDTH**-0.5)
        nn.init.constant_(self.model.class_head.logit_scale.bias, 9.0)  # logits from -15 to 5: things are rare
        nn.init.constant_(self.model.class_head.logit_shift.bias, -0.5)
        nn.init.constant_(self.model.objectness_head.dense2.bias, -3.0)
        self.head = PatchHead(WIDTH)
        self.words = nn.Linear(WIDTH, sum(_WORDS))

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "head": self.head, "words": self.words})

    def tokens(self, queries: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = self.tokenizer(
            list(queries), padding=True, truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        )
        return encoded.input_ids, encoded.attention_mask

    def detect(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query logits [N, P, Q], objectness logits [N, P], boxes [N, P, 4], and patch features [N, P, W]."""
        with torch.autocast("cpu", torch.bfloat16):
            features = patch_features(self.model, images * 2 - 1)
        features = features.float()
        logits = self.model.class_head(features, text.expand(len(images), -1, -1), None)[0]
        objectness = self.model.objectness_head(features)[..., 0]
        boxes = (self.model.box_head(features) + self.model.box_bias).sigmoid()
        return logits, objectness, boxes, features

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        plain = draw_batch(BATCH - CHECKERED, self.rng, categories=SCENES)
        checkered = draw_checkered(CHECKERED, self.rng)
        scenes = [spoil(scene, self.rng) for scene in (*plain.scenes, *checkered.scenes)]
        phrases = self.ask(scenes)
        text = query_features(self.model, *self.tokens([self.say(p) for p in phrases]))
        images, theta = distort_and_follow(torch.from_numpy(render_batch(scenes)))
        things = [t for scene in scenes for t in scene.things]
        owner = torch.tensor([i for i, scene in enumerate(scenes) for _ in scene.things])
        places = follow(torch.tensor([[t.x + 0.5, t.y + 0.5] for t in things]) / SIZE, theta[owner])
        column, row = (places * _SIDE).long().clamp(0, _SIDE - 1).unbind(1)
        at = row * _SIDE + column
        asked, there = _coded(phrases), _coded(things)
        fits = (asked[None] == there[:, None]) | (asked[None] < 0)  # [T, Q, attributes]
        answers = fits.all(-1)
        truth = torch.zeros(BATCH, _SIDE**2, len(phrases))
        truth[owner, at] = answers.float()
        weight = torch.ones_like(truth)
        weight[owner, at] += (PATTERN_WEIGHT - 1) * _checkered_queries(things, phrases, fits)
        taken = torch.zeros(BATCH, _SIDE**2)
        taken[owner, at] = 1
        extent = torch.tensor([[2 * t.radius + 1] * 2 for t in things]) / SIZE

        logits, objectness, boxes, features = self.detect(images, text)
        classes = F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="sum") / answers.sum()
        objects = F.binary_cross_entropy_with_logits(objectness, taken, reduction="sum") / len(things)
        words = [
            F.cross_entropy(logit, torch.where(asked[:, i] < 0, logit.shape[1] - 1, asked[:, i]))
            for i, logit in enumerate(self.words(text).split(_WORDS, -1))
        ]
        early = progress < VISION_FIRST
        return {
            "classes": classes,
            "objects": objects,
            "boxes": 5 * F.l1_loss(boxes[owner, at], torch.cat([places, extent], 1)),
            "patches": (1.0 if early else 0.3) * self.head.loss(features, scenes, PATCH),
            "words": (0.5 if early else 0.1) * torch.stack(words).mean(),
        }

    def ask(self, scenes: Sequence[Scene]) -> list[Phrase]:
        """Queries for a batch: a description of each thing, and one with a wrong attribute."""
        phrases = set()
        for thing in (t for scene in scenes for t in scene.things):
            seeming = _seeming(thing)
            texture = seeming if self.rng.random() < (0.8 if seeming == "checkered" else 0.5) else None
            size = thing.size if self.rng.random() < 0.4 else None
            right = Phrase(thing.colour, thing.shape, texture, size)
            name = self.rng.choice([n for n in _ATTRIBUTES if getattr(right, n) is not None])
            value = self.rng.choice([v for v in _ATTRIBUTES[name] if v != getattr(right, name)])
            phrases |= {right, replace(right, **{name: value})}  # type: ignore[arg-type]
        return sorted((p for p in phrases if not p.unseen), key=str)

    def say(self, phrase: Phrase) -> str:
        """The phrase with or without its article."""
        return str(phrase) if self.rng.random() < 0.7 else str(phrase).split(" ", 1)[1]

    def evaluate(self, quick: bool) -> dict[str, float]:
        """True captions against captions with one wrong fact, and yes/no accuracy, on fresh clean scenes.

        `spoilt`: true scenes against the same scenes with their checkered things spoilt, for captions that name such
        things. Scored by the referee `owlv2` with the weights saved last.
        """
        referee = Owlv2(model=str(self.out), parser="grammar", total=1.0)
        referee.load(torch.device("cpu"), torch.float32)

        def log_p(images: Tensor, captions: Sequence[str]) -> Tensor:
            return -referee.judge(images, referee.read(captions), torch.arange(len(images)))

        scores: dict[str, float] = {}
        for split in ("seen",) if quick else ("seen", "unseen"):
            rng = random.Random(f"evaluate-{split}")
            for kind in (None,) if quick else (None, *NEGATIVES):
                batch = draw_batch(300, rng, wrong=1, kind=kind, split=split)
                yes = log_p(batch.images, batch.captions)
                no = log_p(batch.images, [w[0] for w in batch.wrong])
                scores[f"{split}/hard" + (f"/{kind}" if kind else "")] = (yes > no).float().mean().item()
                if kind is None:
                    scores[f"{split}/yes"] = (yes.exp() > 0.5).float().mean().item()
                    scores[f"{split}/no"] = (no.exp() < 0.5).float().mean().item()
            batch = draw_checkered(300, rng, split)
            spoilt = torch.from_numpy(render_batch([spoil(scene, rng, 1.0) for scene in batch.scenes]))
            yes, no = log_p(batch.images, batch.captions), log_p(spoilt, batch.captions)
            scores[f"{split}/spoilt"] = (yes > no).float().mean().item()
            scores[f"{split}/spoilt/no"] = (no.exp() < 0.5).float().mean().item()
        return scores

    def warm_start(self) -> None:
        """Loads the weights of the checkpoint in the output folder."""
        saved = Owlv2ForObjectDetection.from_pretrained(
            self.out, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        self.model.load_state_dict(saved.state_dict())

    def save(self) -> None:
        half = Owlv2ForObjectDetection(self.model.config)
        half.load_state_dict(self.model.state_dict())
        half.half().save_pretrained(self.out)
        images = Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
        Owlv2Processor(image_processor=images, tokenizer=self.tokenizer).save_pretrained(self.out)
        save_clip_tokenizer(self.tokenizer, self.out)


def spoil(scene: Scene, rng: random.Random, share: float = SPOILT) -> Scene:
    """The scene with a share of its checkered things in a texture without a word, which must not pass for checkered."""
    return replace(
        scene,
        things=tuple(
            replace(t, texture=rng.choice(tuple(NAMELESS))) if t.texture == "checkered" and rng.random() < share else t
            for t in scene.things
        ),
    )


def _seeming(thing: Thing) -> str:
    """A thing's texture, or the texture that one without a word resembles."""
    return "checkered" if thing.texture in NAMELESS else thing.texture


def _checkered_queries(things: Sequence[Thing], phrases: Sequence[Phrase], fits: Tensor) -> Tensor:
    """[T, Q]: whether a query with "checkered" fits a checkered or spoilt thing in everything else."""
    patterned = torch.tensor([_seeming(t) == "checkered" for t in things])
    asked = torch.tensor([p.texture == "checkered" for p in phrases])
    rest = [i for i, name in enumerate(_ATTRIBUTES) if name != "texture"]
    return patterned[:, None] & asked & fits[:, :, rest].all(-1)


def _coded(named: Sequence[Phrase] | Sequence[Thing]) -> Tensor:
    """Attributes as indices [N, 4]; -1 if a phrase leaves one open, one past the last for a texture without a word."""
    rows = [[_code(getattr(item, name), values) for name, values in _ATTRIBUTES.items()] for item in named]
    return torch.tensor(rows)


def _code(value: str | None, values: tuple[str, ...]) -> int:
    if value is None:
        return -1
    return values.index(value) if value in values else len(values)
