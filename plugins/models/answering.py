"""Models that answer questions about an image: how probable an answer is, differentiable in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, BlipForQuestionAnswering

from refcore.errors import CheckpointError, article
from refcore_plugins.models.preprocess import Normalise, processor_size
from refcore_plugins.models.transformers_folder import TransformersFolder

BLIP = "BlipForQuestionAnswering"


class Answering(Protocol):
    """A question-answering model and the one answer whose probability is asked for."""

    input_size: tuple[int, int]
    tokenizer: Any
    context: int
    """Tokens that a question may have, those around it included."""

    def length(self, question: str) -> int:
        """Tokens of a question, those around it included."""

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """P questions as the model takes them, padded alike: tensors [P, L]."""

    def log_probability(self, views: Tensor, text: dict[str, Tensor]) -> Tensor:
        """[N] logarithm of the answer's probability, from views [N, 3, H, W] in [0, 1] and N questions' tokens.

        float32 or wider, at most 0; the mean over the answer's tokens, each given those before it.
        """


class BlipAnswering:
    """BLIP (arXiv 2201.12086): an encoder reads image and question, a decoder answers."""

    def __init__(
        self, folder: TransformersFolder, answer: str | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        model = folder.load_model(BlipForQuestionAnswering, dtype)
        self.tokenizer: Any = folder.load_tokenizer(padding_side="right")
        self.normalise = Normalise.of_processor(folder.load_image_processor(), device)
        self.model: Any = model.to(device)
        self.dtype = dtype
        self.input_size = (int(model.config.vision_config.image_size),) * 2
        self.context = int(model.config.text_config.max_position_embeddings)
        self.answer = _answer_ids(self.tokenizer, answer or "yes", folder).to(device)
        start = torch.tensor([model.decoder_start_token_id], device=device)
        self.written = torch.cat([start, self.answer[:-1]])
        """What the decoder is given: the beginning, and the answer but for its last token."""

    def length(self, question: str) -> int:
        """See `Answering`."""
        return len(self.tokenizer(question, verbose=False).input_ids)

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """See `Answering`."""
        encoded = self.tokenizer(
            list(questions), padding=True, truncation=True, max_length=self.context, return_tensors="pt"
        )
        return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}

    def log_probability(self, views: Tensor, text: dict[str, Tensor]) -> Tensor:
        """See `Answering`."""
        mask = text["attention_mask"]
        image = self.model.vision_model(pixel_values=self.normalise(views).to(self.dtype)).last_hidden_state
        question = self.model.text_encoder(
            input_ids=text["input_ids"], attention_mask=mask, encoder_hidden_states=image
        ).last_hidden_state
        # The decoder of transformers looks at a question's padding too (its cross-attention never gets the mask), so
        # that questions are answered together with those of their own length.
        lengths = mask.sum(1)
        found = torch.zeros(len(views), dtype=torch.promote_types(question.dtype, torch.float32), device=views.device)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            logits = self.model.text_decoder(
                input_ids=self.written.expand(len(rows), -1),
                encoder_hidden_states=question[rows, :length],
                use_cache=False,
            ).logits
            found = found.index_copy(0, rows, _mean_log_probability(logits, self.answer).to(found.dtype))
        return found


class ChatAnswering:
    """A language model that is shown the image among the words, of one fixed size: LLaVA 1.5, PaliGemma and their like.

    Whether its processor does no more than resize and normalise is tried out on loading, with a picture of noise.

    Raises:
        CheckpointError: the checkpoint is of another kind, or its processor makes tiles, patches or several sizes.
    """

    def __init__(
        self, folder: TransformersFolder, answer: str | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        model = folder.load_model(AutoModelForImageTextToText, dtype)
        self._text_config = model.config.get_text_config()
        if getattr(model.config, "is_encoder_decoder", False) or getattr(
            self._text_config, "is_encoder_decoder", False
        ):
            raise CheckpointError(
                f'{folder.plugin}: model "{folder.model}" is {article(folder.kind)}, an encoder and a decoder, '
                f"which is not supported; {folder.expected}"
            )
        self.processor: Any = folder.load_processor()
        self.tokenizer: Any = self.processor.tokenizer
        self.tokenizer.padding_side, self.tokenizer.truncation_side = "left", "right"
        self.input_size = processor_size(self.processor.image_processor)
        self.normalise = Normalise.of_processor(self.processor.image_processor, device)
        self._try_processor(folder, device)
        self.model: Any = model.to(device)
        self.dtype, self.device = dtype, device
        self.answer = _answer_ids(self.tokenizer, answer or "Yes", folder).to(device)
        self.context = int(self._text_config.max_position_embeddings) - len(self.answer)

    def length(self, question: str) -> int:
        """See `Answering`."""
        return int(self.tokens([question])["input_ids"].shape[1])

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """See `Answering`. Padded at the beginning, so that every question ends where the answer is written."""
        height, width = self.input_size
        blank = Image.new("RGB", (width, height))
        encoded = self.processor(
            images=[blank] * len(questions),
            text=[self._turn(question) for question in questions],
            padding=True,
            return_tensors="pt",
        )
        return {name: value for name, value in encoded.items() if name != "pixel_values"}

    def log_probability(self, views: Tensor, text: dict[str, Tensor]) -> Tensor:
        """See `Answering`."""
        n, steps = len(views), len(self.answer)
        written = self.answer[:-1].expand(n, -1)
        inputs = {
            name: torch.cat([value, written if name == "input_ids" else torch.ones_like(written)], 1)
            for name, value in text.items()
            if name in ("input_ids", "attention_mask")
        }
        inputs |= {
            name: torch.cat([value, value[:, -1:].expand(-1, steps - 1)], 1)
            for name, value in text.items()
            if name not in inputs
        }
        logits = self.model(
            **inputs, pixel_values=self.normalise(views).to(self.dtype), use_cache=False, logits_to_keep=steps
        ).logits
        return _mean_log_probability(logits[:, -steps:], self.answer)

    def _turn(self, question: str) -> str:
        """The question in the words that the model was tuned on, ready to be answered."""
        if not getattr(self.processor, "chat_template", None):
            return question
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return str(
            self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        )

    def _try_processor(self, folder: TransformersFolder, device: torch.device) -> None:
        """Raises unless the processor gives [1, 3, H, W] pixels that are those of `Normalise`."""
        levels = np.random.default_rng(0).integers(0, 256, (*self.input_size, 3), dtype=np.uint8)
        found = self.processor.image_processor(images=Image.fromarray(levels), return_tensors="pt")
        ours = self.normalise(torch.from_numpy(levels).permute(2, 0, 1)[None].to(device).float() / 255).cpu()
        given = found["pixel_values"]
        extra = sorted(set(found) - {"pixel_values"})
        if extra or given.shape != ours.shape or (given - ours).abs().max() > 1e-3:
            what = f"pixels {list(given.shape)}" + (f" with {', '.join(extra)}" if extra else "")
            raise CheckpointError(
                f'{folder.plugin}: the processor of model "{folder.model}" ({folder.kind}) makes {what} of an image, '
                f"where pixels {list(ours.shape)}, resized and normalised, were expected; tiles and patches of several "
                "sizes are not supported: use a model such as llava-hf/llava-1.5-7b-hf or Salesforce/blip-vqa-base"
            )


def _answer_ids(tokenizer: Any, answer: str, folder: TransformersFolder) -> Tensor:
    ids = tokenizer(answer, add_special_tokens=False).input_ids
    if not ids or ids == [tokenizer.unk_token_id]:
        raise CheckpointError(
            f'{folder.plugin}: the tokenizer of model "{folder.model}" has no token for the answer "{answer}"; '
            "set `answer` to a word that it has"
        )
    return torch.tensor(ids)


def _mean_log_probability(logits: Tensor, answer: Tensor) -> Tensor:
    """[N] from logits [N, K, V] of the answer's K tokens [K]."""
    logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return logs.gather(-1, answer.expand(len(logs), -1).unsqueeze(-1)).squeeze(-1).mean(1)
