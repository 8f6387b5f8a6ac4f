"""The CLIP recipe: a small ViT and text tower with hard negatives, saved as an open_clip `local-dir:` folder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refcore_playground.draw import NEGATIVES
from refcore_playground.training.data import (
    ATTACKED,
    BINDING,
    REACH,
    VISION_BATCH,
    VISION_FIRST,
    attack,
    distort,
    draw_batch,
)
from refcore_playground.training.lessons import FactHead, PatchHead
from refcore_playground.training.tokens import CONTEXT_LENGTH, clip_tokenizer, save_clip_tokenizer
from refcore_playground.world import SIZE

PATCH = 8
BATCH = 64
WRONG = 2
"""Captions per image with a single wrong fact."""


class ClipRecipe:
    """Contrastive learning (CLIP, arXiv 2103.00020) with hard negatives (as in NegCLIP, arXiv 2210.01936)."""

    lr = 1.2e-3
    ema_decay = 0.998

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.out, self.rng = out, random.Random(seed)
        self.tokenizer = clip_tokenizer()
        self.config = {
            "embed_dim": 128,
            "vision_cfg": {"image_size": SIZE, "layers": 6, "width": 128, "head_width": 32, "patch_size": PATCH},
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": len(self.tokenizer),
                "hf_tokenizer_name": "local",
                "width": 128,
                "heads": 4,
                "layers": 4,
            },
        }
        self.model = CLIP(**self.config)
        self.model.visual.output_tokens = True
        self.head, self.facts = PatchHead(128), FactHead(128)

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "head": self.head, "facts": self.facts})

    def tokens(self, captions: list[str]) -> Tensor:
        encoded = self.tokenizer(
            captions, padding=True, truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        )
        ids: Tensor = encoded.input_ids
        return ids

    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit image features [N, D] and patch tokens [N, P, W]."""
        with torch.autocast("cpu", torch.bfloat16):
            pooled, tokens = self.model.visual(images * 2 - 1)
        return F.normalize(pooled.float(), dim=-1), tokens

    def read(self, captions: list[str]) -> Tensor:
        """Unit text features [M, D], as `encode_text` gives them, without padding beyond the longest caption."""
        ids, model = self.tokens(captions), self.model
        length = ids.shape[1]
        with torch.autocast("cpu", torch.bfloat16):
            x = model.token_embedding(ids) + model.positional_embedding[:length]
            x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
            text = x[torch.arange(len(ids)), ids.argmax(-1)] @ model.text_projection
        return F.normalize(text.float(), dim=-1)

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        if progress < VISION_FIRST:
            batch = draw_batch(VISION_BATCH, self.rng, categories=BINDING)
            image, tokens = self.see(distort(batch.images))
            text = self.read(batch.captions)
            return {
                "patches": self.head.loss(tokens, batch.scenes, PATCH),
                "scene": self.facts.of_scenes(image, batch.scenes),
                "text": self.facts.of_requests(text, batch.requests),
            }
        batch = draw_batch(BATCH, self.rng, wrong=WRONG, categories=BINDING)
        text = self.read(batch.captions + [caption for row in batch.wrong for caption in row])
        images = distort(batch.images)
        if progress > ATTACKED:
            known = text.detach()
            images = attack(images, lambda moved: torch.stack(self.judge(self.see(moved)[0], known)).sum(), REACH)
        image, tokens = self.see(images)
        contrast, choice = self.judge(image, text)
        return {
            "contrast": 0.5 * contrast,
            "choice": choice,
            "patches": 0.3 * self.head.loss(tokens, batch.scenes, PATCH),
            "scene": self.facts.of_scenes(image, batch.scenes),
            "text": 0.5 * self.facts.of_requests(text[:BATCH], batch.requests),
        }

    def judge(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the contrast within the batch, wrong captions included, and of the choice among own captions."""
        scale = self.model.logit_scale.exp().clamp(max=100)
        true, false = text[:BATCH], text[BATCH:].view(BATCH, WRONG, -1)
        logits = scale * image @ true.t()
        hard = scale * (image[:, None] * false).sum(-1)
        target = torch.arange(BATCH)
        contrast = F.cross_entropy(torch.cat([logits, hard], 1), target) + F.cross_entropy(logits.t(), target)
        choice = F.cross_entropy(torch.cat([logits.diagonal()[:, None], hard], 1), torch.zeros(BATCH, dtype=torch.long))
        return contrast, choice

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Retrieval among 500 and accuracy on captions with one wrong fact, on fresh clean scenes, seen and unseen."""
        scores: dict[str, float] = {}
        for split in ("seen",) if quick else ("seen", "unseen"):
            rng = random.Random(f"evaluate-{split}")
            batch = draw_batch(500, rng, wrong=1, split=split)
            image, text = self.see(batch.images)[0], self.read(batch.captions + [w[0] for w in batch.wrong])
            similarity = image @ text[:500].t()
            scores[f"{split}/retrieval@500"] = (similarity.argmax(1) == torch.arange(500)).float().mean().item()
            hard = (image * text[500:]).sum(-1)
            scores[f"{split}/hard"] = (similarity.diagonal() > hard).float().mean().item()
            for kind in () if quick else NEGATIVES:
                batch = draw_batch(300, rng, wrong=1, kind=kind, split=split)
                image, text = self.see(batch.images)[0], self.read(batch.captions + [w[0] for w in batch.wrong])
                right = (image * text[:300]).sum(-1) > (image * text[300:]).sum(-1)
                scores[f"{split}/hard/{kind}"] = right.float().mean().item()
        return scores

    def warm_start(self) -> None:
        """Loads the weights of the checkpoint in the output folder, except word embeddings of another vocabulary."""
        saved, own = load_file(self.out / "open_clip_model.safetensors"), self.model.state_dict()
        self.model.load_state_dict({k: v if v.shape == own[k].shape else own[k] for k, v in saved.items()})

    def save(self) -> None:
        save_clip_tokenizer(self.tokenizer, self.out)
        state = {k: v.half().contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, self.out / "open_clip_model.safetensors")
        half = [0.5] * 3
        preprocess = {"mean": half, "std": half, "interpolation": "bilinear", "resize_mode": "squash"}
        config = {"model_cfg": self.config, "preprocess_cfg": preprocess}
        (self.out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
