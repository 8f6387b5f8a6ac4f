"""Language models with image tokens, for images of one fixed size: LLaVA 1.5, PaliGemma and similar models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from refcore.errors import CheckpointError, RefcoreError, article
from refcore_plugins.models.preprocess import Fit, Normalise, processor_size
from refcore_plugins.models.question_answering.answering import answer_tokens, wide
from refcore_plugins.models.question_answering.blip import BLIP
from refcore_plugins.models.transformers_folder import TransformersFolder

LLAVA = "LlavaForConditionalGeneration"
PALIGEMMA = "PaliGemmaForConditionalGeneration"


class ChatAnswering:
    """A language model with image tokens, for images of one fixed size: LLaVA 1.5, PaliGemma and similar models.

    Subclasses may take images otherwise: they override the four methods that know how.

    A finished image is fitted as the processor does, but for LLaVA padded to a square with the mean colour, as the
    authors' code and VQAScore's do (`expand2square`), where the converted checkpoints' processor crops.

    Loading checks on an image of noise that the processor only resizes and normalises.

    Raises:
        CheckpointError: the checkpoint is of another kind, or its processor makes tiles, patches or several sizes.
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
        model = folder.load_model(AutoModelForImageTextToText, dtype)
        self._text_config = model.config.get_text_config()
        if getattr(model.config, "is_encoder_decoder", False) or getattr(
            self._text_config, "is_encoder_decoder", False
        ):
            raise CheckpointError(
                f'{folder.plugin}: model "{folder.model}" is {article(folder.kind)}, an encoder-decoder, which is not '
                f"supported; {folder.expected}"
            )
        self.input_size: tuple[int, int]
        self.normalise: Normalise
        self.fit: Callable[[Tensor], Tensor]
        self.processor: Any = folder.load_processor()
        self.tokenizer: Any = self.processor.tokenizer
        self.tokenizer.padding_side, self.tokenizer.truncation_side = "left", "right"
        self._prepare(folder, size, device)
        self._answer_type = 1 if folder.kind == PALIGEMMA else None
        """Token type of the answer's tokens, as `generate` sets it; None: that of the question's last."""
        self.model: Any = model.to(device)
        self.dtype, self.device = dtype, device
        self.answers = answer_tokens(self.tokenizer, answer or "Yes", against, folder, device)
        self.context = int(self._text_config.max_position_embeddings) - max(map(len, self.answers))

    def length(self, question: str) -> int:
        """See `Answering`."""
        return int(self.tokens([question])["input_ids"].shape[1])

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """See `Answering`. Padded on the left, so that every question ends where the answer starts."""
        height, width = self.input_size
        blank = Image.new("RGB", (width, height))
        encoded = self.processor(
            images=[blank] * len(questions),
            text=[self._turn(question) for question in questions],
            padding=True,
            return_tensors="pt",
        )
        return {name: value for name, value in encoded.items() if name not in self._drop()}

    def logits(self, views: Tensor, text: dict[str, Tensor], rows: Tensor | None = None) -> list[Tensor]:
        """See `Answering`. Answers that begin alike, as those of one token do, take one pass."""
        passes: dict[tuple[int, ...], Tensor] = {}
        views = views if rows is None else views.index_select(0, rows)
        text = self._sized(views, text)
        for answer in self.answers:
            before = tuple(answer[:-1].tolist())
            if before not in passes:
                passes[before] = self._answered(views, text, answer)
        return [passes[tuple(answer[:-1].tolist())] for answer in self.answers]

    def _answered(self, views: Tensor, text: dict[str, Tensor], answer: Tensor) -> Tensor:
        """[N, K, V] logits of an answer's tokens [K]."""
        n, steps = len(views), len(answer)
        written = answer[:-1].expand(n, -1)
        inputs = {
            name: torch.cat([value, written if name == "input_ids" else torch.ones_like(written)], 1)
            for name, value in text.items()
            if name in ("input_ids", "attention_mask")
        }
        for name in text.keys() - inputs.keys():
            last = text[name][:, -1:].expand(-1, steps - 1)
            if name == "token_type_ids" and self._answer_type is not None:
                last = torch.full_like(last, self._answer_type)
            inputs[name] = torch.cat([text[name], last], 1)
        logits = self.model(**inputs, **self._images(views), use_cache=False, logits_to_keep=steps).logits
        return wide(logits[:, -steps:])

    def _prepare(self, folder: TransformersFolder, size: int | None, device: torch.device) -> None:
        """Sets `input_size`, `normalise` and `fit`, from the processor."""
        if size is not None:
            raise RefcoreError(
                f'{folder.plugin}: size {size} is for {BLIP} and Qwen-VL; model "{folder.model}" is '
                f"{article(folder.kind)}"
            )
        images = self.processor.image_processor
        self.input_size = processor_size(images)
        self.normalise = Normalise.of_processor(images, device)
        self._try_processor(folder, device)
        fit = Fit.of_processor(images, self.input_size)
        if folder.kind == LLAVA:
            red, green, blue = (int(255 * mean) / 255 for mean in images.image_mean)
            fit = replace(fit, mode="square", fill=(red, green, blue))
        self.fit = fit

    def _drop(self) -> tuple[str, ...]:
        """Outputs of the processor that are not of the text."""
        return ("pixel_values", "labels")

    def _images(self, views: Tensor) -> dict[str, Tensor]:
        """Model inputs of views [N, 3, H, W] in [0, 1]."""
        return {"pixel_values": self.normalise(views).to(self.dtype)}

    def _sized(self, views: Tensor, text: dict[str, Tensor]) -> dict[str, Tensor]:
        """The text's model inputs, for views of this size."""
        return text

    def _turn(self, question: str) -> str:
        """The question in the model's chat template, up to the answer."""
        if not getattr(self.processor, "chat_template", None):
            return f"{getattr(self.processor, 'image_token', None) or ''}{question}"
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return str(
            self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        )

    def _try_processor(self, folder: TransformersFolder, device: torch.device) -> None:
        """Raises unless the processor's pixels are [1, 3, H, W] and equal those of `Normalise`."""
        levels = np.random.default_rng(0).integers(0, 256, (*self.input_size, 3), dtype=np.uint8)
        output = self.processor.image_processor(images=Image.fromarray(levels), return_tensors="pt")
        ours = self.normalise(torch.from_numpy(levels).permute(2, 0, 1)[None].to(device).float() / 255).cpu()
        given = output["pixel_values"]
        extra = sorted(set(output) - {"pixel_values"})
        if extra or given.shape != ours.shape or (given - ours).abs().max() > 1e-3:
            what = f"pixels {list(given.shape)}" + (f" with {', '.join(extra)}" if extra else "")
            raise CheckpointError(
                f'{folder.plugin}: the processor of model "{folder.model}" ({folder.kind}) makes {what} of an image; '
                f"expected pixels {list(ours.shape)}, resized and normalised; tiles and patches of several "
                "sizes are not supported: use a model such as llava-hf/llava-1.5-7b-hf, Qwen/Qwen2-VL-2B-Instruct or "
                "Salesforce/blip-vqa-base"
            )
