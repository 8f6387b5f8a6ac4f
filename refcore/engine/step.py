"""One step of an inversion: decode once, judge views term by term and chunk by chunk, pull back once, combine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from refcore.config.run import RunConfig
from refcore.config.start import ImageStart, SampleStart
from refcore.config.terms import PriorTerm
from refcore.config.views import CLEAN
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.engine import checks, fitting
from refcore.engine.angles import pulled_back
from refcore.engine.candidates import ordered
from refcore.engine.combine import Combiner, Rows
from refcore.engine.gradients import GradientRows, StepGradients
from refcore.engine.offload import resident
from refcore.engine.panel import LoadedTerm, Panel
from refcore.engine.precision import autocast, dtype_of
from refcore.engine.transforms import Transforms
from refcore.errors import CANVAS, PARAMETERS, RefcoreError
from refcore.moment import Moment
from refcore.rng import Key, Rng, candidate_key

IMAGE = "image"
"""The space of gradients at the decoded image, as `PARAMETERS` is that of the others."""


@dataclass(frozen=True, kw_only=True)
class LoadedPrior:
    """A prior with the prompts that it has read; row b of `conditioning` belongs to sample b."""

    label: str
    term: PriorTerm
    prior: Prior
    conditioning: Conditioning
    autocast: torch.dtype | None = None
    device: torch.device
    """Where it is evaluated. What it returns comes back to the run's device."""


class Engine:
    """The loaded models of a run, and the gradient of a step. Only what priors learn changes in it, and weights.

    A track is a row of parameters on its way to a sample's image; `keys` has all tracks, samples outermost, and a
    track's number is its place there. Without candidates, track b is that of sample b.
    """

    def __init__(
        self,
        config: RunConfig,
        canvas: Canvas,
        combiner: Combiner,
        panel: Panel,
        priors: Sequence[LoadedPrior] = (),
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
        transforms: Transforms | None = None,
        prompts: Conditioning | None = None,
    ) -> None:
        self.config = config
        self._prompts = prompts
        """What the canvas has read of the prompts, row b for sample b; None where it reads none."""
        self.transforms = transforms if transforms is not None else Transforms()
        self.canvas = canvas
        self.combiner = combiner
        self.panel = panel
        self.priors = tuple(priors)
        self.device = panel.device
        self.warnings = tuple(warnings)
        """Prompt text truncated by a model's context limit."""
        self.notes = tuple(notes)
        """Remarks on how referees and priors understood the prompts, where that is not plain."""
        self.keys: tuple[Key, ...] = tuple(
            candidate_key(seed, candidate) for seed in panel.seeds for candidate in range(config.candidates.most)
        )
        """[B * candidates of all tries] key of each track's draws."""

    def reweigh(self, config: RunConfig, combiner: Combiner) -> None:
        """Takes the weights of a config that differs from the present one in nothing else, and its combiner."""
        self.config, self.combiner = config, combiner
        own = self.panel.referees
        self.panel.referees = tuple(replace(one, term=term) for one, term in zip(own, config.referees, strict=True))
        self.priors = tuple(replace(one, term=term) for one, term in zip(self.priors, config.priors, strict=True))

    def plan(self) -> None:
        """Sets how many views each referee judges at a time, where the config leaves that open."""
        with fitting.named(self.config, self.device, self.canvas.size):
            self.panel.plan(self.config.candidates.count)

    def finish_reading(self) -> None:
        """Lets the plugins drop what only reads text, where no later run may use it."""
        self.panel.finish_reading()
        self.panel.finish(self.canvas, CANVAS)
        for loaded in self.priors:
            self.panel.finish(loaded.prior, loaded.label)

    @property
    def end(self) -> Moment:
        """The moment of finished pictures."""
        return Moment.end(self.config.steps)

    def decode(self, params: CanvasParams, at: Moment, tracks: Sequence[int] | None = None) -> Tensor:
        """[A, 3, H, W] in [0, 1], in the dtype of the parameters.

        Args:
            params: of A tracks, each tensor [A, ...].
            at: the step, or the `end` for finished pictures.
            tracks: [A] their numbers; None: those of every sample's first try.
        """
        conditioning, rng = self._prompts, None
        if conditioning is not None:
            tracks = self.first_tracks(range(len(self.config.samples))) if tracks is None else tracks
            conditioning = conditioning.take(self._samples(tracks))
            rng = Rng([self.keys[track] for track in tracks], 0, CANVAS, device=self.device)
        with autocast(self.device, dtype_of(self.config.canvas.autocast)):
            image = checks.decode(self.canvas, params, at, conditioning, rng)
        return image.to(next(iter(params.values())).dtype)

    def dtype_name(self, label: str) -> str:
        """Name of the dtype that a term, the canvas or the parameters have: its autocast's, or that of its weights."""
        run, canvas = self.config.dtype, self.config.canvas
        if label == CANVAS:
            return str(canvas.autocast or getattr(self.canvas.config, "dtype", None) or run)
        if label == PARAMETERS:
            return "float64" if run == "float64" else "float32"
        terms: list[LoadedTerm | LoadedPrior] = [*self.panel.referees, *self.priors]
        loaded = next(loaded for loaded in terms if loaded.label == label)
        return str(loaded.autocast or loaded.term.dtype or run).removeprefix("torch.")

    def first_tracks(self, samples: Sequence[int], attempt: int = 0) -> list[int]:
        """Numbers of the tracks with which some samples begin a try, counted from 0; samples outermost."""
        count, most = self.config.candidates.count, self.config.candidates.most
        return [b * most + attempt * count + candidate for b in samples for candidate in range(count)]

    def sample_of(self, track: int) -> int:
        """The sample, 0 .. B - 1, of a track."""
        return track // self.config.candidates.most

    def gradients(self, params: CanvasParams, tracks: Sequence[int], step: int) -> StepGradients:
        """The combined gradient of one step.

        Peak memory is the graph of the decoder plus that of the largest chunk of one term.

        Args:
            params: of the A tracks that take part, each tensor [A, ...].
            tracks: [A] their numbers, by which draws and prompts are found.
            step: counted from 0.
        """
        at = Moment(step, self.config.steps)
        judged = any(judge.term.weight_at(at.step, at.steps) for judge in self.panel.referees)
        priors = [loaded for loaded in self.priors if loaded.term.weight_at(at.step, at.steps)]
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        result = StepGradients({})
        by_term = self.transforms.on("terms")
        rows = GradientRows("terms" if by_term else self.combiner.granularity, leaves)
        keys = [self.keys[track] for track in tracks]
        if judged or any(self._acts_on_image(loaded) for loaded in priors):
            self._at_image(result, rows, priors, tracks, at)
        for loaded in priors:
            if not self._acts_on_image(loaded):
                parts, value = self._params_prior(loaded, leaves, tracks, at)
                flat = rows.flatten(parts)
                result.record(loaded.label, flat, value)
                result.angles.add(PARAMETERS, loaded.label, flat)
                rows.add(loaded.label, "priors", flat)
        before = {name: value.detach() for name, value in params.items()}
        terms: Rows = rows.flat
        if by_term:
            rows.change(lambda x: self.transforms.apply("terms", x, before, at))
            terms = rows.grouped(self.combiner.granularity, [judge.label for judge in self.panel.referees])
        combined = self.combiner.combine(terms, step, keys) if terms else rows.zeros()
        result.combined = self.transforms.apply("gradient", rows.unflatten(combined), before, at)
        return result

    def total(self, found: StepGradients, step: int) -> Tensor:
        """[A] float64, on the CPU, the weighted sum of a step's losses, of which `found.combined` is the gradient.

        Raises:
            RefcoreError: a prior that takes part has no value.
        """
        weights = {label: term.weight_at(step, self.config.steps) for label, term in self.config.terms.items()}
        total = torch.zeros(len(next(iter(found.combined.values()))), dtype=torch.float64)
        for label in found.norms:
            if label not in found.losses:
                raise RefcoreError(
                    f'optimizer.name is lbfgs, but the prior "{label}" has a gradient without a value, as score '
                    f'distillation has, and no line search can go by it; leave "{label}" out, or use another optimizer '
                    "such as adam"
                )
            total = total + weights[label] * found.losses[label].cpu().double()
        return total

    def views(self, images: Tensor, tracks: Sequence[int], step: int, most: int) -> dict[tuple[str, ...], Tensor]:
        """Labels of referees -> [A, n, 3, h, w], the views of some pictures that a step shows to them.

        Draws are keyed, so these are the views of the step itself, and nothing is changed by making them again.

        Args:
            images: [A, 3, H, W] as the step has decoded them.
            tracks: [A] their numbers.
            step: counted from 0.
            most: views of each track that are made, at most.
        """
        at = Moment(step, self.config.steps)
        return self.panel.shown(images, [self.keys[track] for track in tracks], at, most)

    def learn(self, params: CanvasParams, tracks: Sequence[int], step: int) -> None:
        """Shows the priors that learn what a step has made, as that step sees it; arguments as for `gradients`."""
        at = Moment(step, self.config.steps)
        samples, keys = self._samples(tracks), [self.keys[track] for track in tracks]
        for loaded in self.priors:
            if not (loaded.prior.learns and loaded.term.weight_at(step, self.config.steps)):
                continue
            name = self.canvas.latent_name()
            with torch.no_grad(), autocast(self.device, loaded.autocast):
                if loaded.prior.space == "params":
                    x: Any = {key: value.to(loaded.device) for key, value in params.items()}
                elif loaded.prior.space == "latent" and name is not None:
                    x = params[name].to(loaded.device)
                else:
                    x = self.decode(params, at, tracks).to(loaded.device)
            rng = Rng(keys, step, f"prior/{loaded.label}/learn", device=loaded.device)
            with resident(loaded.prior), autocast(loaded.device, loaded.autocast):
                if self._encodes(loaded):
                    with torch.no_grad():
                        x = checks.encode(loaded.prior, x, loaded.label)
                checks.update(loaded.prior, x, loaded.conditioning.take(samples), at, rng, loaded.label)

    @property
    def compared(self) -> list[tuple[LoadedTerm, float]]:
        """The referees by which candidates are compared, those that ever take part, and their largest weights."""
        weights = [(judge, judge.term.largest_weight(self.config.steps)) for judge in self.panel.referees]
        return [(judge, weight) for judge, weight in weights if weight]

    def losses(
        self, images: Tensor, tracks: Sequence[int], group: str = CLEAN, at: Moment | None = None
    ) -> dict[str, Tensor]:
        """Label -> [A] unweighted loss of each referee for images of some tracks; otherwise as `Panel.losses`."""
        return self.panel.losses(images, self._samples(tracks), group, at)

    def look(self, params: CanvasParams, tracks: Sequence[int]) -> Tensor:
        """[T, A] losses of the `compared` referees on finished pictures, in the views that compare candidates."""
        with torch.no_grad():
            found = self.losses(self.decode(params, self.end, tracks), tracks, self.config.candidates.views)
        return torch.stack([found[judge.label] for judge, _ in self.compared])

    def ordered(
        self, losses: Tensor, tracks: Sequence[int], scale: Tensor | None = None
    ) -> tuple[list[list[int]], Tensor | None]:
        """The candidates of each sample by the `compared` referees; a satisfied referee prefers none.

        Args:
            losses: [T, A] as `look` gives them; none counts as lower than its referee's `satisfied_at`.
            tracks: [A] their numbers.
            scale: [T, B] of an earlier call, as in `refcore.engine.candidates.ordered`.

        Returns:
            [B] lists of columns of `losses`, best first, and the scales that they were compared on.
        """
        samples = self._samples(tracks)
        bounded = [
            row if judge.satisfied_at is None else row.maximum(judge.satisfaction(samples, row))
            for row, (judge, _) in zip(losses, self.compared, strict=True)
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
        tracks: Sequence[int],
        around: Tensor | None = None,
        number: int = 0,
    ) -> Tensor:
        """[A, *shape] latents that a prior's own model makes of the prompts, each from noise of its own.

        Args:
            settings: of the sampler.
            shape: [C, h, w] of the latents.
            tracks: [A] their numbers.
            around: [A, *shape] latents to sample near, in round `number` of `settings.rounds`; None: from noise alone.
            number: of the round, counted from 1; 0 is none.

        Raises:
            RefcoreError: the canvas has no latents, or no prior (or not the named one) can be sampled.
        """
        loaded, samples = self._sampled_prior(settings), self._samples(tracks)
        keys = [f"{self.keys[c]}/{self.config.samples[b][0]}" for c, b in zip(tracks, samples, strict=True)]
        rng = Rng(keys, number, "init/sample", device=loaded.device)
        strength = settings.rounds[number - 1][1] if number else 1.0
        near = None if around is None else around.to(loaded.device)
        options, conditioning = (settings.steps, settings.guidance, near, strength), loaded.conditioning.take(samples)
        with resident(loaded.prior), autocast(loaded.device, loaded.autocast):
            return checks.sample(loaded.prior, shape, conditioning, rng, options, loaded.label).to(self.device)

    @torch.no_grad()
    def noised(self, settings: ImageStart, params: CanvasParams, tracks: Sequence[int]) -> Tensor | None:
        """[N, C, h, w] the latents of N tracks with the noise of a prior's model, at the strength of `settings`.

        Returns:
            None where the canvas has no latents or, unless one is named, no prior can be sampled.

        Raises:
            RefcoreError: the named prior cannot be sampled, or the canvas has no latents for it.
        """
        assert settings.strength is not None, "without a strength there is no noise"
        loaded, name = self._able(settings), self.canvas.latent_name()
        if name is None and settings.prior is not None:
            raise RefcoreError(
                f'init.prior is "{settings.prior}", but canvas "{self.canvas.name}" has no latents for its noise; '
                "leave init.prior out"
            )
        if loaded is None or name is None:
            return None
        rng = Rng([self.keys[track] for track in tracks], 0, "init/noise", device=loaded.device)
        latents = params[name].to(loaded.device)
        with resident(loaded.prior):
            return loaded.prior.noise_to(latents, rng, settings.steps, settings.strength).to(self.device)

    def _sampled_prior(self, settings: SampleStart) -> LoadedPrior:
        """The prior whose model makes the start."""
        if self.canvas.latent_name() is None:
            raise RefcoreError(
                f'init is a sample, but canvas "{self.canvas.name}" has no latents; use the latent canvas with the '
                "prior's model, or start from noise or an image"
            )
        loaded = self._able(settings)
        if loaded is None:
            raise RefcoreError("init is a sample, but no prior of this run can be sampled; add a prior such as sds")
        return loaded

    def _able(self, settings: SampleStart | ImageStart) -> LoadedPrior | None:
        """The prior that a start names, or the first one that can be sampled; None without any."""
        named = [loaded for loaded in self.priors if settings.prior in (None, loaded.label)]
        able = [loaded for loaded in named if loaded.prior.can_sample]
        if not able and settings.prior is not None:
            raise RefcoreError(f'init is by prior "{settings.prior}", which cannot be sampled; name another')
        return able[0] if able else None

    def _at_image(
        self,
        result: StepGradients,
        rows: GradientRows,
        priors: Sequence[LoadedPrior],
        tracks: Sequence[int],
        at: Moment,
    ) -> None:
        """The terms that act on the decoded image: judged, recorded, reduced by the combiner, and pulled back once."""
        keys = [self.keys[track] for track in tracks]
        with torch.enable_grad():
            image = self.decode(rows.leaves, at, tracks)
        result.image = image.detach()
        result.finite[CANVAS] = result.image.isfinite().all()
        leaf = image.detach().requires_grad_()
        for judge, gradient, loss in self.panel.gradients(leaf, keys, self._samples(tracks), at):
            result.record(judge.label, gradient, loss)
            result.angles.add(IMAGE, judge.label, gradient)
            rows.add_at_image(judge.label, "referees", gradient)
        for loaded in priors:
            if self._acts_on_image(loaded):
                gradient, value = self._image_prior(loaded, leaf, tracks, at)
                result.record(loaded.label, gradient, value)
                result.angles.add(IMAGE, loaded.label, gradient)
                rows.add_at_image(loaded.label, "priors", gradient)
        rows.reduce_at_image(lambda flat: self.combiner.at_image(flat, at.step, keys))
        rescale = self.config.canvas.autocast == "float16" or self.config.dtype == "float16"
        with checks.backward(self.canvas, "decode") as call:
            rows.pull_back(image, rescale, call.refuse)
        if any(not self._acts_on_image(loaded) for loaded in priors):
            referees = [judge.label for judge in self.panel.referees]
            result.angles.know(PARAMETERS, pulled_back(rows.flat, list(result.norms), referees))

    def _image_prior(
        self, loaded: LoadedPrior, image: Tensor, tracks: Sequence[int], at: Moment
    ) -> tuple[Tensor, Tensor | None]:
        """The weighted gradient at the image, of an image prior or of a latent prior through its own encoder."""
        x = image
        with resident(loaded.prior):
            if loaded.prior.space == "latent":
                with torch.enable_grad(), autocast(loaded.device, loaded.autocast):
                    x = checks.encode(loaded.prior, image.to(loaded.device), loaded.label)
            gradient, value = self._gradient(loaded, x.detach(), tracks, at)
            if x is not image:
                upstream = gradient.to(x)
                gradient = checks.gradient_of(loaded.prior, "encode", x, image, loaded.label, grad_outputs=upstream)
        return gradient.to(image.dtype) * loaded.term.weight_at(at.step, at.steps), value

    def _params_prior(
        self, loaded: LoadedPrior, leaves: CanvasParams, tracks: Sequence[int], at: Moment
    ) -> tuple[CanvasParams, Tensor | None]:
        """The weighted gradient at the parameters, of a latent prior or one on all parameters."""
        detached = {name: value.detach() for name, value in leaves.items()}
        weight = loaded.term.weight_at(at.step, at.steps)
        if loaded.prior.space == "params":
            gradients, value = self._gradient(loaded, detached, tracks, at)
            return {name: gradient * weight for name, gradient in gradients.items()}, value
        name = self.canvas.latent_name()
        assert name is not None
        gradient, value = self._gradient(loaded, detached[name], tracks, at)
        return {name: gradient * weight}, value

    def _gradient(self, loaded: LoadedPrior, x: Any, tracks: Sequence[int], at: Moment) -> tuple[Any, Any]:
        """A prior's own gradient and value, on the run's device."""
        device = loaded.device
        rng = Rng([self.keys[track] for track in tracks], at.step, f"prior/{loaded.label}", device=device)
        samples, everyone = self._samples(tracks), list(range(len(self.config.samples)))
        conditioning = loaded.conditioning if samples == everyone else loaded.conditioning.take(samples)
        given = {name: one.to(device) for name, one in x.items()} if isinstance(x, dict) else x.to(device)
        with resident(loaded.prior), autocast(device, loaded.autocast):
            found, value = checks.gradient(loaded.prior, given, conditioning, at, rng, loaded.label)
        value = None if value is None else value.to(self.device)
        if isinstance(found, dict):
            return {name: one.to(self.device) for name, one in found.items()}, value
        return found.to(self.device), value

    def _acts_on_image(self, loaded: LoadedPrior) -> bool:
        return loaded.prior.space == "image" or self._encodes(loaded)

    def _encodes(self, loaded: LoadedPrior) -> bool:
        """Whether a prior on latents makes them itself, since the canvas has none."""
        return loaded.prior.space == "latent" and self.canvas.latent_name() is None

    def _samples(self, tracks: Sequence[int]) -> list[int]:
        """[A] sample of each track."""
        return [self.sample_of(track) for track in tracks]
