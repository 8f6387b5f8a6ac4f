"""The `blip2` referee: matching, contrast and captioning losses of BLIP-2's first stage, from one vision pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from os.path import expanduser
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
from refcore_plugins.models.caption_text import WHAT_BLIP_CAPTION_DOES, WORDS, Cleaning, clean
from refcore_plugins.models.feature_similarity import unit
from refcore_plugins.models.log_complement import log_complement, log_complement_of_product
from refcore_plugins.models.preprocess import Fit, Normalise
from refcore_plugins.models.transformers_folder import TransformersFolder
from refcore_plugins.models.truncated_text import truncated_text
from refcore_plugins.referees.blip2.itg_head import FILE_NAME, REMEDY, ItgHead, extract_itg_head

CONTEXT_LENGTH = 32
"""Text tokens in the training of BLIP-2's first stage, first and last included (LAVIS: max_txt_len)."""
ARCHITECTURE = "Blip2ForImageTextRetrieval"
PARTS = {"Salesforce/blip2-itm-vit-g": {"blip2": 1_172_032_258}}
"""Hub id -> its parameters, counted on the architecture: EVA ViT-g, and the Q-Former with its heads."""
HEAD = 24_064_315
"""Parameters of the captioning head of that model."""
EXPECTED = f"expected a {ARCHITECTURE} of transformers, such as Salesforce/blip2-itm-vit-g or playground:blip2"


class Blip2(Referee):
    """The first stage of BLIP-2 (arXiv 2301.12597, section 3.2): image transformer and Q-Former, with three losses.

    Each loss is bounded below by 0 and has a negated form for prompts that are not wanted:

    | loss | wanted | not wanted |
    | --- | --- | --- |
    | ITM, matching | -log p | -log(1 - p) |
    | ITC, contrast | 1 - cos | cos, where positive |
    | ITG, captioning | cross-entropy | -log(1 - q), q = exp(-cross-entropy) |

    p is the probability of a match, from the two-way head's logits averaged over the query tokens. cos is the largest
    cosine of a query token and the text. The cross-entropy is the mean over the prompt's tokens, each predicted from
    the image and the tokens before it, and q is the geometric mean of those tokens' probabilities. The negated ITG is
    thus an unlikelihood (arXiv 1908.04319); the cross-entropy itself has no upper bound and could not be maximised.

    The logarithms are computed from the logits, so that their gradients never vanish. The reference code adds 1e-8 to
    the probabilities (`eps`), which scales the gradient by p / (p + 1e-8): at a margin of 25 logits, .0014.

    The vision tower runs in the dtype of `load`; Q-Former and heads run in float32 (float64 with it).
    """

    class Config(PluginConfig):
        checkpoint_fields = ("model", "itg_head")
        local_fields = MappingProxyType({"itg_head": REMEDY})
        model: str = Field(
            "playground:blip2",
            description=f"A {ARCHITECTURE} of transformers: hub id, folder or playground:blip2.",
        )
        itm: float = Field(1.0, ge=0.0, description="Weight of the matching loss.")
        itg: float = Field(1.0, ge=0.0, description="Weight of the captioning loss; needs a captioning head.")
        itc: float = Field(0.0, ge=0.0, description="Weight of the contrastive loss.")
        itg_head: str | None = Field(
            None, description=f"File of the captioning head; null: {FILE_NAME} beside the checkpoint."
        )
        label_smoothing: float = Field(
            0.1, ge=0.0, lt=1.0, description="Label smoothing of the captioning loss of a wanted prompt (LAVIS: 0.1)."
        )
        text: Cleaning = Field(
            "blip_caption",
            description=f"Cleaning of prompts. {WHAT_BLIP_CAPTION_DOES}, at most {WORDS} words. as_given: none.",
        )
        eps: float = Field(
            0.0,
            ge=0.0,
            lt=1.0,
            description="Added inside the logarithms of probabilities (reference code: 1e-8); 0: from logits.",
        )

        @model_validator(mode="after")
        def _some_loss(self) -> Any:
            if self.itm == self.itg == self.itc == 0:
                raise ValueError("itm, itg and itc are all 0, so nothing would be judged; give one of them a weight")
            return self

    name = "blip2"
    conversions = MappingProxyType({"itg": extract_itg_head})
    score_unit: ClassVar[str] = "probability"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        folder = TransformersFolder(self.name, self.config.model, EXPECTED)
        folder.require([ARCHITECTURE])
        # Eager attention is the fastest on the CPU (as in attention.py), a fused kernel elsewhere.
        # Loaded in float32 first: in half precision, transformers would round the parts that run in float32.
        model = folder.load_model(Blip2ForImageTextRetrieval, attention="eager" if device.type == "cpu" else "sdpa")
        self.tokenizer: Any = folder.load_tokenizer(padding_side="right")
        processor = folder.load_image_processor()
        text_dtype = torch.promote_types(dtype, torch.float32)
        model.to(device, text_dtype).vision_model.to(dtype)
        self.model: Any = model
        self.device, self.dtype = device, dtype
        self.input_size = (model.config.vision_config.image_size,) * 2
        self.normalise = Normalise.of_processor(processor, device)
        self.fit = Fit.of_processor(processor, self.input_size)
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
        folder = Path(expanduser(resolve(self.config.model)))
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
        """Tokens, `ids` and `mask` [P, L], and unit text features of the contrastive loss, `text` [P, D]."""
        cleaned = clean(prompts, self.config.text)
        encoded = self.tokenizer(
            list(cleaned.read), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        ).to(self.device)
        ids, mask = encoded.input_ids, encoded.attention_mask.bool()
        hidden = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=ids), query_length=0, attention_mask=mask
        ).last_hidden_state
        text = unit(self.model.text_projection(hidden[:, 0]))
        truncated = cleaned.truncated([truncated_text(self.tokenizer, read, self.context) for read in cleaned.read])
        return Conditioning(tuple(prompts), {"ids": ids, "mask": mask, "text": text}, truncated, cleaned.notes)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`: the weighted sum of `losses`."""
        losses = self.losses(views, conditioning, prompt_index, wanted)
        return torch.stack([getattr(self.config, name) * loss for name, loss in losses.items()]).sum(0)

    def losses(
        self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True
    ) -> dict[str, Tensor]:
        """Losses [N] before weighting, by name (`itm`, `itg`, `itc`); only those with a weight. See `judge`."""
        weights, text = self.config, conditioning.select(prompt_index)
        losses: dict[str, Tensor] = {}
        match, queries, caption = self._fuse(views, text, bool(weights.itm), bool(weights.itc), bool(weights.itg))
        if match is not None:
            losses["itm"] = self._match_loss(match, wanted)
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

        The sequence holds up to two copies of the query tokens, separated by the attention mask: queries that attend to
        the text and it to them (matching), and queries that attend only to each other (contrast, and captioning, whose
        text attends to them and to its own past). So the image's keys and values are computed once.

        Returns:
            Hidden states of the matching queries [N, Q, W], of the lone queries [N, Q, W], and of the captioning text
            [N, L, W]; None for each that the arguments leave out.
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
        return self._match_logits(queries).softmax(-1)

    def _match_logits(self, queries: Tensor | None) -> Tensor:
        """[N, 2] logits of no match and of a match, float32 or wider."""
        logits: Tensor = self.model.itm_head(queries).mean(1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _match_loss(self, queries: Tensor, wanted: bool) -> Tensor:
        """[N] from the hidden states [N, Q, W]."""
        logits = self._match_logits(queries)
        if self.config.eps:
            return -torch.log(logits.softmax(-1)[:, int(wanted)] + self.config.eps)
        return -logits.log_softmax(-1)[:, int(wanted)]

    def _caption_ids(self, ids: Tensor) -> Tensor:
        """Token ids for the captioning loss: the first token marks the start of a caption."""
        return torch.cat([torch.full_like(ids[:, :1], self.tokenizer.bos_token_id), ids[:, 1:]], 1)

    def _caption_loss(self, hidden: Tensor, text: dict[str, Tensor], wanted: bool) -> Tensor:
        """[N] from the hidden states [N, L, W]: each position predicts the next token of the prompt."""
        assert self.head is not None
        target, mask = text["ids"][:, 1:], text["mask"][:, 1:]
        smoothing = self.config.label_smoothing if wanted else 0.0
        logits = self.head(hidden[:, :-1])
        each = F.cross_entropy(logits.transpose(1, 2), target, reduction="none", label_smoothing=smoothing)
        loss = (each * mask).sum(1) / mask.sum(1)
        if wanted:
            return loss
        if self.config.eps:
            return -torch.log(-torch.expm1(-loss) + self.config.eps)
        weight = mask.to(each.dtype) / mask.sum(1, keepdim=True)
        return -log_complement_of_product(-each, log_complement(logits, target), weight)

    def _load_head(self, source: str) -> ItgHead:
        """The captioning head named in the config, or the one beside the checkpoint."""
        if self.config.itg_head is not None:
            path = Path(expanduser(self.config.itg_head))
        elif Path(source).is_dir():
            path = Path(source) / FILE_NAME
        else:
            found = cached_file(source, FILE_NAME, _raise_exceptions_for_missing_entries=False)
            path = Path(found or FILE_NAME)
        config = self.model.config.qformer_config
        try:
            head = ItgHead.from_file(path, config.hidden_size, config.vocab_size, config.layer_norm_eps)
        except CheckpointError as error:
            raise CheckpointError(
                f'blip2: the captioning loss (itg: {self.config.itg:g}) of model "{self.config.model}" needs a head, '
                f"but {error}; or set itg: 0"
            ) from error
        if self.tokenizer.bos_token_id is None:
            raise CheckpointError(
                f"blip2: the captioning loss (itg: {self.config.itg:g}) needs a beginning-of-caption token ([DEC] in "
                f'BLIP-2), which the tokenizer of model "{self.config.model}" lacks; set itg: 0'
            )
        return head
