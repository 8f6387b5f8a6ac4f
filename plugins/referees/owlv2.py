"""The `owlv2` referee: an open-vocabulary detector that looks for each thing of the prompt, counts it and places it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import Owlv2ForObjectDetection

from refcore import registry
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import ParsedPrompt, Phrase, load_parser
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.attention import transformers_attention
from refcore_plugins.models.detection import DIRECTIONS, IMPOSSIBLE, centre, log_direction, log_number, numbers
from refcore_plugins.models.preprocess import Normalise
from refcore_plugins.models.similarity import unit
from refcore_plugins.models.text import text_beyond
from refcore_plugins.models.transformers_folder import TransformersFolder

ARCHITECTURE = "Owlv2ForObjectDetection"
EXPECTED = f"expected an {ARCHITECTURE}, such as google/owlv2-base-patch16-ensemble"
EPS = 1e-6


class Owlv2(Referee):
    """Open-vocabulary detection (OWL-ViT, arXiv 2205.06230; OWLv2, arXiv 2306.09683), read as one probability.

    Every patch of the image proposes a box, with a probability s that it shows a given phrase and a probability o that
    it shows any thing at all. With the proposals taken as independent, the probability that the image is what the
    prompt asks for is p = prod_i P(count_i) * P(total) * prod_r P(relation_r):

    - P(count_i): that exactly so many proposals show phrase i (the Poisson binomial distribution of its s); at least
      one where the prompt leaves the number open;
    - P(total): that there are exactly as many things as the prompt asks for (the same of all o), to the power `total`;
    - P(relation_r): a softmax over the four directions of the offset between the expected centres of the two things,
      to the power `relation`.

    Wanted, the loss is -log p; not wanted, -log(1 - p). A `parser` takes the prompt apart; without one it is a
    single phrase, of which there must be at least one, as detectors are usually asked. Counts want a detector that
    proposes each thing once; those trained by matching boxes one to one do, roughly (the embedded one exactly).
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:owlv2", description=f"an {ARCHITECTURE} of transformers: hub id, folder or playground:owlv2"
        )
        parser: str | None = Field(
            None, description="plugin that takes prompts apart, such as spacy; null: the prompt is one phrase"
        )
        total: float = Field(0.0, ge=0.0, description="weight of there being no more things than asked for")
        relation: float = Field(1.0, ge=0.0, description="weight of the relations; needs a parser")
        softness: float = Field(
            0.05, gt=0.0, description="offset at which a relation is likely, as a share of the image's side"
        )

    name = "owlv2"
    score_unit: ClassVar[str] = "probability"

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`, for the parser, too."""
        super().check(prompts)
        if self.config.parser:
            registry.create("parsers", self.config.parser, where="parser").check(prompts)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        folder = TransformersFolder(self.name, self.config.model, EXPECTED)
        folder.require([ARCHITECTURE])
        model = folder.load_model(Owlv2ForObjectDetection, dtype, transformers_attention(device, dtype))
        self.model: Any = model.to(device)
        self.tokenizer: Any = folder.load_tokenizer(padding_side="right")
        self.normalise = Normalise.of_processor(folder.load_image_processor(), device)
        self.device, self.dtype = device, dtype
        self.input_size = (int(model.config.vision_config.image_size),) * 2
        self.context = int(model.config.text_config.max_position_embeddings)
        self.parser = load_parser(self.config.parser, where="parser") if self.config.parser else None

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """What to look for, padded to the most things T and relations R of any prompt.

        Tensors: `query` [P, T, D] unit features, where `thing` [P, T] is true; `number` [P, T, K] and `total` [P, K']
        as `log_number` asks for them (`total` none true: some number is open); `relation` [P, R, 3] of subject,
        direction and object (direction -1: padding).

        Raises:
            ParseError: the parser cannot take a prompt apart.
        """
        parsed = [self._parse(prompt) for prompt in prompts]
        texts = sorted({thing.text for parts in parsed for thing in parts.things})
        features = self._features(texts)
        most = max(len(parts.things) for parts in parsed)
        placed = [[r for r in parts.relations if r.name in DIRECTIONS] for parts in parsed]
        counts = [[thing.count or 0 for thing in parts.things] for parts in parsed]
        query = features.new_zeros(len(parsed), most, features.shape[1])
        thing = torch.zeros(len(parsed), most, dtype=torch.bool)
        number = numbers([n for row in counts for n in row + [0] * (most - len(row))]).view(len(parsed), most, -1)
        total = numbers([sum(row) if all(row) else 0 for row in counts])
        relation = torch.tensor([0, -1, 0]).repeat(len(parsed), max(map(len, placed)), 1)
        for i, (parts, relations) in enumerate(zip(parsed, placed, strict=True)):
            query[i, : len(parts.things)] = features[[texts.index(part.text) for part in parts.things]]
            thing[i, : len(parts.things)] = True
            for k, r in enumerate(relations):
                relation[i, k] = torch.tensor([r.subject, DIRECTIONS.index(r.name), r.object])
        tensors = {"query": query, "thing": thing, "number": number, "total": total, "relation": relation}
        truncated = tuple(
            "; ".join(filter(None, (text_beyond(self.tokenizer, thing.text, self.context) for thing in parts.things)))
            for parts in parsed
        )
        conditioning = Conditioning(tuple(prompts), tensors, truncated, tuple(map(self._note, parsed)))
        return conditioning.to(self.device)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        log_p = self.log_probability(views, conditioning.select(prompt_index))
        return -log_p if wanted else -torch.log(-torch.expm1(log_p.clamp(max=-EPS)))

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability that each image is what its prompt asks for, in [0, 1]."""
        return self.log_probability(images, conditioning.tensors).exp()

    def log_probability(self, views: Tensor, text: dict[str, Tensor]) -> Tensor:
        """[N] log-probabilities (each part to the power of its weight) of views [N, 3, H, W]."""
        features = patch_features(self.model, self.normalise(views).to(self.dtype))
        logits = self.model.class_head(features, text["query"].to(features.dtype), None)[0]
        wide = torch.promote_types(self.dtype, torch.float32)
        logits = logits.transpose(1, 2).to(wide)
        log_p = log_number(logits, text["number"]).masked_fill(~text["thing"], 0).sum(1)
        if self.config.total:
            objectness = self.model.objectness_head(features)[..., 0].to(wide)
            of_all = log_number(objectness, text["total"])
            log_p = log_p + self.config.total * of_all.masked_fill(~text["total"].any(1), 0)
        if self.config.relation and text["relation"].shape[1]:
            subject, direction, other = text["relation"].unbind(-1)
            boxes = (self.model.box_head(features) + self.model.box_bias.to(features.dtype)).sigmoid().to(wide)
            middle = centre(logits, boxes[:, None, :, :2])
            start, end = (middle.gather(1, of.unsqueeze(-1).expand(-1, -1, 2)) for of in (subject, other))
            holds = log_direction(start, end, self.config.softness)
            holds = holds.gather(-1, direction.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            log_p = log_p + self.config.relation * holds.masked_fill(direction < 0, 0).sum(1)
        return log_p.clamp(min=IMPOSSIBLE)

    def _parse(self, prompt: str) -> ParsedPrompt:
        return self.parser.parse(prompt) if self.parser else ParsedPrompt(prompt, (Phrase(prompt, None),))

    def _note(self, parts: ParsedPrompt) -> str:
        """What of the relations is not judged."""
        other = sorted({r.name for r in parts.relations} - set(DIRECTIONS))
        if other and self.config.relation:
            return f"relations that are not judged: {', '.join(other)} (known: {', '.join(DIRECTIONS)})"
        return ""

    def _features(self, texts: Sequence[str]) -> Tensor:
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        ).to(self.device)
        return query_features(self.model, encoded.input_ids, encoded.attention_mask)


def patch_features(model: Any, pixels: Tensor) -> Tensor:
    """[N, 3, H, W] normalised pixels -> [N, P, W] features of the patches, as the detection heads take them.

    The library's own path stops the gradient before objectness; through these features there is one.
    """
    vision = model.owlv2.vision_model
    tokens = vision.post_layernorm(vision(pixel_values=pixels).last_hidden_state)
    return model.layer_norm(tokens[:, 1:] * tokens[:, :1])  # type: ignore[no-any-return]


def query_features(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """[Q, L] tokens -> [Q, D] unit features of the queries."""
    return unit(model.owlv2.get_text_features(input_ids=ids, attention_mask=mask).pooler_output)
