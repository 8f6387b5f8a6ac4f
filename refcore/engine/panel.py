"""A panel: loaded referees and witnesses that judge and score images for the prompts that they have read.

It has no canvas: a run judges its tracks with it, `refcore score` and the benchmark finished images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from refcore.config.panel import PanelConfig
from refcore.config.terms import RefereeTerm
from refcore.config.views import CLEAN
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.engine import checks, memory
from refcore.engine.models import Models
from refcore.engine.offload import resident
from refcore.engine.precision import autocast
from refcore.engine.questions import Questions
from refcore.engine.views import Group, OpenViews, Views, coarsen, resize
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import Plugin
from refcore.rng import Key

HALF_SCALE = 1024.0
"""Loss scale of referees that run in float16, whose smallest gradient is 6e-8; it is divided out again."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LoadedReferee:
    """A referee with the prompts that it has read."""

    label: str
    referee: Referee
    conditioning: Conditioning
    prompt_index: tuple[int, ...]
    """[B] row of `conditioning` that each sample is judged against."""
    autocast: torch.dtype | None = None
    coarse: int | None = None
    """Longer side in pixels to which finished images are shrunk before they are scored; None: as they are."""
    device: torch.device | None = None
    """Where its model is; None: on the panel's."""

    @property
    def is_half(self) -> bool:
        """True where it computes in float16."""
        return torch.float16 in (self.autocast, self.referee.dtype)


@dataclass(frozen=True, kw_only=True)
class LoadedTerm(LoadedReferee):
    """A referee that images are optimised for."""

    term: RefereeTerm
    satisfied_at: tuple[float, ...] | None = None
    """[B] loss at or below which it is satisfied with each sample; None: never."""
    phrases: tuple[tuple[int, ...], ...] | None = None
    """[B] rows of `conditioning` with the phrases of each sample's prompt, one or more; None: it judges none."""

    def satisfaction(self, samples: Sequence[int], like: Tensor) -> Tensor:
        """[A] losses at which it is satisfied with some samples, in the dtype and on the device of `like`."""
        assert self.satisfied_at is not None
        return torch.tensor([self.satisfied_at[b] for b in samples], dtype=like.dtype, device=like.device)

    def unsatisfied(self, loss: Tensor, samples: Sequence[int]) -> Tensor:
        """[A] factor in 0 .. 1 of its gradient, by its losses [A]; 0 where it is satisfied."""
        assert self.term.satisfied_at is not None
        above = loss - self.satisfaction(samples, loss)
        width = self.term.satisfied_at.width
        return (above / width).clamp(0, 1) if width else (above > 0).to(loss.dtype)

    def questions(self, samples: Sequence[int], device: torch.device) -> Questions:
        """Questions about views of some samples."""
        phrases = None if self.phrases is None else [self.phrases[b] for b in samples]
        return Questions([self.prompt_index[b] for b in samples], phrases, self.term.phrases, device)


class Panel:
    """Loaded referees and witnesses. Nothing in it changes but the chunk sizes that fit."""

    def __init__(
        self,
        config: PanelConfig,
        referees: Sequence[LoadedTerm],
        witnesses: Sequence[LoadedReferee],
        groups: Mapping[str, Group],
        device: torch.device,
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
        models: Models | None = None,
    ) -> None:
        self.config = config
        self.referees = tuple(referees)
        self.witnesses = tuple(witnesses)
        self.groups = dict(groups)
        self.device = device
        self.warnings = tuple(warnings)
        """Prompt text truncated by a model's context limit."""
        self.notes = tuple(notes)
        """Remarks on how referees understood the prompts, where that is not plain."""
        self.models = models
        """Where its referees are shared with other runs; None: nowhere."""
        self.seeds = tuple(seed for _, seed in config.samples)
        """[B] seed of each sample."""
        self.chunks: dict[str, int] = dict(config.chunk) if isinstance(config.chunk, Mapping) else {}
        """Referee's label -> views it judges at a time: pinned, planned or halved. Others: `config.chunk`, or all."""
        self.halved: list[dict[str, Any]] = []
        """Chunks that did not fit: step (None: between steps), label, and the size that it went on with."""

    def plan(self, tracks: int = 1) -> None:
        """Sets how many views each referee judges at a time, where the config leaves that open.

        Each is shown a black view, and two where one already leaves room for less than all, to see what a view adds to
        its graph. Its chunk is what fits into `memory.SHARE` of the device's free memory.

        Args:
            tracks: of each sample.
        """
        if self.config.chunk is not None:
            return
        for judge in self.referees:
            count = self.groups[judge.term.views].config.count * tracks
            most = sum((1 + len(judge.phrases[b]) if judge.phrases else 1) * count for b in range(len(self.seeds)))
            if most > 1:
                free = memory.free_memory(self._device(judge))
                with_weights = self._graph_bytes(judge, 1)
                chunk = memory.chunk_that_fits(with_weights, free, most)
                if chunk < most:
                    chunk = memory.chunk_that_fits(self._graph_bytes(judge, 2) - with_weights, free, most)
                self.chunks[judge.label] = chunk

    def finish_reading(self) -> None:
        """Lets the referees drop what only reads text, where no later run may use it."""
        for judge in (*self.referees, *self.witnesses):
            self.finish(judge.referee, judge.label)

    def finish(self, plugin: Plugin, label: str) -> None:
        """Lets a plugin drop what only reads text, unless other runs may get it. It can read no other prompt then."""
        if self.models is None or not self.models.holds(plugin):
            with checks.Call(plugin, "finish_reading", label):
                plugin.finish_reading()

    def gradients(
        self, images: Tensor, keys: Sequence[Key], samples: Sequence[int], at: Moment
    ) -> Iterator[tuple[LoadedTerm, Tensor, Tensor]]:
        """Weighted gradient at the images, and losses, of each referee that takes part in a step.

        Args:
            images: [A, 3, H, W] in [0, 1], a leaf that requires a gradient.
            keys: [A] by which the draws of views are found.
            samples: [A] sample of each image.
            at: the step.

        Yields:
            The referee, its gradient [A, 3, H, W], 0 where it is satisfied, and its losses [A], unweighted.
        """
        active = [judge for judge in self.referees if judge.term.weight_at(at.step, at.steps)]
        views = OpenViews(self.groups, images, keys, at)
        chosen = self.hardest(active, views, samples, at)
        for judge in active:
            opened = views.get(judge.term.views, judge.referee.input_size)
            gradient, loss = self.judge(judge, opened, chosen[judge.term.views], samples, at)
            gradient = gradient * judge.term.weight_at(at.step, at.steps)
            if judge.satisfied_at is not None:
                gradient = gradient * judge.unsatisfied(loss, samples).to(gradient).view(-1, 1, 1, 1)
            yield judge, gradient, loss

    def hardest(
        self, referees: Sequence[LoadedTerm], views: OpenViews, samples: Sequence[int], at: Moment
    ) -> dict[str, Sequence[int]]:
        """Group -> the views that get gradients: all, or each sample's hardest by the weighted losses of its terms.

        The ranking is read back from the device, because the random numbers of views are drawn on the host.
        """
        chosen: dict[str, Sequence[int]] = {}
        for name in dict.fromkeys(judge.term.views for judge in referees):
            group, n = self.groups[name], len(samples)
            everything = range(n * group.config.count)
            if group.used == group.config.count:
                chosen[name] = everything
                continue
            exact = torch.float64 if views.image.dtype == torch.float64 else None
            ranking = torch.zeros(n, group.config.count, dtype=exact, device=self.device)
            with torch.no_grad():
                for judge in referees:
                    if judge.term.views == name:
                        questions = judge.questions(samples, self.device)
                        opened = views.get(name, judge.referee.input_size)
                        losses = self._losses(judge, opened, everything, questions, at)
                        ranking += judge.term.weight_at(at.step, at.steps) * losses.view(n, -1)
            hardest = ranking.topk(group.used, dim=1).indices.sort(dim=1).values.tolist()
            chosen[name] = [a * group.config.count + view for a, own in enumerate(hardest) for view in own]
        return chosen

    @torch.no_grad()
    def shown(self, images: Tensor, keys: Sequence[Key], at: Moment, most: int) -> dict[tuple[str, ...], Tensor]:
        """Labels of the referees that are shown the same -> [A, n, 3, h, w] views of a step; nothing is judged.

        Args:
            images: [A, 3, H, W] in [0, 1].
            keys: [A] by which the draws of views are found.
            at: the step.
            most: views of each image, at most; of a group with `hardest` the first that are drawn.
        """
        labels: dict[tuple[str, tuple[int, int]], list[str]] = {}
        for judge in self.referees:
            if judge.term.weight_at(at.step, at.steps):
                labels.setdefault((judge.term.views, judge.referee.input_size), []).append(judge.label)
        opened, found = OpenViews(self.groups, images, keys, at), {}
        for (group, size), own in labels.items():
            views, count = opened.get(group, size), self.groups[group].config.count
            index = [a * count + view for a in range(len(images)) for view in range(min(most, count))]
            found[tuple(own)] = views.make(index).view(len(images), -1, 3, *size)
        return found

    def judge(
        self, judge: LoadedTerm, views: Views, index: Sequence[int], samples: Sequence[int], at: Moment
    ) -> tuple[Tensor, Tensor]:
        """One referee's judgement of the views `index`: gradient at the images and losses.

        Returns:
            [A, 3, H, W] gradient of the sum over samples of the mean over views, and [A] those means.
        """
        per_sample = len(index) // len(samples)
        questions = judge.questions(samples, self.device)
        scale = (HALF_SCALE if judge.is_half else 1.0) / per_sample

        def judged() -> tuple[Tensor, Tensor]:
            total = torch.zeros_like(views.source)
            losses = []
            for chunk in self._chunks(judge, index, views, questions):
                with torch.enable_grad():
                    loss = self._loss(judge, views, chunk, questions)
                    gradient = checks.gradient_of(
                        judge.referee, "judge", (loss * scale).sum(), views.source, judge.label
                    )
                total += gradient
                losses.append(loss.detach())
                del loss, gradient  # and the graph, before the next is built
            return total, torch.cat(losses)

        with resident(judge.referee):
            total, losses = self._fitting(judge, len(index), judged, at)
        if judge.is_half:
            total /= HALF_SCALE
        return views.pull_back(total), losses.view(len(samples), per_sample).mean(1)

    @torch.no_grad()
    def losses(
        self, images: Tensor, samples: Sequence[int] | None = None, group: str = CLEAN, at: Moment | None = None
    ) -> dict[str, Tensor]:
        """Label -> [A] unweighted loss of each referee, on views of a group.

        Args:
            images: [A, 3, H, W] in [0, 1].
            samples: [A] the sample of each image; None: image a is of sample a. Images of one sample are shown in the
                same views.
            group: name of a view group.
            at: whose views are drawn; None: the end of the run, with the same views at every call.
        """
        samples = range(len(images)) if samples is None else samples
        at = Moment.end(self.config.steps) if at is None else at
        views = OpenViews(self.groups, images, [self.seeds[b] for b in samples], at)
        found = {}
        for judge in self.referees:
            opened = views.get(group, judge.referee.input_size)
            everything = range(len(opened.sample))
            questions = judge.questions(samples, images.device)
            found[judge.label] = self._losses(judge, opened, everything, questions, at).view(len(images), -1).mean(1)
        return found

    @torch.no_grad()
    def scores(self, images: Tensor, samples: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Label -> [A] float32 score by each referee and witness, in its natural unit; arguments as for `losses`.

        A referee sees the image as its checkpoint's own preprocessing fits it into the input size (`Referee.fit`); a
        witness with `coarse` sees it shrunk to that first.
        """
        judges = (*self.referees, *self.witnesses)
        return {judge.label: self._scores(judge, images, samples) for judge in judges}

    @torch.no_grad()
    def possible_scores(self, images: Tensor) -> tuple[dict[str, list[float]], dict[str, dict[int, str]]]:
        """`scores` as numbers, with NaN where a referee fails, and label -> sample -> the reason."""
        scores: dict[str, list[float]] = {}
        reasons: dict[str, dict[int, str]] = {}
        for judge in (*self.referees, *self.witnesses):
            try:
                found = self._scores(judge, images).tolist()
                why = f"scored {judge.label} as NaN or infinity"
                failed = {b: why for b, value in enumerate(found) if not math.isfinite(value)}
            except Exception as error:
                found = [math.nan] * len(images)
                failed = dict.fromkeys(range(len(images)), " ".join(str(error).split()) or type(error).__name__)
            scores[judge.label], reasons[judge.label] = found, failed
        return scores, reasons

    def _scores(self, judge: LoadedReferee, images: Tensor, samples: Sequence[int] | None = None) -> Tensor:
        """[A] float32 scores by one referee or witness."""

        def score(referee: Referee, seen: Tensor, conditioning: Conditioning) -> Tensor:
            return checks.score(referee, seen, conditioning, judge.label).float()

        return torch.cat(self.ask(judge, images, score, samples)).to(images.device)

    @torch.no_grad()
    def ask(
        self,
        judge: LoadedReferee,
        images: Tensor,
        question: Callable[[Any, Tensor, Conditioning], Answer],
        samples: Sequence[int] | None = None,
    ) -> list[Answer]:
        """`question(referee, seen, conditioning)` of each chunk of images, which it sees as it scores them."""
        samples = list(range(len(images)) if samples is None else samples)
        size = self._chunk(judge) or max(1, len(images))
        device, answers = self._device(judge), []
        with resident(judge.referee):
            for first in range(0, len(images), size):
                part = images[first : first + size].to(device)
                whole = part if judge.coarse is None else coarsen(part, judge.coarse)
                fit = judge.referee.fit
                seen = resize(whole, judge.referee.input_size) if fit is None else fit(whole)
                conditioning = judge.conditioning.take([judge.prompt_index[b] for b in samples[first : first + size]])
                with autocast(device, judge.autocast):
                    answers.append(question(judge.referee, seen, conditioning))
        return answers

    @property
    def units(self) -> dict[str, str]:
        """Label -> unit of the score."""
        return {judge.label: judge.referee.score_unit for judge in (*self.referees, *self.witnesses)}

    def _graph_bytes(self, judge: LoadedTerm, n: int) -> int:
        """Bytes of the graph of a referee's losses on n black views, weights included."""
        dtype = torch.float64 if self.config.dtype == "float64" else torch.float32
        device = self._device(judge)

        def losses() -> Tensor:
            views = torch.zeros(n, 3, *judge.referee.input_size, dtype=dtype, device=device, requires_grad=True)
            with autocast(device, judge.autocast):
                first = torch.zeros(n, dtype=torch.int64, device=device)
                beside = None if judge.referee.beside is None else views.detach()
                wanted = judge.term.wanted
                return checks.judge(judge.referee, views, judge.conditioning, first, wanted, judge.label, beside)

        with resident(judge.referee):
            return memory.graph_bytes(losses)

    def _losses(
        self, judge: LoadedTerm, views: Views, index: Sequence[int], questions: Questions, at: Moment
    ) -> Tensor:
        """[n] losses of the views `index`, chunk by chunk, without gradient."""

        def losses() -> Tensor:
            chunks = self._chunks(judge, index, views, questions)
            return torch.cat([self._loss(judge, views, chunk, questions) for chunk in chunks])

        with resident(judge.referee):
            return self._fitting(judge, len(index), losses, at)

    def _loss(self, judge: LoadedTerm, views: Views, index: Sequence[int], questions: Questions) -> Tensor:
        """[n] losses of the views `index`, of the whole prompts and of their phrases.

        With phrases, the referee is shown each view once for every question about it.
        """
        made, sample, device = views.make(index), views.sample_of(index), self._device(judge)
        picture = judge.referee.beside
        beside = None if picture is None else views.beside(picture.to(made.device), index)
        counts = questions.counts.index_select(0, sample)
        if questions.judged is not None:
            made = made.repeat_interleave(counts, 0)
            beside = None if beside is None else beside.repeat_interleave(counts, 0)
        with autocast(device, judge.autocast):
            asked, wanted = questions.prompt_index(sample).to(device), judge.term.wanted
            shown, beside = made.to(device), None if beside is None else beside.to(device)
            loss = checks.judge(judge.referee, shown, judge.conditioning, asked, wanted, judge.label, beside)
        loss = loss.to(made.device, torch.promote_types(loss.dtype, torch.float32))
        return loss if questions.judged is None else questions.reduced(loss, counts)

    def _fitting(self, judge: LoadedTerm, n: int, work: Callable[[], Answer], at: Moment) -> Answer:
        """`work`, which judges n views in chunks; while it does not fit, from its start again in smaller ones.

        No step is lost: random numbers are keyed, so the views are the same again.

        Raises:
            RefcoreError: a single view does not fit.
        """
        while True:
            try:
                return work()
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                said = str(error).strip().partition("\n")[0]
            # Past the except clause, whose traceback holds on to the graph.
            chunk = min(n, self._chunk(judge) or n) // 2
            if not chunk:
                raise RefcoreError(
                    f'"{judge.label}" runs out of memory on {self._device(judge)} with a single view ({said}); give it '
                    "dtype: bfloat16 or weights: int8, make the image smaller, give the latent canvas recompute: "
                    "blocks, or set offload: cpu"
                )
            self.chunks[judge.label] = chunk
            self.halved.append({"step": None if at.is_end else at.step, "label": judge.label, "chunk": chunk})
            memory.release(self._device(judge))

    def _device(self, judge: LoadedReferee) -> torch.device:
        """Where a referee is evaluated. Its gradient at the images comes back to theirs."""
        return self.device if judge.device is None else judge.device

    def _chunk(self, judge: LoadedReferee) -> int | None:
        """Judgements that a referee makes at a time; None: all."""
        return self.chunks.get(judge.label, self.config.chunk if isinstance(self.config.chunk, int) else None)

    def _chunks(
        self, judge: LoadedTerm, index: Sequence[int], views: Views, questions: Questions
    ) -> list[Sequence[int]]:
        """`index` in chunks of as many judgements as are made at a time; the questions about a view stay together."""
        chunk = self._chunk(judge)
        if chunk is None:
            return [index]
        first, room, chunks = 0, chunk, []
        for place, view in enumerate(index):
            asked = questions.each[view // views.config.count]
            if asked > room and place > first:
                chunks.append(index[first:place])
                first, room = place, chunk
            room -= asked
        return [*chunks, index[first:]]
