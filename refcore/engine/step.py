"""One step of an inversion: decode once, judge views term by term and chunk by chunk, pull back once, combine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from refcore.config.run import RunConfig
from refcore.config.start import SampleStart
from refcore.config.terms import JudgedPhrases, PriorTerm, RefereeTerm
from refcore.config.views import CLEAN
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.engine import memory
from refcore.engine.candidates import ordered
from refcore.engine.combine import Combiner, Rows
from refcore.engine.views import FIXED, Group, Views, coarsen, resize
from refcore.errors import RefcoreError
from refcore.rng import Key, Rng, candidate_key

HALF_SCALE = 1024.0
"""Loss scale of referees that run in float16, whose smallest gradient is 6e-8; it is divided out again."""
Answer = TypeVar("Answer")
CANVAS = "canvas"
"""What a NaN in the decoded image is blamed on."""


class NonFiniteError(RefcoreError):
    """A referee, prior or canvas gave NaN or infinity. The parameters are still those from before the step."""

    def __init__(self, step: int, terms: Sequence[str]) -> None:
        self.step = step
        self.terms = tuple(terms)
        named = ", ".join(f'"{term}"' for term in self.terms)
        remedy = (
            "the parameters have run away: try a lower optimizer.lr, or optimizer.clip"
            if CANVAS in self.terms
            else "try dtype float32 without autocast for it, a lower weight, or optimizer.clip"
        )
        super().__init__(f"step {step}: {named} gave NaN or infinity; {remedy}")


@dataclass(frozen=True)
class Use:
    """A loaded referee with what it was asked. `rows[b]` is the row of `conditioning` that sample b is judged against."""

    label: str
    referee: Referee
    conditioning: Conditioning
    rows: tuple[int, ...]
    autocast: torch.dtype | None = None


@dataclass(frozen=True)
class WitnessUse(Use):
    """A referee that only scores."""

    coarse: int | None = None


@dataclass(frozen=True, kw_only=True)
class RefereeUse(Use):
    """A referee that the image is optimised for."""

    term: RefereeTerm
    satisfied_at: tuple[float, ...] | None = None
    """[B] the loss at or below which it is satisfied with each sample; None: never."""
    phrases: tuple[tuple[int, ...], ...] | None = None
    """[B] the rows of `conditioning` that hold the parts of each sample's prompt, one or more; None: it judges no parts."""


@dataclass(frozen=True, kw_only=True)
class PriorUse:
    """A loaded prior with what it was asked; row b of `conditioning` belongs to sample b."""

    label: str
    term: PriorTerm
    prior: Prior
    conditioning: Conditioning
    autocast: torch.dtype | None = None


@dataclass
class StepGradients:
    """What one step gives for the A samples that take part in it."""

    combined: CanvasParams
    """The gradient of it all, shaped as the parameters."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Label -> [A], unweighted: of referees the mean over the views used, of priors the value where they have one."""
    norms: dict[str, Tensor] = field(default_factory=dict)
    """Label -> [A], norm of the weighted gradient where the term acts: at the image, the latent or the parameters; 0
    where a referee is satisfied."""
    finite: dict[str, Tensor] = field(default_factory=dict)
    """Label -> scalar bool: whether loss and gradient are finite. Not read here, so that no device waits."""


class Engine:
    """The loaded models of a run, and the gradient of a step. It holds nothing that changes, but what priors learn."""

    def __init__(
        self,
        config: RunConfig,
        canvas: Canvas,
        combiner: Combiner,
        referees: Sequence[RefereeUse] = (),
        priors: Sequence[PriorUse] = (),
        witnesses: Sequence[WitnessUse] = (),
        groups: Mapping[str, Group] | None = None,
        device: torch.device | str = "cpu",
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.canvas = canvas
        self.combiner = combiner
        self.referees = tuple(referees)
        self.priors = tuple(priors)
        self.witnesses = tuple(witnesses)
        self.groups = dict(groups or {name: Group(name, group) for name, group in config.view_groups.items()})
        self.device = torch.device(device)
        self.warnings = tuple(warnings)
        """What of the prompts was not read."""
        self.notes = tuple(notes)
        """How referees understood the prompts, where that is not plain."""
        self.seeds = tuple(seed for _, seed in config.samples)
        """[B], one a sample."""
        self.keys: tuple[Key, ...] = tuple(
            candidate_key(seed, candidate) for seed in self.seeds for candidate in range(config.candidates.count)
        )
        """[B * candidates], samples outermost: what the draws of each candidate are keyed by."""
        self.chunks: dict[str, int] = dict(config.chunk) if isinstance(config.chunk, dict) else {}
        """Referee's label -> how many views it judges at a time: pinned, planned or halved. The others: `config.chunk`
        or, where that is null, all at once."""
        self.halved: list[dict[str, Any]] = []
        """What did not fit: step (None: between steps), label, and the chunk that it went on with."""

    def plan(self) -> None:
        """Finds how many views each referee judges at a time, where the config leaves that open.

        Each is shown a black view, and two where it is not plain from one that all fit, to see what a view adds to its
        graph; as many are judged at a time as fit into `memory.SHARE` of what the device has left.
        """
        if self.config.chunk is not None:
            return
        for use in self.referees:
            group, most = self.groups[use.term.views], 0
            for b in range(len(self.seeds)):
                most += (
                    (1 + len(use.phrases[b]) if use.phrases else 1) * group.config.count * self.config.candidates.count
                )
            if most > 1:
                free = memory.free_memory(self.device)
                with_weights = memory.graph_bytes(lambda use=use: self._shown(use, 1))  # type: ignore[misc]
                chunk = memory.chunk_that_fits(with_weights, free, most)
                if chunk < most:
                    each = memory.graph_bytes(lambda use=use: self._shown(use, 2)) - with_weights  # type: ignore[misc]
                    chunk = memory.chunk_that_fits(each, free, most)
                self.chunks[use.label] = chunk

    def _shown(self, use: RefereeUse, n: int) -> Tensor:
        """A referee's losses on n black views, with their graph."""
        dtype = torch.float64 if self.config.dtype == "float64" else torch.float32
        views = torch.zeros(n, 3, *use.referee.input_size, dtype=dtype, device=self.device, requires_grad=True)
        with _autocast(self.device, use.autocast):
            rows = torch.zeros(n, dtype=torch.int64, device=self.device)
            return use.referee.judge(views, use.conditioning, rows, use.term.wanted)

    def finish_reading(self) -> None:
        """Lets the plugins drop what only reads text. Their conditionings stay; no other prompt can be read afterwards."""
        for use in (*self.referees, *self.witnesses):
            use.referee.finish_reading()
        for prior in self.priors:
            prior.prior.finish_reading()

    def decode(self, params: CanvasParams) -> Tensor:
        """[B, 3, H, W] in [0, 1], in the dtype of the parameters."""
        with _autocast(self.device, _dtype(self.config.canvas.autocast)):
            image = self.canvas.decode(params)
        return image.to(next(iter(params.values())).dtype)

    def sample_of(self, candidate: int) -> int:
        """The sample, 0 .. B - 1, that a candidate belongs to; without candidates, itself."""
        return candidate // self.config.candidates.count

    def gradients(self, params: CanvasParams, candidates: Sequence[int], step: int) -> StepGradients:
        """The combined gradient of one step.

        Peak memory is the graph of the decoder plus that of the largest chunk of one term.

        Args:
            params: of the A candidates that take part, each tensor [A, ...].
            candidates: their places in `keys`, by which draws and prompts are found. Without candidates, those of the
                samples in the batch. For the rest of this class each of the A is a sample of its own.
            step: counted from 0.
        """
        steps = self.config.steps
        referees = [use for use in self.referees if use.term.weight_at(step, steps)]
        priors = [use for use in self.priors if use.term.weight_at(step, steps)]
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        result = StepGradients({})
        rows = _Rows(self.combiner.rows, leaves)
        seeds = [self.keys[c] for c in candidates]
        samples = [self.sample_of(c) for c in candidates]

        if referees or any(self._acts_on_image(use) for use in priors):
            with torch.enable_grad():
                image = self.decode(leaves)
            result.finite[CANVAS] = image.detach().isfinite().all()
            cut = image.detach().requires_grad_()
            views = _OpenViews(self.groups, cut, seeds, step)
            chosen = self._hardest(referees, views, samples, step)
            for use in referees:
                gradient, loss = self._judge(use, views.of(use), chosen[use.term.views], samples, step)
                gradient = gradient * use.term.weight_at(step, steps)
                if use.satisfied_at is not None:
                    gradient = gradient * self.unsatisfied(use, loss, samples).to(gradient).view(-1, 1, 1, 1)
                _record(result, use.label, gradient, loss)
                rows.add_at_image(use.label, "referees", gradient)
            for prior in priors:
                if self._acts_on_image(prior):
                    gradient, value = self._image_prior(prior, cut, samples, seeds, step)
                    _record(result, prior.label, gradient, value)
                    rows.add_at_image(prior.label, "priors", gradient)
            rows.reduce_at_image(lambda flat: self.combiner.at_image(flat, step, seeds))
            rows.pull_back(image, rescale=self.config.canvas.autocast == "float16" or self.config.dtype == "float16")

        for prior in priors:
            if not self._acts_on_image(prior):
                parts, value = self._params_prior(prior, leaves, samples, seeds, step)
                flat = rows.flatten(parts)
                _record(result, prior.label, flat, value)
                rows.add(prior.label, "priors", flat)

        combined = self.combiner.combine(rows.flat, step, seeds) if rows.flat else rows.zeros()
        result.combined = rows.unflatten(combined)
        return result

    @torch.no_grad()
    def losses(
        self, images: Tensor, candidates: Sequence[int], group: str = CLEAN, step: int = FIXED
    ) -> dict[str, Tensor]:
        """Label -> [A]: each referee's unweighted loss on views of a group, those of a step or the same at every call.

        The candidates of a sample (arguments as for `gradients`) are shown in the same views.
        """
        samples = [self.sample_of(c) for c in candidates]
        views = _OpenViews(self.groups, images, [self.seeds[b] for b in samples], step)
        found = {}
        for use in self.referees:
            opened = views.get(group, use.referee.input_size)
            everything = range(len(opened.sample))
            asked = _Asked(use, samples, images.device)
            found[use.label] = self._losses(use, opened, everything, asked, step).view(len(images), -1).mean(1)
        return found

    @torch.no_grad()
    def scores(self, images: Tensor, samples: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Label -> [A] float32: what each referee and witness says of the images, in its natural unit.

        A referee sees the whole image at its input size; a witness with `coarse` sees it shrunk to that first.
        """
        uses = (*self.referees, *self.witnesses)
        return {use.label: torch.cat(self.ask(use, images, _score, samples)) for use in uses}

    @torch.no_grad()
    def ask(
        self,
        use: Use,
        images: Tensor,
        question: Callable[[Any, Tensor, Conditioning], Answer],
        samples: Sequence[int] | None = None,
    ) -> list[Answer]:
        """`question(referee, seen, conditioning)`, chunk by chunk, of finished images [A, 3, H, W] as they are scored."""
        samples = list(range(len(images)) if samples is None else samples)
        size = self._chunk(use) or max(1, len(images))
        coarse = use.coarse if isinstance(use, WitnessUse) else None
        answers = []
        for first in range(0, len(images), size):
            part = images[first : first + size]
            seen = resize(part if coarse is None else coarsen(part, coarse), use.referee.input_size)
            conditioning = use.conditioning.take([use.rows[b] for b in samples[first : first + size]])
            with _autocast(self.device, use.autocast):
                answers.append(question(use.referee, seen, conditioning))
        return answers

    def learn(self, params: CanvasParams, candidates: Sequence[int], step: int) -> None:
        """Shows the priors that learn what a step has made; arguments as for `gradients`."""
        samples, keys = [self.sample_of(c) for c in candidates], [self.keys[c] for c in candidates]
        for use in self.priors:
            if not (use.prior.learns and use.term.weight_at(step, self.config.steps)):
                continue
            name = self.canvas.latent_name()
            with torch.no_grad(), _autocast(self.device, use.autocast):
                if use.prior.space == "params":
                    x: Any = params
                elif use.prior.space == "latent" and name is not None:
                    x = params[name]
                else:
                    image = self.decode(params)
                    x = use.prior.encode(image) if use.prior.space == "latent" else image
            rng = Rng(keys, step, f"prior/{use.label}/learn", device=self.device)
            with _autocast(self.device, use.autocast):
                use.prior.update(x, use.conditioning.take(samples), step, rng)

    def bounds(self, use: RefereeUse, samples: Sequence[int], like: Tensor) -> Tensor:
        """[A] the losses at which a referee that has `satisfied_at` is satisfied with some samples, as `like`."""
        assert use.satisfied_at is not None
        return torch.tensor([use.satisfied_at[b] for b in samples], dtype=like.dtype, device=like.device)

    def unsatisfied(self, use: RefereeUse, loss: Tensor, samples: Sequence[int]) -> Tensor:
        """[A] in 0 .. 1: the factor of a referee's gradient, by its losses [A]. 0 where it has had `satisfied_at`."""
        assert use.term.satisfied_at is not None
        above = loss - self.bounds(use, samples, loss)
        width = use.term.satisfied_at.width
        return (above / width).clamp(0, 1) if width else (above > 0).to(loss.dtype)

    @property
    def compared(self) -> list[tuple[RefereeUse, float]]:
        """The referees by which candidates are compared, those that ever take part, and their largest weights."""
        weights = [(use, use.term.largest_weight(self.config.steps)) for use in self.referees]
        return [(use, weight) for use, weight in weights if weight]

    def look(self, params: CanvasParams, candidates: Sequence[int]) -> Tensor:
        """[T, A] losses of the `compared` referees on the views that candidates are compared in."""
        with torch.no_grad():
            found = self.losses(self.decode(params), candidates, self.config.candidates.views)
        return torch.stack([found[use.label] for use, _ in self.compared])

    def ordered(
        self, losses: Tensor, candidates: Sequence[int], scale: Tensor | None = None
    ) -> tuple[list[list[int]], Tensor | None]:
        """The candidates of each sample by the `compared` referees, of which a satisfied one prefers none.

        Args:
            losses: [T, A] as `look` gives them; none counts as lower than its referee's `satisfied_at`.
            candidates: [A], as for `gradients`.
            scale: [T, B] of an earlier call, as in `refcore.engine.candidates.ordered`.

        Returns:
            [B] lists of columns of `losses`, best first, and the scales that they were compared on.
        """
        samples = [self.sample_of(c) for c in candidates]
        bounded = [
            row if use.satisfied_at is None else row.maximum(self.bounds(use, samples, row))
            for row, (use, _) in zip(losses, self.compared, strict=True)
        ]
        weights = torch.tensor([weight for _, weight in self.compared], device=self.device)
        columns: list[list[int]] = [[] for _ in self.config.samples]
        for column, sample in enumerate(samples):
            columns[sample].append(column)
        return ordered(torch.stack(bounded), weights, columns, self.config.candidates.by, scale)

    @torch.no_grad()
    def sample(
        self,
        settings: SampleStart,
        shape: Sequence[int],
        candidates: Sequence[int],
        around: Tensor | None = None,
        number: int = 0,
    ) -> Tensor:
        """[A, *shape] latents that a prior's own model makes of the prompts, each from noise of its own.

        Args:
            settings: of the sampler.
            shape: [C, h, w] of the latents.
            candidates: as for `gradients`.
            around: [A, *shape] latents to sample near, in round `number` of `settings.rounds`; None: from noise alone.
            number: of the round, counted from 1; 0 is none.

        Raises:
            RefcoreError: the canvas has no latents, or no prior (or not the named one) can be sampled.
        """
        if self.canvas.latent_name() is None:
            raise RefcoreError(
                f'init is a sample, but canvas "{self.canvas.name}" has no latents; use the latent canvas with the '
                "prior's model, or start from noise or an image"
            )
        uses = [use for use in self.priors if settings.prior in (None, use.label)]
        able = [use for use in uses if use.prior.can_sample]
        if not able:
            if settings.prior is None:
                raise RefcoreError("init is a sample, but no prior of this run can be sampled; add a prior such as sds")
            raise RefcoreError(f'init is a sample of prior "{settings.prior}", which cannot be sampled; name another')
        use, samples = able[0], [self.sample_of(c) for c in candidates]
        keys = [f"{self.keys[c]}/{self.config.samples[b][0]}" for c, b in zip(candidates, samples, strict=True)]
        conditioning = use.conditioning.take(samples)
        rng = Rng(keys, number, "init/sample", device=self.device)
        strength = settings.rounds[number - 1][1] if number else 1.0
        with _autocast(self.device, use.autocast):
            return use.prior.sample(shape, conditioning, rng, settings.steps, settings.guidance, around, strength)

    def _judge(
        self, use: RefereeUse, views: Views, index: Sequence[int], samples: Sequence[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """The gradient at the image of sum over samples of mean over views, [A, 3, H, W], and the means, [A]."""
        per_sample = len(index) // len(samples)
        asked = _Asked(use, samples, self.device)
        scale = (HALF_SCALE if _is_half(use) else 1.0) / per_sample

        def judged() -> tuple[Tensor, Tensor]:
            total = torch.zeros_like(views.source)
            parts = []
            for chunk in self._chunks(index, views, asked):
                with torch.enable_grad():
                    loss = self._loss(use, views, chunk, asked)
                    (gradient,) = torch.autograd.grad((loss * scale).sum(), views.source)
                total += gradient
                parts.append(loss.detach())
                del loss, gradient  # and the graph, before the next is built
            return total, torch.cat(parts)

        total, losses = self._fitting(use, len(index), judged, step)
        if _is_half(use):
            total /= HALF_SCALE
        return views.pull_back(total), losses.view(len(samples), per_sample).mean(1)

    def _losses(self, use: RefereeUse, views: Views, index: Sequence[int], asked: _Asked, step: int) -> Tensor:
        """[n] losses of the views `index`, chunk by chunk, without gradient."""
        return self._fitting(
            use,
            len(index),
            lambda: torch.cat([self._loss(use, views, chunk, asked) for chunk in self._chunks(index, views, asked)]),
            step,
        )

    def _fitting(self, use: RefereeUse, n: int, work: Callable[[], Any], step: int) -> Any:
        """`work`, which judges n views in chunks; while it does not fit, from its start again in smaller ones.

        Nothing of a step is lost: all that is random in it is keyed, so the views are the same again.

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
            chunk = min(n, self._chunk(use) or n) // 2
            if not chunk:
                raise RefcoreError(
                    f'"{use.label}" runs out of memory on {self.device} with a single view ({said}); give it dtype: '
                    "bfloat16, make the image smaller, or give the latent canvas recompute: blocks"
                )
            self.chunks[use.label] = chunk
            self.halved.append({"step": None if step == FIXED else step, "label": use.label, "chunk": chunk})
            memory.release(self.device)

    def _chunk(self, use: Use) -> int | None:
        """How many judgements a referee makes at a time; None: all."""
        return self.chunks.get(use.label, self.config.chunk if isinstance(self.config.chunk, int) else None)

    def _hardest(
        self, referees: Sequence[RefereeUse], views: _OpenViews, samples: Sequence[int], step: int
    ) -> dict[str, Sequence[int]]:
        """Group -> the views that get gradients: all, or each sample's hardest by the weighted losses of its terms.

        Which are hardest is read back from the device, since what is random in them is drawn on the host.
        """
        chosen: dict[str, Sequence[int]] = {}
        for name in dict.fromkeys(use.term.views for use in referees):
            group, n = self.groups[name], len(samples)
            everything = range(n * group.config.count)
            if group.used == group.config.count:
                chosen[name] = everything
                continue
            ranking = torch.zeros(
                n, group.config.count, dtype=torch.float64 if _doubles(views) else None, device=self.device
            )
            with torch.no_grad():
                for use in referees:
                    if use.term.views == name:
                        asked, opened = _Asked(use, samples, self.device), views.of(use)
                        losses = self._losses(use, opened, everything, asked, step)
                        ranking += use.term.weight_at(step, self.config.steps) * losses.view(n, -1)
            hardest = ranking.topk(group.used, dim=1).indices.sort(dim=1).values.tolist()
            chosen[name] = [a * group.config.count + view for a, own in enumerate(hardest) for view in own]
        return chosen

    def _loss(self, use: RefereeUse, views: Views, index: Sequence[int], asked: _Asked) -> Tensor:
        """[n] losses of the views `index`, of the whole prompts and of their parts.

        With parts, the referee is shown each view once for every question about it.
        """
        made, sample = views.make(index), views.sample_of(index)
        questions = asked.counts.index_select(0, sample)
        if asked.phrases is not None:
            made = made.repeat_interleave(questions, 0)
        with _autocast(self.device, use.autocast):
            loss = use.referee.judge(made, use.conditioning, asked.of(sample), use.term.wanted)
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
        return loss if asked.phrases is None else asked.reduced(loss, questions)

    def _image_prior(
        self, use: PriorUse, cut: Tensor, samples: Sequence[int], seeds: Sequence[Key], step: int
    ) -> tuple[Tensor, Tensor | None]:
        """The weighted gradient at the image, of an image prior or of a latent prior through its own encoder."""
        x = cut
        if use.prior.space == "latent":
            with torch.enable_grad(), _autocast(self.device, use.autocast):
                x = use.prior.encode(cut)
        gradient, value = self._ask(use, x.detach(), samples, seeds, step)
        if x is not cut:
            (gradient,) = torch.autograd.grad(x, cut, gradient.to(x.dtype))
        return gradient.to(cut.dtype) * use.term.weight_at(step, self.config.steps), value

    def _params_prior(
        self, use: PriorUse, leaves: CanvasParams, samples: Sequence[int], seeds: Sequence[Key], step: int
    ) -> tuple[CanvasParams, Tensor | None]:
        """The weighted gradient at the parameters, of a latent prior or one on all parameters."""
        detached = {name: value.detach() for name, value in leaves.items()}
        weight = use.term.weight_at(step, self.config.steps)
        if use.prior.space == "params":
            gradients, value = self._ask(use, detached, samples, seeds, step)
            return {name: gradient * weight for name, gradient in gradients.items()}, value
        name = self.canvas.latent_name()
        assert name is not None
        gradient, value = self._ask(use, detached[name], samples, seeds, step)
        return {name: gradient * weight}, value

    def _ask(self, use: PriorUse, x: Any, samples: Sequence[int], seeds: Sequence[Key], step: int) -> tuple[Any, Any]:
        rng = Rng(seeds, step, f"prior/{use.label}", device=self.device)
        conditioning = (
            use.conditioning if list(samples) == list(range(len(self.seeds))) else use.conditioning.take(samples)
        )
        with _autocast(self.device, use.autocast):
            return use.prior.gradient(x, conditioning, step, rng)

    def _acts_on_image(self, use: PriorUse) -> bool:
        return use.prior.space == "image" or (use.prior.space == "latent" and self.canvas.latent_name() is None)

    def _chunks(self, index: Sequence[int], views: Views, asked: _Asked) -> list[Sequence[int]]:
        """`index` in chunks of so many judgements as are made at a time; a view's questions are never torn apart."""
        chunk = self._chunk(asked.use)
        if chunk is None:
            return [index]
        first, room, chunks = 0, chunk, []
        for place, view in enumerate(index):
            questions = asked.each[view // views.config.count]
            if questions > room and place > first:
                chunks.append(index[first:place])
                first, room = place, chunk
            room -= questions
        return [*chunks, index[first:]]


class _Asked:
    """What a referee is asked about views of A samples: rows of its conditioning, the whole prompt's before the parts'."""

    def __init__(self, use: RefereeUse, samples: Sequence[int], device: torch.device) -> None:
        self.use = use
        self.phrases: JudgedPhrases | None = use.term.phrases if use.phrases is not None else None
        rows = [(use.rows[b],) for b in samples]
        if self.phrases is not None and use.phrases is not None:
            rows = [
                (*(row if self.phrases.whole else ()), *use.phrases[b]) for row, b in zip(rows, samples, strict=True)
            ]
        self.each = [len(row) for row in rows]
        """[A] how many questions are asked about a view of each sample."""
        self.counts = torch.tensor(self.each, device=device)
        longest = max(self.each, default=0)
        self._table = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)

    def of(self, sample: Tensor) -> Tensor:
        """[m] the questions about views of the samples `sample` [n], view by view."""
        asked = self._table.index_select(0, sample)
        if self.phrases is None:
            return asked[:, 0]
        return asked[self._there(self.counts.index_select(0, sample))]

    def reduced(self, losses: Tensor, questions: Tensor) -> Tensor:
        """[n] from the losses [m] of n views: whole * loss(prompt) + weight * reduce(losses of its parts)."""
        assert self.phrases is not None
        there = self._there(questions)
        table = losses.new_zeros(there.shape).masked_scatter(there, losses)
        whole = self.phrases.whole * table[:, 0] if self.phrases.whole else 0.0
        first = 1 if self.phrases.whole else 0
        table, there, count = table[:, first:], there[:, first:], questions - first
        if self.phrases.reduce == "max":
            return whole + self.phrases.weight * table.masked_fill(~there, -torch.inf).max(1).values
        return whole + self.phrases.weight * table.sum(1) / count

    def _there(self, counts: Tensor) -> Tensor:
        """[n, longest] bool: which places of a table have a question."""
        return torch.arange(self._table.shape[1], device=counts.device) < counts[:, None]


class _OpenViews:
    """This step's views, opened once a group and input size."""

    def __init__(self, groups: Mapping[str, Group], image: Tensor, seeds: Sequence[Key], step: int) -> None:
        self.groups, self.image, self.seeds, self.step = groups, image, seeds, step
        self._opened: dict[tuple[str, tuple[int, int]], Views] = {}

    def of(self, use: RefereeUse) -> Views:
        return self.get(use.term.views, use.referee.input_size)

    def get(self, group: str, size: tuple[int, int]) -> Views:
        if (group, size) not in self._opened:
            with torch.set_grad_enabled(self.image.requires_grad):
                self._opened[group, size] = self.groups[group].open(self.image, size, self.seeds, self.step)
        return self._opened[group, size]


class _Rows:
    """Gradients on their way to the combiner: summed by what it tells apart, first at the image, then flat [A, D]."""

    def __init__(self, told_apart: str, leaves: CanvasParams) -> None:
        self.told_apart = told_apart
        self.leaves = leaves
        self.at_image: dict[str, Tensor] = {}
        self.flat: dict[str, Tensor] = {}

    def add_at_image(self, label: str, side: str, gradient: Tensor) -> None:
        key = self._key(label, side)
        self.at_image[key] = self.at_image[key] + gradient if key in self.at_image else gradient

    def add(self, label: str, side: str, flat: Tensor) -> None:
        key = self._key(label, side)
        self.flat[key] = self.flat[key] + flat if key in self.flat else flat

    def reduce_at_image(self, reduce: Callable[[Rows], Rows]) -> None:
        """Lets the combiner decide which rows are pulled back; it sees them flat, [A, 3 H W]."""
        shapes = [gradient.shape for gradient in self.at_image.values()]
        reduced = reduce({key: gradient.flatten(1) for key, gradient in self.at_image.items()})
        self.at_image = {key: flat.view(shapes[0]) for key, flat in reduced.items()}

    def pull_back(self, image: Tensor, rescale: bool) -> None:
        """One backward through the canvas for each row. `rescale` brings every sample's gradient to magnitude 1 on the
        way, which float16 needs and which changes nothing else, the pull-back being linear."""
        waiting = list(self.at_image)
        for key in waiting:
            gradient = self.at_image.pop(key)
            if rescale:
                largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
                gradient = gradient / largest.view(-1, 1, 1, 1)
            pulled = torch.autograd.grad(
                image, list(self.leaves.values()), gradient, retain_graph=key != waiting[-1], allow_unused=True
            )
            flat = self.flatten({name: g for name, g in zip(self.leaves, pulled, strict=True) if g is not None})
            self.flat[key] = flat * largest[:, None] if rescale else flat

    def flatten(self, parts: CanvasParams) -> Tensor:
        """[A, D] of tensors by name; those that are missing are 0."""
        return torch.cat(
            [
                (parts[name].to(leaf.dtype) if name in parts else torch.zeros_like(leaf)).flatten(1)
                for name, leaf in self.leaves.items()
            ],
            dim=1,
        )

    def unflatten(self, flat: Tensor) -> CanvasParams:
        parts = flat.split([leaf[0].numel() for leaf in self.leaves.values()], dim=1)
        return {name: part.view_as(leaf) for (name, leaf), part in zip(self.leaves.items(), parts, strict=True)}

    def zeros(self) -> Tensor:
        return self.flatten({})

    def _key(self, label: str, side: str) -> str:
        return {"all": "all", "sides": side, "terms": label}[self.told_apart]


def _score(referee: Referee, seen: Tensor, conditioning: Conditioning) -> Tensor:
    return referee.score(seen, conditioning).float()


def _record(result: StepGradients, label: str, gradient: Tensor, loss: Tensor | None) -> None:
    norm = gradient.flatten(1).norm(dim=1)
    result.norms[label] = norm
    result.finite[label] = norm.isfinite().all()
    if loss is not None:
        result.losses[label] = loss
        result.finite[label] = result.finite[label] & loss.isfinite().all()


def _is_half(use: RefereeUse) -> bool:
    return torch.float16 in (use.autocast, use.referee.dtype)


def _doubles(views: _OpenViews) -> bool:
    return views.image.dtype == torch.float64


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
