"""The `blip2` referee: matching, contrast and captioning losses of BLIP-2's first stage, from one vision pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval
from transformers.utils import cached_file

from refcore.checkpoints import Download, refuse_absent, resolve
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore_plugins.models.itg import FILE_NAME, REMEDY, ItgHead, extract_itg_head
from refcore_plugins.models.preprocess import Normalise
from refcore_plugins.models.similarity import unit
from refcore_plugins.models.text import text_beyond
from refcore_plugins.models.transformers_folder import TransformersFolder

CONTEXT_LENGTH = 32
"""Text tokens that BLIP-2's first stage was trained with, first and last included (LAVIS: max_txt_len)."""
EPS = 1e-8
"""Added inside the logarithm of a probability, as in the reference code."""
ARCHITECTURE = "Blip2ForImageTextRetrieval"
PARTS = {"Salesforce/blip2-itm-vit-g": {"blip2": 1_172_032_258}}
"""Hub id -> its parameters, counted on the architecture: EVA ViT-g, and the Q-Former with its heads."""
HEAD = 24_064_315
"""Parameters of the captioning head of that model."""
EXPECTED = f"expected a {ARCHITECTURE} of transformers, such as Salesforce/blip2-itm-vit-g or playground:blip2"


class Blip2(Referee):
    """The first stage of BLIP-2 (arXiv 2301.12597, section 3.2): image transformer and Q-Former, with three losses.

    Each is bounded below by 0, and each has a negated question for what must not be seen:

    | loss | wanted | not wanted |
    | --- | --- | --- |
    | ITM, matching | -log(p + 1e-8) | -log(1 - p + 1e-8) |
    | ITC, contrast | 1 - cos | cos, where positive |
    | ITG, captioning | cross-entropy | -log(1 - q + 1e-8), q = exp(-cross-entropy) |

    p is the probability of a match, from the two-way head's logits averaged over the query tokens; cos the largest
    cosine of a query token and the text; the cross-entropy the mean over the prompt's tokens, each predicted from the
    image and the tokens before it. q is the geometric mean of those tokens' probabilities, so that the negated ITG is
    an unlikelihood (arXiv 1908.04319): the cross-entropy itself has no upper bound and could not be maximised.

    The vision tower runs in the dtype of `load`; Q-Former and heads run in float32 (float64 with it).
    """

    class Config(PluginConfig):
        checkpoint_fields = ("model", "itg_head")
        local_fields = MappingProxyType({"itg_head": REMEDY})
        model: str = Field(
            "playground:blip2",
            description=f"a {ARCHITECTURE} of transformers: hub id, folder or playground:blip2",
        )
        itm: float = Field(1.0, ge=0.0, description="weight of the matching loss")
        itg: float = Field(1.0, ge=0.0, description="weight of the captioning loss; needs a captioning head")
        itc: float = Field(0.0, ge=0.0, description="weight of the contrastive loss")
        itg_head: str | None = Field(
            None, description=f"file of the captioning head; null: {FILE_NAME} beside the checkpoint"
        )
        label_smoothing: float = Field(
            0.1, ge=0.0, lt=1.0, description="of the captioning loss of a wanted prompt (LAVIS: 0.1)"
        )

        @model_validator(mode="after")
        def _some_loss(self) -> Any:
            if self.itm == self.itg == self.itc == 0:
                raise ValueError("itm, itg and itc are all 0: nothing would be judged; give one of them a weight")
            return self

    name = "blip2"
    conversions = MappingProxyType({"itg": extract_itg_head})
    score_unit: ClassVar[str] = "probability"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        folder = TransformersFolder(self.name, self.config.model, EXPECTED)
        folder.require([ARCHITECTURE])
        # Attention written out is the fastest on the CPU (as in attention.py), a fused kernel elsewhere.
        # Loaded in float32 first: in half precision, transformers would round what is to run in float32.
        model = folder.load_model(Blip2ForImageTextRetrieval, attention="eager" if device.type == "cpu" else "sdpa")
        self.tokenizer: Any = folder.load_tokenizer(padding_side="right")
        processor = folder.load_image_processor()
        text_dtype = torch.promote_types(dtype, torch.float32)
        model.to(device, text_dtype).vision_model.to(dtype)
        self.model: Any = model
        self.device, self.dtype = device, dtype
        self.input_size = (model.config.vision_config.image_size,) * 2
        self.normalise = Normalise.of_processor(processor, device)
        self.head = None
        if self.config.itg:
            self.head = self._load_head(folder.source).to(device, text_dtype).eval().requires_grad_(False)
        self.context = min(CONTEXT_LENGTH, model.config.qformer_config.max_position_embeddings)

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`; with a weight on captioning, a folder needs its head, and a hub id a file of it."""
        if not self.config.itg:
            refuse_absent(self.config.model, "blip2: model")
            return
        super().check(prompts)
        folder = Path(resolve(self.config.model)).expanduser()
        if self.config.itg_head is None and folder.is_dir() and not (folder / FILE_NAME).is_file():
            raise CheckpointError(f"blip2: there is no captioning head at {folder / FILE_NAME}; {REMEDY}")

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`."""
        found = {model: Download(parts=PARTS.get(model, {})) for model in super().downloads()}
        if self.config.itg and self.config.itg_head and self.config.model in PARTS:
            found[self.config.itg_head] = Download(parts={"head": HEAD})
        return found

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Tokens `ids` and `mask` [P, L], and the unit text features of the contrast, `text` [P, D]."""
        encoded = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        ).to(self.device)
        ids, mask = encoded.input_ids, encoded.attention_mask.bool()
        hidden = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids), query_length=0, attention_mask=mask
        ).last_hidden_state
        text = unit(self.model.text_projection(hidden[:, 0]))
        truncated = tuple(text_beyond(self.tokenizer, prompt, self.context) for prompt in prompts)
        return Conditioning(tuple(prompts), {"ids": ids, "mask": mask, "text": text}, truncated)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`: the weighted sum of `losses`."""
        losses = self.losses(views, conditioning, prompt_index, wanted)
        return torch.stack([getattr(self.config, name) * loss for name, loss in losses.items()]).sum(0)

    def losses(
        self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True
    ) -> dict[str, Tensor]:
        """The losses that have a weight, by name (`itm`, `itg`, `itc`), each [N], not yet weighted; see `judge`."""
        weights, text = self.config, conditioning.select(prompt_index)
        losses: dict[str, Tensor] = {}
        match, queries, caption = self._fuse(views, text, bool(weights.itm), bool(weights.itc), bool(weights.itg))
        if match is not None:
            p = self._match_probability(match)
            losses["itm"] = -torch.log((p[:, 1] if wanted else p[:, 0]) + EPS)
        if caption is not None:
            losses["itg"] = self._caption_loss(caption, text, wanted)
        if weights.itc:
            cosine = (unit(self.model.vision_projection(queries)) @ text["text"].unsqueeze(-1)).squeeze(-1).amax(1)
            losses["itc"] = 1 - cosine if wanted else cosine.clamp(min=0)
        return losses

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability that each image matches its prompt, by the matching head, in [0, 1]."""
        match, _, _ = self._fuse(images, conditioning.tensors, match=True, contrast=False, caption=False)
        return self._match_probability(match)[:, 1]

    def _fuse(
        self, views: Tensor, text: dict[str, Tensor], match: bool, contrast: bool, caption: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The Q-Former's last hidden states, from one pass of the vision tower and one of the Q-Former.

        Up to two sets of the same query tokens stand in one sequence, and a mask keeps them apart: queries that see
        the text and are seen by it (matching), and queries that see only themselves (contrast, and captioning, whose
        text sees them and its own past). So the cross-attention's keys and values of the image are computed once.

        Returns:
            Hidden states of the matching queries [N, Q, W], of the lone queries [N, Q, W], and of the captioning text
            [N, L, W], None for what was not asked for.
        """
        model, n, q = self.model, len(views), self.model.config.num_query_tokens
        ids, mask = text["ids"], text["mask"]
        length = ids.shape[1]
        lone = contrast or caption
        sizes = [q * match, q * lone, length * match, length * caption]
        ends = list(accumulate(sizes))
        both, alone, read, written = (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))

        seen = torch.zeros(n, 1, ends[-1], ends[-1], dtype=torch.bool, device=views.device)
        seen[..., both, both] = seen[..., read, both] = True
        seen[..., alone, alone] = seen[..., written, alone] = True
        parts = [model.query_tokens.expand(n, -1, -1)] * (match + lone)
        if match:
            words = mask[:, None, None]
            seen[..., both, read] = seen[..., read, read] = words
            parts.append(model.embeddings(input_ids=ids))
        if caption:
            seen[..., written, written] = torch.ones_like(seen[0, 0, :length, :length]).tril()
            parts.append(model.embeddings(input_ids=self._caption_ids(ids)))

        embeds = torch.cat(parts, 1)
        unseen = torch.zeros(seen.shape, dtype=embeds.dtype, device=seen.device)
        unseen.masked_fill_(~seen, torch.finfo(embeds.dtype).min)
        hidden = model.qformer(
            query_embeds=embeds,
            query_length=q * (match + lone),
            attention_mask=unseen,
            encoder_hidden_states=model.vision_model(self.normalise(views).to(self.dtype)).last_hidden_state,
        ).last_hidden_state
        return (
            hidden[:, both] if match else None,
            hidden[:, alone] if lone else None,
            hidden[:, written] if caption else None,
        )

    def _match_probability(self, queries: Tensor | None) -> Tensor:
        """[N, 2]: probabilities of no match and of a match."""
        logits = self.model.itm_head(queries).mean(1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)

    def _caption_ids(self, ids: Tensor) -> Tensor:
        """The prompt as the captioning loss has it: the first token says that text is to be written."""
        return torch.cat([torch.full_like(ids[:, :1], self.tokenizer.bos_token_id), ids[:, 1:]], 1)

    def _caption_loss(self, hidden: Tensor, text: dict[str, Tensor], wanted: bool) -> Tensor:
        """[N] from the hidden states [N, L, W]: each position predicts the next token of the prompt."""
        assert self.head is not None
        target, mask = text["ids"][:, 1:], text["mask"][:, 1:]
        smoothing = self.config.label_smoothing if wanted else 0.0
        loss = F.cross_entropy(
            self.head(hidden[:, :-1]).transpose(1, 2), target, reduction="none", label_smoothing=smoothing
        )
        loss = (loss * mask).sum(1) / mask.sum(1)
        return loss if wanted else -torch.log(-torch.expm1(-loss) + EPS)

    def _load_head(self, source: str) -> ItgHead:
        """The captioning head that the config names, or the one beside the checkpoint."""
        wanted = f'blip2: model "{self.config.model}" is asked for its captioning loss (itg: {self.config.itg:g})'
        if self.config.itg_head is not None:
            path = Path(self.config.itg_head).expanduser()
        elif Path(source).is_dir():
            path = Path(source) / FILE_NAME
        else:
            found = cached_file(source, FILE_NAME, _raise_exceptions_for_missing_entries=False)
            path = Path(found or FILE_NAME)
        config = self.model.config.qformer_config
        try:
            head = ItgHead.from_file(path, config.hidden_size, config.vocab_size, config.layer_norm_eps)
        except CheckpointError as error:
            raise CheckpointError(f"{wanted}, but {error}; or set itg: 0") from error
        if self.tokenizer.bos_token_id is None:
            raise CheckpointError(f"{wanted}, but its tokenizer has no beginning-of-caption token ([DEC] in BLIP-2)")
        return head
