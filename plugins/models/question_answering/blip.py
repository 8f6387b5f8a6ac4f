"""BLIP-VQA: an encoder for image and question, and a decoder for the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering

from refcore.errors import RefcoreError
from refcore_plugins.models.preprocess import Fit, Normalise
from refcore_plugins.models.question_answering.answering import answer_tokens, wide
from refcore_plugins.models.transformers_folder import TransformersFolder

BLIP = "BlipForQuestionAnswering"


class BlipAnswering:
    """BLIP (arXiv 2201.12086): an encoder for image and question, and a decoder for the answer.

    The question begins with [ENC], the token of the encoder that reads the image, as the authors' code writes it
    (`question.input_ids[:, 0] = tokenizer.enc_token_id`); transformers leaves BERT's [CLS] there.

    Args:
        size: Side of the input in pixels, a multiple of the patch's; None: the checkpoint's own. The positions of the
            patches are interpolated.
    """

    def __init__(
        self,
        folder: TransformersFolder,
        answer: str | None,
        against: str | None,
        size: int | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        model = folder.load_model(BlipForQuestionAnswering, dtype)
        self.tokenizer: Any = folder.load_tokenizer(padding_side="right")
        processor = folder.load_image_processor()
        self.normalise = Normalise.of_processor(processor, device)
        self.model: Any = model.to(device)
        self.dtype = dtype
        vision = model.config.vision_config
        if size is not None and size % vision.patch_size:
            raise RefcoreError(
                f"{folder.plugin}: size {size} is no multiple of the model's patches of {vision.patch_size} pixels"
            )
        self.input_size = (int(size or vision.image_size),) * 2
        self.interpolates = size is not None and size != vision.image_size
        self.fit: Callable[[Tensor], Tensor] = Fit.of_processor(processor, self.input_size)
        self.context = int(model.config.text_config.max_position_embeddings)
        self.encoder_token = _encoder_token(self.tokenizer, model.config.text_config)
        """Id of [ENC]; None where the vocabulary has none."""
        self.answers = answer_tokens(self.tokenizer, answer or "yes", against, folder, device)
        self.start = torch.tensor([model.decoder_start_token_id], device=device)

    def length(self, question: str) -> int:
        """See `Answering`."""
        return len(self.tokenizer(question, verbose=False).input_ids)

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """See `Answering`."""
        encoded = self.tokenizer(
            list(questions), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        )
        ids = encoded.input_ids
        if self.encoder_token is not None:
            ids = torch.cat([torch.full_like(ids[:, :1], self.encoder_token), ids[:, 1:]], 1)
        return {"input_ids": ids, "attention_mask": encoded.attention_mask}

    def groups(self, mask: Tensor) -> list[tuple[int, Tensor]]:
        """Lengths of questions, and the rows of each length, by their mask [N, L].

        The decoder in transformers attends to a question's padding too (its cross-attention never gets the mask), so
        questions are answered in batches of the same length.
        """
        lengths = mask.sum(1)
        return [(n, (lengths == n).nonzero().squeeze(1)) for n in torch.unique(lengths).tolist()]

    def logits(self, views: Tensor, text: dict[str, Tensor], rows: Tensor | None = None) -> list[Tensor]:
        """See `Answering`. The image tower sees each view once, however many questions are about it."""
        mask = text["attention_mask"]
        pixels = self.normalise(views).to(self.dtype)
        image = self.model.vision_model(
            pixel_values=pixels, interpolate_pos_encoding=self.interpolates
        ).last_hidden_state
        image = image if rows is None else image.index_select(0, rows)
        question = self.model.text_encoder(
            input_ids=text["input_ids"], attention_mask=mask, encoder_hidden_states=image
        ).last_hidden_state
        groups = self.groups(mask)
        places = torch.cat([alike for _, alike in groups]).argsort()
        found = []
        for answer in self.answers:
            written = torch.cat([self.start, answer[:-1]])  # the start token, and the answer without its last token
            parts = [
                self.model.text_decoder(
                    input_ids=written.expand(len(alike), -1),
                    encoder_hidden_states=question[alike, :length],
                    use_cache=False,
                ).logits
                for length, alike in groups
            ]
            found.append(wide(torch.cat(parts).index_select(0, places)))
        return found


def _encoder_token(tokenizer: Any, config: Any) -> int | None:
    """Id of BLIP's [ENC]: in the vocabulary, or beside [DEC], which the public checkpoints' tokenizer lacks, too."""
    if "[ENC]" in tokenizer.get_vocab():
        return int(tokenizer.convert_tokens_to_ids("[ENC]"))
    after = int(config.bos_token_id) + 1  # [DEC] and [ENC] were added to BERT's vocabulary in this order
    return after if len(tokenizer) <= after < config.vocab_size else None
