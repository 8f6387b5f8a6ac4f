"""The `ocr` referee: a recogniser reads one line of text, and the prompt says what it should read."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore_plugins.models.ctc import absent, encoded, greedy, loss_per_character, quoted
from refcore_plugins.models.preprocess import Fit
from refcore_plugins.models.text_recognisers import RECOGNISERS, Recogniser, Weights, index_of


class Ocr(Referee):
    """A text recogniser as referee: an image-to-text network whose answer can be checked by other readers.

    The text is what the prompt puts in double quotes, or all of it. The loss is CTC's: the negated log-probability that
    the network reads exactly this text, however its letters are spread over the line, per character.
    """

    class Config(PluginConfig):
        weights: Weights = Field("ppocr", description="PP-OCRv4, or EasyOCR's reader of English.")
        width: int = Field(
            320,
            ge=32,
            le=2048,
            multiple_of=8,
            description="Width of the views in pixels; they are 48 pixels high (ppocr) or 64 (easyocr). At 320 a line "
            "has 40 reading steps (ppocr) or 79 (easyocr).",
        )

        even: float = Field(
            0.0,
            ge=0,
            le=100,
            description="Strength of the preference for evenly spread characters; 0: the loss is CTC's, in which any "
            "alignment counts. A character's log-probability loses this much times its squared distance from its "
            "place, in characters, beyond a half.",
        )

    name = "ocr"
    score_unit = "probability"
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`; every prompt's text has to be in the alphabet and fit into the width."""
        super().check(prompts)
        for module, remedy in self._recogniser.requires.items():
            if find_spec(module) is None:
                raise CheckpointError(f'the referee "{self.name}" needs the package {module}: {remedy}')
        self._recogniser.file()
        if prompts:
            self._encoded(prompts)

    def packaged(self) -> dict[str, Path]:
        """See `Plugin.packaged`: the recogniser."""
        return {self.config.weights: self._recogniser.file()}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`."""
        self.device, self.dtype = device, dtype
        self.input_size = (self._recogniser.height, self.config.width)
        grey = (0.5,) * 3  # rapidocr pads with zeros after normalising
        self.fit = Fit(self.input_size, "pad", "bilinear", grey)
        network, self.classes = self._recogniser.load()
        self._network = network.to(device, dtype).to(memory_format=torch.channels_last)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Each prompt's text: class indices `target` [P, L] and `length` [P].

        Raises:
            RefcoreError: a text has characters outside the alphabet, or is too long for the width.
        """
        target, length = self._encoded(prompts)
        notes = tuple(f'to be read: "{text}"' if text != prompt else "" for prompt, text in _texts(prompts))
        return Conditioning(
            tuple(prompts), {"target": target.to(self.device), "length": length.to(self.device)}, notes=notes
        )

    def logits(self, views: Tensor) -> Tensor:
        """[N, T, C] logits, float32 (float64 in float64), of views [N, 3, H, W] in [0, 1]; differentiable."""
        x = self._recogniser.normalise(views).to(self.dtype, memory_format=torch.channels_last)
        logits: Tensor = self._network(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`: CTC loss per character; not wanted, -log(1 - p) of p = exp(-loss)."""
        text = conditioning.select(prompt_index)
        loss = loss_per_character(self.logits(views), text["target"], text["length"], self.config.even)
        return loss if wanted else absent(loss)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] probabilities of the texts per character: the geometric mean, exp(-loss)."""
        return torch.exp(-loss_per_character(self.logits(images), conditioning["target"], conditioning["length"]))

    @torch.no_grad()
    def guess(self, images: Tensor) -> list[str]:
        """What is read in each image [B, 3, H, W], by the most likely class of each step."""
        return greedy(self.logits(images), self.classes)

    @property
    def _recogniser(self) -> Recogniser:
        return RECOGNISERS[self.config.weights]

    def _encoded(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        texts = [text for _, text in _texts(prompts)]
        return encoded(texts, index_of(self.config.weights), self._recogniser.steps(self.config.width))


def _texts(prompts: Sequence[str]) -> list[tuple[str, str]]:
    return [(prompt, quoted(prompt)) for prompt in prompts]
