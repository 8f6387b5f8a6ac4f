"""A referee under examination: scores of pictures for captions, batch by batch, with its model loaded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from refcore.config.run import RunConfig
from refcore.engine.loading import load_panel
from refcore.engine.models import Models
from refcore.engine.panel import Panel
from refcore.errors import RefcoreError, shortened
from refcore.images import Levels
from refcore_bench.examinations.task import Item, Picture, Question
from refcore_bench.scoring import pixels

BATCH = 50
"""Pictures that a referee looks at side by side."""
BLOCK = 512
"""Questions whose captions are read together: a text tower reads them in one batch."""
MOST_PIXELS = 2**25
"""Pixels of the pictures that wait for others of their shape: as float32 they are 0.4 GB."""


class Examinee:
    """The only referee of a config, outside of any run.

    Its scores are those of `Panel.scores`: in its unit, higher for a better match, on the whole picture, as its
    checkpoint's own preprocessing fits it.
    """

    def __init__(self, config: RunConfig, batch: int = BATCH) -> None:
        """`config`: a resolved run of this referee alone; its prompts and seeds are not used."""
        self.config, self.batch = config, batch
        self._models = Models()
        self._warnings: dict[str, None] = {}
        self.unit = ""
        """Unit of the scores, once there are some."""

    @property
    def warnings(self) -> list[str]:
        """What the referee said of the captions so far: such as those whose end it does not read."""
        return list(self._warnings)

    def rows(
        self, items: Iterable[Item], progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[dict[str, Any]]:
        """The items' facts with the scores of their questions.

        Args:
            items: read as they are needed.
            progress: is told the number of items that are done.

        Raises:
            RefcoreError: the referee cannot be loaded or cannot read a caption, a picture cannot be read, or a score
                is NaN or infinite.
        """
        done, block, questions = 0, list[Item](), 0
        for item in items:
            block.append(item)
            questions += len(item.questions)
            if questions >= BLOCK:
                yield from self._scored(block)
                done, block, questions = done + len(block), [], 0
                progress(done)
        if block:
            yield from self._scored(block)
            progress(done + len(block))

    def _scored(self, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
        answers = iter(self.scores([question for item in items for question in item.questions.values()]))
        for item in items:
            yield {**item.facts, **{column: next(answers) for column in item.questions}}

    def scores(self, questions: Sequence[Question]) -> list[float]:
        """[N] score of each question.

        Raises:
            RefcoreError: as for `rows`.
        """
        captions = list(dict.fromkeys(question.caption for question in questions))
        place = {caption: index for index, caption in enumerate(captions)}
        panel = self._panel(captions)
        found = [math.nan] * len(questions)
        for numbers, batch in self._batches(questions):
            samples = [place[questions[number].caption] for number in numbers]
            (scores,) = panel.scores(pixels(batch).to(panel.device), samples).values()
            for number, value in zip(numbers, scores.tolist(), strict=True):
                if not math.isfinite(value):
                    picture, caption = questions[number]
                    raise RefcoreError(
                        f'the referee "{self.config.referees[0].name}" scores {picture.name} for '
                        f'"{shortened(caption)}" as {value}; try --set dtype=float32 without autocast'
                    )
                found[number] = value
        return found

    def _panel(self, captions: Sequence[str]) -> Panel:
        config = replace(self.config.panel, samples=[(caption, 0) for caption in captions], chunk=self.batch)
        panel = load_panel(config, self._models)
        self._warnings |= dict.fromkeys(panel.warnings)
        (self.unit,) = panel.units.values()
        return panel

    def _batches(self, questions: Sequence[Question]) -> Iterator[tuple[list[int], list[Levels]]]:
        """Numbers of questions and their pictures, all of one shape; a picture of questions in a row is read once."""
        waiting: dict[tuple[int, ...], tuple[list[int], list[Levels]]] = {}
        last: tuple[Picture, Levels] | None = None
        held = 0
        for number, (picture, _) in enumerate(questions):
            if last is None or last[0] is not picture:
                last = (picture, picture.read())
                held += last[1].shape[0] * last[1].shape[1]
            numbers, batch = waiting.setdefault(last[1].shape, ([], []))
            numbers.append(number)
            batch.append(last[1])
            area = last[1].shape[0] * last[1].shape[1]
            if len(numbers) == self.batch or len(numbers) * area >= MOST_PIXELS:
                yield waiting.pop(last[1].shape)
            if held >= MOST_PIXELS:
                yield from waiting.values()
                waiting, held = {}, 0
        yield from waiting.values()
