"""The BLIP-2 recipe: ViT and Q-Former with ITC, ITM and ITG, saved as a transformers folder plus the ITG head."""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipImageProcessor

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
from refcore_playground.training.lessons import FactHead, GroundingHead, PatchHead
from refcore_playground.training.tokens import CONTEXT_LENGTH, bert_tokenizer, save_bert_tokenizer
from refcore_playground.world import SIZE
from refcore_plugins.referees.blip2.itg_head import PREFIX, ItgHead

PATCH = 8
BATCH = 40
WRONG = 2
"""Captions per image with a single wrong fact, for the matching loss."""
WIDTH = 128
QUERIES = 12
IMAGE_MEAN = [0.5, 0.5, 0.5]
IMAGE_STD = [0.5, 0.5, 0.5]


class Blip2Recipe:
    """The first stage of BLIP-2 (arXiv 2301.12597, section 3.2); hard negatives are captions with one wrong fact."""

    lr = 8e-4
    ema_decay = 0.998

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed + 1)
        self.out, self.rng = out, random.Random(seed + 1)
        self.tokenizer = bert_tokenizer()
        vocabulary = len(self.tokenizer)
        config = Blip2Config(
            vision_config={
                "hidden_size": WIDTH,
                "intermediate_size": 4 * WIDTH,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "image_size": SIZE,
                "patch_size": PATCH,
                "initializer_range": 0.02,
            },
            qformer_config={
                "vocab_size": vocabulary,
                "hidden_size": WIDTH,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 4 * WIDTH,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "max_position_embeddings": CONTEXT_LENGTH,
                "cross_attention_frequency": 1,
                "encoder_hidden_size": WIDTH,
                "use_qformer_text_input": True,
                "pad_token_id": self.tokenizer.pad_token_id,
            },
            num_query_tokens=QUERIES,
            image_text_hidden_size=WIDTH,
        )
        config.image_token_index = None
        self.model = Blip2ForImageTextRetrieval(config)
        nn.init.normal_(self.model.query_tokens, std=0.5)
        self.itg = ItgHead(WIDTH, vocabulary)
        self.head, self.facts = PatchHead(WIDTH), FactHead(WIDTH)
        self.grounding = GroundingHead(WIDTH, self.tokenizer.get_vocab())
        self.temperature = nn.Parameter(torch.tensor(0.07).log().neg())

    def modules(self) -> nn.ModuleDict:
        temperature = nn.ParameterDict({"scale": self.temperature})
        lessons = {"head": self.head, "facts": self.facts, "grounding": self.grounding}
        return nn.ModuleDict({"model": self.model, "itg": self.itg, **lessons, "temperature": temperature})

    def tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        encoded = self.tokenizer(
            captions, padding=True, truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        )
        return encoded.input_ids, encoded.attention_mask

    def vision(self, images: Tensor) -> Tensor:
        states: Tensor = self.model.vision_model(images * 2 - 1).last_hidden_state
        return states

    def match(self, vision: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ITM logits [N, 2], averaged over the query tokens, and the text's states [N, T, W]."""
        queries = self.model.query_tokens.expand(len(vision), -1, -1)
        full = torch.cat([torch.ones(len(vision), QUERIES, dtype=mask.dtype), mask], 1)
        embeds = self.model.embeddings(input_ids=ids, query_embeds=queries)
        out = self.model.qformer(
            query_embeds=embeds, query_length=QUERIES, attention_mask=full, encoder_hidden_states=vision
        ).last_hidden_state
        return self.model.itm_head(out[:, :QUERIES]).mean(1), out[:, QUERIES:]

    def look(self, vision: Tensor) -> Tensor:
        """States of the queries [N, Q, W] for an image alone."""
        queries = self.model.query_tokens.expand(len(vision), -1, -1)
        states: Tensor = self.model.qformer(query_embeds=queries, encoder_hidden_states=vision).last_hidden_state
        return states

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """State of the first token [M, W] for a caption alone."""
        embeds = self.model.embeddings(input_ids=ids)
        out = self.model.qformer(query_embeds=embeds, query_length=0, attention_mask=mask)
        states: Tensor = out.last_hidden_state
        return states[:, 0]

    def contrast(self, queries: Tensor, text: Tensor) -> Tensor:
        """ITC similarities [N, M]: maximum cosine over the queries."""
        image = F.normalize(self.model.vision_projection(queries).float(), dim=-1)
        text = F.normalize(self.model.text_projection(text).float(), dim=-1)
        return torch.einsum("nqd,md->nqm", image, text).amax(1)

    def caption(self, vision: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """ITG loss [N]: mean next-token cross-entropy; queries attend to queries, text to queries and earlier text."""
        ids = ids.clone()
        ids[:, 0] = self.tokenizer.bos_token_id
        queries = self.model.query_tokens.expand(len(vision), -1, -1)
        length = ids.shape[1]
        seen = torch.zeros(len(vision), 1, QUERIES + length, QUERIES + length, dtype=torch.bool)
        seen[..., :QUERIES] = True
        seen[..., QUERIES:, QUERIES:] = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None].bool()
        embeds = self.model.embeddings(input_ids=ids, query_embeds=queries)
        out = self.model.qformer(
            query_embeds=embeds, query_length=QUERIES, attention_mask=seen, encoder_hidden_states=vision
        ).last_hidden_state
        logits = self.itg(out[:, QUERIES:-1]).float()
        target = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none", ignore_index=-100)
        return loss.view(len(ids), -1).sum(1) / mask[:, 1:].sum(1)

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        if progress < VISION_FIRST:
            return self._dense_loss()
        batch = draw_batch(BATCH, self.rng, wrong=WRONG, categories=BINDING)
        captions = batch.captions + [w for row in batch.wrong for w in row]
        all_ids, all_mask = self.tokens(captions)
        ids, mask = all_ids[:BATCH], all_mask[:BATCH]
        again = torch.arange(BATCH).repeat_interleave(WRONG)
        images = distort(batch.images)
        if progress > ATTACKED:
            images = self._attacked(images, all_ids, all_mask)
        with torch.autocast("cpu", torch.bfloat16):
            vision = self.vision(images)
            queries, text = self.look(vision), self.read(all_ids, all_mask)
            similarity = self.contrast(queries, text) * self.temperature.exp().clamp(max=100)
            likely = similarity[:, :BATCH].detach().clone().fill_diagonal_(-1e4)
            mate = torch.multinomial(likely.softmax(1) + 1e-6, 1)[:, 0]
            read = torch.cat([ids, ids[mate], all_ids[BATCH:]])
            logits, states = self.match(
                torch.cat([vision, vision, vision[again]]), read, torch.cat([mask, mask[mate], all_mask[BATCH:]])
            )
            logits = logits.float()
            itg = self.caption(vision, ids, mask).mean()
        target = torch.arange(BATCH)
        itc = F.cross_entropy(similarity, target) + F.cross_entropy(similarity[:, :BATCH].t(), target)
        truth = torch.cat([torch.ones(BATCH), torch.zeros(BATCH * (1 + WRONG))]).long()
        weight = torch.where(truth == 1, 1.5, 1.0)
        itm = (F.cross_entropy(logits, truth, reduction="none") * weight).sum() / weight.sum()
        patches = self.head.loss(vision[:, 1:], batch.scenes, PATCH)
        wrong = [request for row in batch.wrong_requests for request in row]
        requests = [*batch.requests, *(batch.requests[i] for i in mate.tolist()), *wrong]
        shown = [*batch.scenes, *batch.scenes, *(batch.scenes[i] for i in again.tolist())]
        return {
            "itc": 0.25 * itc,
            "itm": 2 * itm,
            "itg": itg,
            "grounding": self.grounding.loss(states, read, requests, shown),
            "patches": 0.5 * patches,
            "scene": self.facts.of_scenes(queries.float().mean(1), batch.scenes),
            "text": 0.5 * self.facts.of_requests(text[:BATCH], batch.requests),
        }

    def _dense_loss(self) -> dict[str, Tensor]:
        """The auxiliary losses alone, on a batch of their own."""
        batch = draw_batch(VISION_BATCH, self.rng, categories=BINDING)
        ids, mask = self.tokens(batch.captions)
        with torch.autocast("cpu", torch.bfloat16):
            vision = self.vision(distort(batch.images))
            queries, text = self.look(vision), self.read(ids, mask)
            _, states = self.match(vision, ids, mask)
        return {
            "grounding": self.grounding.loss(states, ids, batch.requests, batch.scenes),
            "patches": self.head.loss(vision[:, 1:], batch.scenes, PATCH),
            "scene": self.facts.of_scenes(queries.float().mean(1), batch.scenes),
            "text": self.facts.of_requests(text, batch.requests),
        }

    def _attacked(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Images made adversarial to matching their captions, the first BATCH, against a wrong one each."""
        truth = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)]).long()
        ids, mask = (torch.cat([a[:BATCH], a[BATCH::WRONG]]) for a in (ids, mask))

        def loss(moved: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                vision = self.vision(moved)
                logits, _ = self.match(torch.cat([vision, vision]), ids, mask)
            return F.cross_entropy(logits.float(), truth, reduction="sum")

        return attack(images, loss, REACH)

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Retrieval among 500, true captions against captions with one wrong fact, and yes/no accuracy, on clean
        scenes."""
        scores: dict[str, float] = {}
        for split in ("seen",) if quick else ("seen", "unseen"):
            rng = random.Random(f"evaluate-{split}")
            batch = draw_batch(500, rng, wrong=1, split=split)
            ids, mask = self.tokens(batch.captions + [w[0] for w in batch.wrong])
            with torch.autocast("cpu", torch.bfloat16):
                vision = self.vision(batch.images)
                similarity = self.contrast(self.look(vision), self.read(ids, mask))
                yes = self.match(vision, ids[:500], mask[:500])[0].float().softmax(-1)[:, 1]
                no = self.match(vision, ids[500:], mask[500:])[0].float().softmax(-1)[:, 1]
                easy, hard = (self.caption(vision, ids[s], mask[s]) for s in (slice(500), slice(500, None)))
            found = similarity[:, :500].argmax(1) == torch.arange(500)
            scores[f"{split}/itc retrieval@500"] = found.float().mean().item()
            scores[f"{split}/itm hard"] = (yes > no).float().mean().item()
            scores[f"{split}/itm yes"] = (yes > 0.5).float().mean().item()
            scores[f"{split}/itm no"] = (no < 0.5).float().mean().item()
            scores[f"{split}/itg hard"] = (easy < hard).float().mean().item()
            scores[f"{split}/itc hard"] = (
                (similarity[:, :500].diagonal() > similarity[:, 500:].diagonal()).float().mean().item()
            )
            for kind in () if quick else NEGATIVES:
                batch = draw_batch(300, rng, wrong=1, kind=kind, split=split)
                ids, mask = self.tokens(batch.captions + [w[0] for w in batch.wrong])
                with torch.autocast("cpu", torch.bfloat16):
                    vision = self.vision(batch.images)
                    yes = self.match(vision, ids[:300], mask[:300])[0].float().softmax(-1)[:, 1]
                    no = self.match(vision, ids[300:], mask[300:])[0].float().softmax(-1)[:, 1]
                scores[f"{split}/itm hard/{kind}"] = (yes > no).float().mean().item()
        return scores

    def warm_start(self) -> None:
        """Loads the weights of the checkpoint in the output folder, including the language head."""
        saved = Blip2ForImageTextRetrieval.from_pretrained(
            self.out, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        self.model.load_state_dict(saved.state_dict())
        head = ItgHead.from_file(self.out / "itg_head.safetensors", WIDTH, len(self.tokenizer))
        self.itg.load_state_dict(head.state_dict())

    def save(self) -> None:
        save_bert_tokenizer(self.tokenizer, self.out)
        half = Blip2ForImageTextRetrieval(self.model.config)
        half.load_state_dict(self.model.state_dict())
        half.half().save_pretrained(self.out)
        head = {PREFIX + name: value.half().contiguous() for name, value in self.itg.state_dict().items()}
        save_file(head, self.out / "itg_head.safetensors")
        BlipImageProcessor(
            size={"height": SIZE, "width": SIZE}, image_mean=IMAGE_MEAN, image_std=IMAGE_STD, resample=3
        ).save_pretrained(self.out)
