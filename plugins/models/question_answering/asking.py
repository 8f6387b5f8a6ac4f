"""Questions about finished images, asked in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from refcore.errors import RefcoreError, shortened
from refcore.images import Levels
from refcore_plugins.models.question_answering.answering import Answering

Question = tuple[int, int]
"""(index of the image, index of the question among those about this image)."""
Read = Callable[[Answering, Tensor, dict[str, Tensor], Tensor], Tensor]
"""`first_log_probabilities` or alike: [N, ...] of N questions."""


def answered(
    answering: Answering,
    see: Callable[[Levels], Tensor],
    images: Sequence[Levels],
    questions: Sequence[Sequence[str]],
    read: Read,
    batch: int,
    device: torch.device,
) -> Iterator[tuple[Question, Tensor]]:
    """What is read of the answer to each question, in an order of its own. No gradient is kept.

    Args:
        answering: The model.
        see: [H, W, 3] of an image -> [3, h, w] in [0, 1], as the model takes it; the same h and w for the same H and W.
        images: [B].
        questions: [B], of each image.
        read: See `Read`.
        batch: Most questions at a time.
        device: of the model.

    Raises:
        RefcoreError: a question exceeds the model's context.
    """
    alike: dict[tuple[int, ...], list[Question]] = {}
    for i, (image, asked) in enumerate(zip(images, questions, strict=True)):
        alike.setdefault(image.shape, []).extend((i, j) for j in range(len(asked)))
    for group in alike.values():
        for start in range(0, len(group), batch):
            chunk = group[start : start + batch]
            seen = list(dict.fromkeys(i for i, _ in chunk))
            views = torch.stack([see(images[i]) for i in seen]).to(device)
            text = answering.tokens([questions[i][j] for i, j in chunk])
            length = text["input_ids"].shape[1]
            if length > answering.context:
                longest = max((questions[i][j] for i, j in chunk), key=answering.length)
                raise RefcoreError(
                    f'the question "{shortened(longest, 60)}" has {length} tokens; expected at most '
                    f"{answering.context}, the model's context: shorten the prompt, or use another model"
                )
            rows = torch.tensor([seen.index(i) for i, _ in chunk], device=device)
            with torch.no_grad():
                found = read(answering, views, {name: value.to(device) for name, value in text.items()}, rows)
            yield from zip(chunk, found, strict=True)
