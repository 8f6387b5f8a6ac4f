"""The `owlv2` referee: an open-vocabulary detector that finds, counts and locates the things in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from refcore import registry
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import ParsedPrompt, Phrase, load_parser
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.log_complement import IMPOSSIBLE, log_complement, log_complement_of_product
from refcore_plugins.models.owlv2 import EXPECTED, OWLV2, Owlv2Network
from refcore_plugins.models.transformers_folder import TransformersFolder
from refcore_plugins.models.truncated_text import truncated_text
from refcore_plugins.referees.owlv2.counts_and_relations import (
    DIRECTIONS,
    centre,
    log_direction,
    log_number,
    log_other_number,
    numbers,
)


class Owlv2(Referee):
    """Open-vocabulary detection (OWL-ViT, arXiv 2205.06230; OWLv2, arXiv 2306.09683), read as one probability.

    Every patch of the image proposes a box, with a probability s that it shows a given phrase and a probability o that
    it shows an object at all. The proposals are taken to be independent, and the probability that the image matches the
    prompt is p = prod_i P(count_i) * P(total) * prod_r P(relation_r):

    - P(count_i): the number of proposals that show phrase i is the prompt's (by the Poisson binomial distribution of
      its s); at least one where the prompt leaves the number open;
    - P(total): the number of all objects is the prompt's (by the same distribution of all o), to the power `total`;
    - P(relation_r): a softmax over the four directions of the offset between the expected centres of the two things,
      to the power `relation`.

    Wanted, the loss is -log p; not wanted, -log(1 - p). A `parser` splits the prompt into phrases and relations;
    without one, the prompt is a single phrase that must occur at least once, the usual query of a detector. Counting
    needs a detector that proposes each thing once. Those trained by one-to-one matching of boxes do so roughly, the
    embedded one exactly.
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:owlv2", description=f"An {OWLV2} of transformers: hub id, folder or playground:owlv2."
        )
        parser: str | None = Field(
            None, description="Parser plugin that splits prompts, such as spacy; null: the prompt is one phrase."
        )
        total: float = Field(
            0.0, ge=0.0, description="Weight of the total number of objects, which penalises extra objects."
        )
        relation: float = Field(1.0, ge=0.0, description="Weight of the relations; needs a parser.")
        softness: float = Field(
            0.05, gt=0.0, description="Offset at which a relation becomes likely, as a fraction of the image's side."
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
        self.network = Owlv2Network(TransformersFolder(self.name, self.config.model, EXPECTED), device, dtype)
        self.tokenizer, self.normalise = self.network.tokenizer, self.network.normalise
        self.device, self.dtype = device, dtype
        self.input_size, self.fit, self.context = self.network.input_size, self.network.fit, self.network.context
        self.parser = load_parser(self.config.parser, where="parser") if self.config.parser else None

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Things and relations of each prompt, padded to the largest number of things T and relations R.

        Tensors: `query` [P, T, D] unit features, valid where `thing` [P, T] is true; `number` [P, T, K] and `total`
        [P, K'], each the `wanted` of `log_number` (`total` nowhere true: some number is open); `relation` [P, R, 3] of
        subject, direction and object (direction -1: padding).

        Raises:
            ParseError: the parser cannot parse a prompt.
        """
        parsed = [self._parse(prompt) for prompt in prompts]
        texts = sorted({thing.text for parts in parsed for thing in parts.things})
        features = self.network.queries(texts)
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
            "; ".join(
                filter(None, (truncated_text(self.tokenizer, thing.text, self.context) for thing in parts.things))
            )
            for parts in parsed
        )
        conditioning = Conditioning(tuple(prompts), tensors, truncated, tuple(map(self._note, parsed)))
        return conditioning.to(self.device)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        text = conditioning.select(prompt_index)
        return -(self.log_probability(views, text) if wanted else self.log_mismatch(views, text))

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability that each image matches its prompt, in [0, 1]."""
        return self.log_probability(images, conditioning.tensors).exp()

    def log_probability(self, views: Tensor, text: dict[str, Tensor]) -> Tensor:
        """[N] log-probabilities of views [N, 3, H, W], each factor to the power of its weight."""
        features, logits = self._detect(views, text)
        log_p = log_number(logits, text["number"]).masked_fill(~text["thing"], 0).sum(1)
        if self.config.total:
            of_all = log_number(self._objectness(features), text["total"])
            log_p = log_p + self.config.total * of_all.masked_fill(~text["total"].any(1), 0)
        if self.config.relation and text["relation"].shape[1]:
            wanted = text["relation"][..., 1]
            holds = self._directions(features, logits, text)
            holds = holds.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            log_p = log_p + self.config.relation * holds.masked_fill(wanted < 0, 0).sum(1)
        return log_p.clamp(min=IMPOSSIBLE)

    def log_mismatch(self, views: Tensor, text: dict[str, Tensor]) -> Tensor:
        """[N] log(1 - p) for the p of `log_probability`, exact where p rounds to 1."""
        features, logits = self._detect(views, text)
        p, not_p = [log_number(logits, text["number"])], [log_other_number(logits, text["number"])]
        weights = [text["thing"].to(logits.dtype)]
        if self.config.total:
            objectness = self._objectness(features)
            p.append(log_number(objectness, text["total"]).unsqueeze(1))
            not_p.append(log_other_number(objectness, text["total"]).unsqueeze(1))
            weights.append(self.config.total * text["total"].any(1, keepdim=True).to(logits.dtype))
        if self.config.relation and text["relation"].shape[1]:
            directions = self._directions(features, logits, text)
            index = text["relation"][..., 1].clamp(min=0)
            p.append(directions.gather(-1, index.unsqueeze(-1)).squeeze(-1))
            not_p.append(log_complement(directions, index))
            weights.append(self.config.relation * (text["relation"][..., 1] >= 0).to(logits.dtype))
        return log_complement_of_product(torch.cat(p, 1), torch.cat(not_p, 1), torch.cat(weights, 1))

    def _detect(self, views: Tensor, text: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """[N, P, W] features of the patches of views [N, 3, H, W], and [N, T, P] logits of the things."""
        features = self.network.patches(views)
        return features, self._wide(self.network.logits(features, text["query"]).transpose(1, 2))

    def _objectness(self, features: Tensor) -> Tensor:
        """[N, P] logits of any object."""
        return self._wide(self.network.model.objectness_head(features)[..., 0])

    def _directions(self, features: Tensor, logits: Tensor, text: dict[str, Tensor]) -> Tensor:
        """[N, R, 4] log-probabilities of `DIRECTIONS` for the two things of each relation."""
        subject, _, other = text["relation"].unbind(-1)
        boxes = self._wide(self.network.boxes(features))
        middle = centre(logits, boxes[:, None, :, :2])
        start, end = (middle.gather(1, of.unsqueeze(-1).expand(-1, -1, 2)) for of in (subject, other))
        return log_direction(start, end, self.config.softness)

    def _wide(self, values: Tensor) -> Tensor:
        return values.to(torch.promote_types(self.dtype, torch.float32))

    def _parse(self, prompt: str) -> ParsedPrompt:
        return self.parser.parse(prompt) if self.parser else ParsedPrompt(prompt, (Phrase(prompt, None),))

    def _note(self, parts: ParsedPrompt) -> str:
        """Note on the relations that are not judged."""
        other = sorted({r.name for r in parts.relations} - set(DIRECTIONS))
        if other and self.config.relation:
            return f"relations that are not judged: {', '.join(other)} (known: {', '.join(DIRECTIONS)})"
        return ""
