"""Visual question answering: the probability of an answer, differentiable in the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, BlipForQuestionAnswering

from refcore.errors import CheckpointError, RefcoreError, article
from refcore_plugins.models.log_complement import log_complement, log_complement_of_product
from refcore_plugins.models.preprocess import Fit, Normalise, processor_size
from refcore_plugins.models.transformers_folder import TransformersFolder

BLIP = "BlipForQuestionAnswering"
LLAVA = "LlavaForConditionalGeneration"
PALIGEMMA = "PaliGemmaForConditionalGeneration"


class Answering(Protocol):
    """A question-answering model with a fixed answer, and maybe another that it is compared with."""

    input_size: tuple[int, int]
    fit: Callable[[Tensor], Tensor]
    """See `Referee.fit`."""
    tokenizer: Any
    context: int
    """Maximum number of tokens of a question, with the tokens around it."""

    def length(self, question: str) -> int:
        """Number of tokens of a question, with the tokens around it."""

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """Model inputs of P questions, padded to the same length: tensors [P, L]."""

    answers: list[Tensor]
    """Tokens [K] of the answer, and of the one that it is compared with, if any."""

    def logits(self, views: Tensor, text: dict[str, Tensor]) -> list[Tensor]:
        """[N, K, V] logits of the tokens of each answer, each given those before it, float32 or wider.

        For views [N, 3, H, W] in [0, 1] and the tokens of N questions.
        """


def log_probabilities(answering: Answering, views: Tensor, text: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """[N] log p and [N] log(1 - p) of the answer.

    p is the geometric mean of the probabilities of the answer's tokens, each given those before it; with a second
    answer, p / (p + that of the second).
    """
    logits = answering.logits(views, text)
    if len(logits) == 2:
        margin = torch.stack(
            [_token_log_probabilities(*pair).mean(1) for pair in zip(logits, answering.answers, strict=True)]
        )
        return F.logsigmoid(margin[0] - margin[1]), F.logsigmoid(margin[1] - margin[0])
    (own,), (answer,) = logits, answering.answers
    each = _token_log_probabilities(own, answer)
    missed = log_complement(own, answer.expand(len(own), -1))
    return each.mean(1), log_complement_of_product(each, missed, 1 / len(answer))


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
            raise RefcoreError(f"vqa: size {size} is no multiple of the model's patches of {vision.patch_size} pixels")
        self.input_size = (int(size or vision.image_size),) * 2
        self.interpolates = size is not None and size != vision.image_size
        self.fit: Callable[[Tensor], Tensor] = Fit.of_processor(processor, self.input_size)
        self.context = int(model.config.text_config.max_position_embeddings)
        self.encoder_token = _encoder_token(self.tokenizer, model.config.text_config)
        """Id of [ENC]; None where the vocabulary has none."""
        self.answers = _answers(self.tokenizer, answer or "yes", against, folder, device)
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

    def logits(self, views: Tensor, text: dict[str, Tensor]) -> list[Tensor]:
        """See `Answering`."""
        mask = text["attention_mask"]
        pixels = self.normalise(views).to(self.dtype)
        image = self.model.vision_model(
            pixel_values=pixels, interpolate_pos_encoding=self.interpolates
        ).last_hidden_state
        question = self.model.text_encoder(
            input_ids=text["input_ids"], attention_mask=mask, encoder_hidden_states=image
        ).last_hidden_state
        groups = self.groups(mask)
        places = torch.cat([rows for _, rows in groups]).argsort()
        found = []
        for answer in self.answers:
            written = torch.cat([self.start, answer[:-1]])  # the start token, and the answer without its last token
            parts = [
                self.model.text_decoder(
                    input_ids=written.expand(len(rows), -1),
                    encoder_hidden_states=question[rows, :length],
                    use_cache=False,
                ).logits
                for length, rows in groups
            ]
            found.append(_wide(torch.cat(parts).index_select(0, places)))
        return found


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
        self.answers = _answers(self.tokenizer, answer or "Yes", against, folder, device)
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

    def logits(self, views: Tensor, text: dict[str, Tensor]) -> list[Tensor]:
        """See `Answering`. Answers that begin alike, as those of one token do, take one pass."""
        passes: dict[tuple[int, ...], Tensor] = {}
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
        return _wide(logits[:, -steps:])

    def _prepare(self, folder: TransformersFolder, size: int | None, device: torch.device) -> None:
        """Sets `input_size`, `normalise` and `fit`, from the processor."""
        if size is not None:
            raise RefcoreError(
                f'vqa: size {size} is for {BLIP} and Qwen-VL; model "{folder.model}" is {article(folder.kind)}'
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


def _answers(
    tokenizer: Any, answer: str, against: str | None, folder: TransformersFolder, device: torch.device
) -> list[Tensor]:
    """Tokens [K] of the answer, and of the one that it is compared with, if any."""
    return [_answer_ids(tokenizer, text, folder).to(device) for text in (answer, against) if text is not None]


def _answer_ids(tokenizer: Any, answer: str, folder: TransformersFolder) -> Tensor:
    ids = tokenizer(answer, add_special_tokens=False).input_ids
    if not ids or ids == [tokenizer.unk_token_id]:
        raise CheckpointError(
            f'{folder.plugin}: the tokenizer of model "{folder.model}" has no token for the answer "{answer}"; '
            "set `answer` to a word in its vocabulary"
        )
    return torch.tensor(ids)


def _token_log_probabilities(logits: Tensor, answer: Tensor) -> Tensor:
    """[N, K] log-probabilities of the answer's tokens [K], from logits [N, K, V]."""
    return logits.log_softmax(-1).gather(-1, answer.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)


def _encoder_token(tokenizer: Any, config: Any) -> int | None:
    """Id of BLIP's [ENC]: in the vocabulary, or beside [DEC], which the public checkpoints' tokenizer lacks, too."""
    if "[ENC]" in tokenizer.get_vocab():
        return int(tokenizer.convert_tokens_to_ids("[ENC]"))
    after = int(config.bos_token_id) + 1  # [DEC] and [ENC] were added to BERT's vocabulary in this order
    return after if len(tokenizer) <= after < config.vocab_size else None


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
