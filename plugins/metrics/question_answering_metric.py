"""Base of the metrics that ask a question-answering model: its settings, and its answers to many questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.metric import BenchmarkPrompt, Metric
from refcore.errors import RefcoreError, shortened
from refcore.images import Levels
from refcore.plugin import PluginConfig
from refcore_plugins.models.finished_images import pixels
from refcore_plugins.models.question_answering.asking import Question, Read, answered
from refcore_plugins.models.question_answering.blip import BLIP
from refcore_plugins.models.question_answering.opening import MODELS, folder_of, open_answering

QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"


class QuestionAnsweringMetric(Metric):
    """Measures with the answers of any model that the referee `vqa` takes, at the size that the model's makers give.

    Subclasses override `_wanted` and `_other` where the answer is not yes.
    """

    class Config(PluginConfig):
        model: str = Field(QWEN, description=f"Hub id or folder of transformers: {MODELS}.")
        size: int | None = Field(
            None,
            ge=32,
            description="Side in pixels of what a BLIP sees, whose positions are interpolated (its authors: 480); "
            "null: the checkpoint's own. Images keep their proportions in a Qwen-VL, whatever this is.",
        )
        batch: int = Field(8, ge=1, description="Most questions at a time, which are about images of one size.")

    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`. The model is in `dtype`; probabilities are float32 or wider."""
        folder = folder_of(self.name, self.config.model)
        self._is_blip = folder.kind == BLIP
        self._answering = open_answering(folder, self._wanted(), self._other(), self.config.size, device, dtype)
        self._device = device

    def _wanted(self) -> str | None:
        """The answer whose probability is asked for; None: "yes" for a BLIP, "Yes" for other models."""
        return None

    def _other(self) -> str | None:
        """The answer that it is compared with, if any."""
        return None

    def _ask(
        self, images: Sequence[Levels], questions: Sequence[Sequence[str]], read: Read
    ) -> Iterator[tuple[Question, Tensor]]:
        """What `read` gives for each question about each image; see `answered`."""
        return answered(self._answering, self._see, images, questions, read, self.config.batch, self._device)

    def _see(self, image: Levels) -> Tensor:
        """[3, h, w] in whole levels, as the libraries' processors and their authors' code resize."""
        return self._answering.fit(pixels(image)[None])[0].mul(255).round().div(255)


def fact_of(metric: Metric, prompt: BenchmarkPrompt, key: str, expected: str) -> Sequence[object]:
    """The list that a prompt's facts have under a key.

    Raises:
        RefcoreError: the fact is missing, or no list, or empty.
    """
    fact = prompt.facts.get(key)
    if not isinstance(fact, Sequence) or isinstance(fact, str) or not fact:
        raise RefcoreError(f'{metric.name}: "{shortened(prompt.text)}" has {key} {fact!r:.60}; expected {expected}')
    return fact
