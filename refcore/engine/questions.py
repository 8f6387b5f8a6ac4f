"""Questions that a referee is asked about a view: the whole prompt of its sample, and phrases of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refcore.config.terms import JudgedPhrases


class Questions:
    """Rows of a referee's conditioning for the views of A samples, the whole prompt's before those of its phrases."""

    def __init__(
        self,
        prompt_index: Sequence[int],
        phrases: Sequence[Sequence[int]] | None,
        judged: JudgedPhrases | None,
        device: torch.device,
    ) -> None:
        """Takes rows of the conditioning for each of the A samples.

        Args:
            prompt_index: [A] row of the whole prompt.
            phrases: [A] rows of the phrases, one or more; None where the referee judges none.
            judged: how the losses of the phrases count; None with `phrases`.
            device: of the views.
        """
        self.judged = judged if phrases is not None else None
        rows: list[tuple[int, ...]] = [(row,) for row in prompt_index]
        if self.judged is not None and phrases is not None:
            whole = self.judged.whole
            rows = [(*(row if whole else ()), *own) for row, own in zip(rows, phrases, strict=True)]
        self.each = [len(row) for row in rows]
        """[A] number of questions about a view of each sample."""
        self.counts = torch.tensor(self.each, device=device)
        longest = max(self.each, default=0)
        self._table = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)

    def prompt_index(self, sample: Tensor) -> Tensor:
        """[m] rows of the conditioning for every question about views of the samples `sample` [n], view by view."""
        questions = self._table.index_select(0, sample)
        if self.judged is None:
            return questions[:, 0]
        return questions[self._mask(self.counts.index_select(0, sample))]

    def reduced(self, losses: Tensor, counts: Tensor) -> Tensor:
        """[n] losses of n views from the losses [m] of their questions, `counts` [n] each.

        whole * loss(prompt) + weight * reduce(losses of the phrases).
        """
        assert self.judged is not None
        mask = self._mask(counts)
        table = losses.new_zeros(mask.shape).masked_scatter(mask, losses)
        whole = self.judged.whole * table[:, 0] if self.judged.whole else 0.0
        first = 1 if self.judged.whole else 0
        table, mask, count = table[:, first:], mask[:, first:], counts - first
        if self.judged.reduce == "max":
            return whole + self.judged.weight * table.masked_fill(~mask, -torch.inf).max(1).values
        return whole + self.judged.weight * table.sum(1) / count

    def _mask(self, counts: Tensor) -> Tensor:
        """[n, longest] bool: the places of the table that hold a question."""
        return torch.arange(self._table.shape[1], device=counts.device) < counts[:, None]
