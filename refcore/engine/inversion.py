"""The loop of an inversion, as an iterator: step, update, look, drop; saved and resumed between steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refcore import images as files
from refcore import show
from refcore.config.run import RunConfig
from refcore.config.views import CLEAN
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.engine import checks, fitting
from refcore.engine.build import build, combiner, local_checkpoints
from refcore.engine.lbfgs import Evaluated
from refcore.engine.models import Models, shareable
from refcore.engine.recorded import differing, recorded, refuse_foreign
from refcore.engine.start import Search, start
from refcore.engine.step import Engine
from refcore.engine.tracks import Candidate, Snapshot, Tracks, named
from refcore.engine.views import coarsen
from refcore.errors import PARAMETERS, NonFiniteError, RefcoreError
from refcore.moment import Moment

Which = Literal["current", "ema", "best"]
State = dict[str, Any]
"""All that a resumed run needs: `tensors` (flat, name -> tensor) and `meta` (plain values for JSON)."""
SHOWN = 8
"""Samples of which a running inversion shows pictures in a notebook."""


@dataclass(frozen=True, repr=False)
class StepResult:
    """Outcome of one step. Tensors are [R] on the run's device, one number for each of `candidates`.

    Without candidates R is B, and row b is sample b. Tracks that did not take part have NaN.
    """

    step: int
    """Counted from 0, through all tries."""
    losses: dict[str, Tensor]
    """Label -> unweighted loss of a referee, or the value of a prior that has one."""
    norms: dict[str, Tensor]
    """Label -> norm of the weighted gradient where the term acts: at the image, the latent or the parameters."""
    angles: dict[tuple[str, str], Tensor]
    """(label, label) -> degrees between two terms' gradients, 0 .. 180; see `refcore.engine.angles`. NaN where one of
    them is 0. Terms at the image and terms at the parameters are not compared one by one, but with the sum of the
    others where the combiner pulls back only that: `<referees>`, `<priors>` or `<image>`."""
    weights: dict[str, float]
    """Label -> weight of a referee or prior in this step; 0 outside its window."""
    active: tuple[bool, ...]
    """[R] whether each track took part."""
    candidates: tuple[Candidate, ...]
    """[R] candidates that were alive, samples outermost."""
    lr: float | dict[str, float]
    """The learning rate; where the config gives several, that of each entry of `optimizer.lr`."""
    seconds: float
    """Wall-clock time of the step; the first one is usually slower."""

    def __repr__(self) -> str:
        """The step in a line, with each loss as the mean over the tracks that took part. Waits for the device."""
        taking = torch.tensor(self.active)
        means = [f"{label} {loss.float().cpu()[taking].mean():.3f}" for label, loss in self.losses.items()]
        return ", ".join([f"step {self.step}", *means, f"{sum(self.active)} of {len(self.active)} tracks active"])

    def record(self) -> dict[str, Any]:
        """The step as plain numbers and lists, for a JSON line. Waits for the device, once."""
        every = [*self.losses.values(), *self.norms.values(), *self.angles.values()]
        numbers = torch.stack([column.float() for column in every]).tolist() if every else []
        first = len(self.losses) + len(self.norms)
        angles: dict[str, dict[str, list[float]]] = {}
        for (label, other), column in zip(self.angles, numbers[first:], strict=True):
            angles.setdefault(label, {})[other] = column
        return {
            "step": self.step,
            "losses": dict(zip(self.losses, numbers, strict=False)),
            "norms": dict(zip(self.norms, numbers[len(self.losses) : first], strict=True)),
            "angles": angles,
            "weights": dict(self.weights),
            "active": list(self.active),
            "candidates": [list(candidate) for candidate in self.candidates],
            "lr": self.lr,
            "seconds": self.seconds,
        }


class Glimpse(NamedTuple):
    """Pictures of a run on its way, of some samples."""

    images: Tensor
    """[b, 3, H, W] in [0, 1], on the run's device."""
    candidates: tuple[int, ...]
    """[b] number of the candidate that each one shows."""


class Judged(NamedTuple):
    """Pictures of some samples as a step has judged them, before it moved their parameters."""

    step: int
    """Of its try, counted from 0."""
    samples: list[int]
    """[b] those that took part."""
    tracks: list[int]
    """[b] numbers of their tracks."""
    candidates: list[int]
    """[b] number of the candidate that each one shows."""
    images: Tensor | None
    """[b, 3, H, W], on the run's device; None where no term acted on pictures."""


class Inversion:
    """A run. Iterate over it for step results; between steps it can be looked at, saved and resumed.

    Example:
        >>> inversion = Inversion(config)                                   # doctest: +SKIP
        >>> for step in inversion:                                          # doctest: +SKIP
        ...     print(step.step, step.losses["clip"].mean())
        >>> inversion.images()                      # [B, 3, H, W] in [0, 1]  # doctest: +SKIP

    A sample is a prompt with a seed, prompts outermost; B of them run side by side and never meet. Where the config
    asks for candidates, each sample has several tracks until the referees have dropped all but one.

    Raises:
        RefcoreError: as `refcore.engine.build.build` and `load_state_dict`, and NonFiniteError from a step, which
            leaves the state as it was.
    """

    def __init__(
        self,
        config: RunConfig,
        engine: Engine | None = None,
        state: Mapping[str, Any] | None = None,
        models: Models | None = None,
        on_round: Callable[[Callable[[], State]], None] = lambda state: None,
    ) -> None:
        """Loads the models and makes the start.

        Args:
            config: of the run.
            engine: already loaded models of this config; None loads them.
            state: a `state_dict` to go on from, instead of a start: its samples, and the search for them, are not made
                again.
            models: where loaded models are looked for first, and kept for later runs.
            on_round: called between two rounds of a search for the start of a try, with a function that gives the state
                to save: the search goes on from there.
        """
        self.config = config
        if engine is not None:
            refuse_foreign(config, engine)
        self.engine = engine if engine is not None else build(config, models)
        if engine is None:
            self.engine.plan()
            self.engine.finish_reading()
        self.samples: Sequence[tuple[str, int]] = config.samples
        self.checkpoints = local_checkpoints(config)
        """Name -> digest of every embedded or local checkpoint."""
        self.step = 0
        """The next step, counted through all tries."""
        self.attempt = 0
        """The try that it belongs to, counted from 0."""
        self.began = 0
        """The first step of that try."""
        self._closed = False
        self._waiting: list[int] = []
        """Samples that begin again with the next step."""
        self._search: Search | None = None
        """A loaded search for the start of the next try, to go on from."""
        self._on_round = on_round
        self._whole = True
        """Whether no step has been left in its middle."""
        self._before: Snapshot | None = None
        """Parameters before the last update."""
        self._finite: Tensor | None = None
        """Scalar bool: whether those after it are finite."""
        self.tracks: Tracks
        self.steered: list[tuple[int, str, float]] = []
        """(step, label, weight) of each change of a weight while the run went on, in order."""
        self._last: StepResult | None = None
        """What the last step gave, to be shown."""
        self._judged: tuple[int, list[int], Tensor | None] = (0, [], None)
        """The last step of its try, the numbers of the tracks that took part, and the pictures that it judged."""
        if state is None:
            self._begin()
        else:
            self.load_state_dict(state)

    @property
    def params(self) -> CanvasParams:
        """Parameters of the tracks that are left, each tensor [R, ...]."""
        return self.tracks.params

    @property
    def warnings(self) -> tuple[str, ...]:
        """Prompt text truncated by a model's context limit."""
        return self.engine.warnings

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how referees understood the prompts, where that is not plain."""
        return self.engine.notes

    @property
    def recorded(self) -> RunConfig:
        """The config with the chunk sizes that were found: it repeats this run bit for bit on this CPU."""
        return recorded(self.config, self.engine)

    @property
    def savable(self) -> bool:
        """Whether a run can go on from the state as it is: no step failed in its middle, and all numbers are finite."""
        return self._whole and (self._finite is None or bool(self._finite))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates that are left, one for each track, samples outermost."""
        return tuple(Candidate(*divmod(number, self.config.candidates.most)) for number in self.tracks.numbers)

    @property
    def done(self) -> bool:
        """True once no step follows."""
        return self._closed or (self._ended and not self._waiting)

    @property
    def planned(self) -> int:
        """Number of steps with which the run ends, if no sample begins again after this try."""
        return (self.step if self._waiting else self.began) + self.config.steps

    @property
    def _taken(self) -> int:
        """Steps of this try that are taken, which schedules, draws and drops go by."""
        return self.step - self.began

    @property
    def _ended(self) -> bool:
        """Whether this try is over."""
        return self._taken >= self.config.steps or not self.tracks.active

    def __iter__(self) -> Inversion:
        return self

    def __next__(self) -> StepResult:
        """Takes one step.

        Raises:
            NonFiniteError: a term or an update gave NaN or infinity; parameters and average are as before the step.
        """
        if self.done:
            raise StopIteration
        with fitting.named(self.config, self.engine.device, self.engine.canvas.size):
            if self._waiting:
                self._begin_again()
            return self._next()

    def _next(self) -> StepResult:
        began = time.perf_counter()
        config, step, tracks = self.config, self._taken, self.tracks
        rows = list(tracks.active)
        numbers, alive = tracks.numbers_of(rows), self.candidates
        self._whole = all(shareable(loaded.prior) for loaded in self.engine.priors)  # one with a state may have moved
        self._judged = (step, [], None)  # the last step's pictures are not held beside those of this one
        gradients = self.engine.gradients(tracks.take(tracks.params, rows), numbers, step)
        self._refuse_non_finite(gradients.finite)
        at = Moment(step, config.steps)
        found = None
        if config.optimizer.name == "lbfgs":
            total = self.engine.total(gradients, step)
            found = tracks.searched(total, gradients.combined, rows, at, self._evaluated)
        self._whole = False
        self._judged = (step, numbers, gradients.image)
        if step == 0 and tracks.best is not None:
            self._consider_start(rows)
        self._before = tracks.snapshot()
        if found is None:
            tracks.update(gradients.combined, rows, at)
        else:
            tracks.move(rows, found)
        if std := at.of(config.noise):
            tracks.add_noise(std, [self.engine.keys[number] for number in numbers], rows, step)
        if self.engine.transforms.on("parameters"):
            updated, before = tracks.take(tracks.params, rows), tracks.take(self._before.params, rows)
            tracks.replace(rows, self.engine.transforms.apply("parameters", updated, before, at))
        tracks.average(rows, step)
        self._finite = tracks.finite()
        self.engine.learn(tracks.take(tracks.params, rows), numbers, step)
        self.step += 1
        self._look(rows)
        weights = {label: term.weight_at(at.step, at.steps) for label, term in config.terms.items()}
        losses = {label: tracks.spread(value, rows) for label, value in gradients.losses.items()}
        norms = {label: tracks.spread(value, rows) for label, value in gradients.norms.items()}
        angles = {pair: tracks.spread(value, rows) for pair, value in gradients.angles.found.items()}
        if config.candidates.most > 1:
            self._remember(losses)
            self._drop()
        if self._ended:
            self._refuse_non_finite({})
            self._waiting = self._unsatisfied()
        self._whole = True
        moved, lr = set(rows), config.optimizer.lr_at(at)
        active = tuple(row in moved for row in range(len(alive)))
        seconds = time.perf_counter() - began
        self._last = StepResult(self.step - 1, losses, norms, angles, weights, active, alive, lr, seconds)
        return self._last

    def _evaluated(self, row: int, params: CanvasParams) -> Evaluated:
        """Loss and gradient of a row at other parameters, in the views and with the draws of the step."""
        gradients = self.engine.gradients(params, self.tracks.numbers_of([row]), self._taken)
        self._refuse_non_finite(gradients.finite)
        return float(self.engine.total(gradients, self._taken)), gradients.combined

    def _refuse_non_finite(self, finite: Mapping[str, Tensor]) -> None:
        """Raises NonFiniteError for terms that are not finite, or for parameters after the last update.

        The one wait for the device in a step: a poisoned update must not reach the parameters. Those of an update
        that overflowed are taken back.
        """
        flags = {PARAMETERS: self._finite, **finite} if self._finite is not None else dict(finite)
        if not flags or torch.stack([*flags.values()]).all():
            return
        bad = [label for label, flag in flags.items() if not flag]
        if PARAMETERS not in bad or self._before is None:
            raise NonFiniteError(self.step, {label: self.engine.dtype_name(label) for label in bad})
        self._whole = False  # of the optimiser nothing is taken back
        self.tracks.restore(self._before)
        self.step, self._finite = self.step - 1, None
        raise NonFiniteError(self.step, {PARAMETERS: self.engine.dtype_name(PARAMETERS)})

    @torch.no_grad()
    def images(self, which: Which | None = None) -> Tensor:
        """[B, 3, H, W] in [0, 1]: the result so far, or that of `which`, on the run's device; of the `leaders`.

        A finished picture at any time, as if the run ended now: the canvas decodes at the end of the run.

        Raises:
            RefcoreError: the config keeps no average, or no best.
        """
        end = self.engine.end
        return torch.cat([self.engine.decode(own, end, [track]) for track, own in self._finished(which)]).clamp(0, 1)

    def files(self, which: Which | None = None) -> list[dict[str, str]]:
        """[B] what the canvas writes beside the picture of each sample, ending -> text; otherwise as `images`."""
        if type(self.engine.canvas).files is Canvas.files:  # none, and no look at candidates is needed to say so
            return [{} for _ in self.samples]
        return [checks.files(self.engine.canvas, own)[0] for _, own in self._finished(which)]

    def _finished(self, which: Which | None) -> list[tuple[int, CanvasParams]]:
        """[B] of each sample its leader's track and parameters, one row, of the result or of `which`."""
        which = which or self.config.output
        kept = {"current": self.tracks.params, "ema": self.tracks.ema, "best": self.tracks.best}[which]
        if kept is None:
            raise RefcoreError(f'this run keeps no "{which}" image: set {"ema" if which == "ema" else "output: best"}')
        return [
            (self.tracks.numbers[row], {name: p[row : row + 1] for name, p in kept.items()}) for row in self._leading()
        ]

    @torch.no_grad()
    def glimpse(self, samples: Sequence[int]) -> Glimpse:
        """The pictures of some samples as the run stands, at the price of their decoding: nothing is judged.

        Where candidates compete, a sample is shown by the one with the best losses of late, and by its first one before
        any is judged; `images` looks at all of them anew. With `output: best` the last parameters are shown, as there
        may have been no look yet.
        """
        params = self.tracks.ema if self.config.output == "ema" else self.tracks.params
        assert params is not None, "output: ema comes with an average"
        rows = self._ahead(samples)
        end = self.engine.end
        decoded = [
            self.engine.decode(self.tracks.take(params, [row]), end, self.tracks.numbers_of([row])).clamp(0, 1)
            for row in rows
        ]
        return Glimpse(torch.cat(decoded), tuple(self.candidates[row].candidate for row in rows))

    def _repr_png_(self) -> bytes:
        """The pictures so far, side by side; in a notebook."""
        shown, _ = self.glimpse(range(min(SHOWN, len(self.samples))))
        return files.png(np.concatenate([files.levels(own) for own in coarsen(shown.float(), show.SIDE)], 1))

    def _repr_html_(self) -> str:
        """The pictures so far with the losses of the last step; in a notebook."""
        samples = range(min(SHOWN, len(self.samples)))
        shown, candidates = self.glimpse(samples)
        losses = self._losses
        rows = []
        for b, candidate in zip(samples, candidates, strict=True):
            own = [losses[label].get((b, candidate)) for label in losses]
            prompt, seed = self.samples[b]
            rows.append([prompt, str(seed), *("" if loss is None else f"{loss:.3f}" for loss in own)])
        pictures = [Image.fromarray(files.levels(own.float())) for own in shown]
        more = len(self.samples) - len(samples)
        remarks = [f"{self.step} of {self.planned} steps", *([f"{more} more samples"] if more else [])]
        return show.html(["prompt", "seed", *(f"loss {label}" for label in losses)], rows, pictures, remarks)

    @property
    def _losses(self) -> dict[str, dict[tuple[int, int], float]]:
        """Label -> (sample, candidate) -> loss in the last step, of those that took part."""
        if self._last is None:
            return {}
        moved = [tuple(own) for own in self._last.candidates]
        return {
            label: {
                (own[0], own[1]): loss
                for own, loss, active in zip(moved, losses.tolist(), self._last.active, strict=True)
                if active
            }
            for label, losses in self._last.losses.items()
        }

    def judged(self, samples: Sequence[int]) -> Judged:
        """The pictures of some samples that the last step has judged, which cost nothing; leaders as for `glimpse`.

        A sample that did not take part is left out.
        """
        step, numbers, image = self._judged
        tracks = self.tracks.numbers_of(self._ahead(samples))
        places = {number: place for place, number in enumerate(numbers)}
        found = [(b, track) for b, track in zip(samples, tracks, strict=True) if track in places]
        shown = None if image is None else image[[places[track] for _, track in found]]
        candidates = [track % self.config.candidates.most for _, track in found]
        return Judged(step, [b for b, _ in found], [track for _, track in found], candidates, shown)

    def leaders(self) -> tuple[int, ...]:
        """[B] number of each sample's best candidate so far; at the run's end the only one that is left."""
        candidates = self.candidates
        return tuple(candidates[row].candidate for row in self._leading())

    def scores(self, images: Tensor | None = None) -> dict[str, Tensor]:
        """Label -> [B] scores of the result, or of other images of this batch, by every referee and witness."""
        return self.engine.panel.scores(self.images() if images is None else images)

    def state_dict(self) -> State:
        """All that a resumed run needs: `tensors` (flat, name -> tensor) and `meta` (plain values for JSON)."""
        return self._state(self.tracks, self._search)

    def _state(self, tracks: Tracks | None, search: Search | None) -> State:
        """The state with these tracks (None: those of the first try are searched for) and this search, if any."""
        state = tracks.state_dict() if tracks is not None else {"tensors": {}, "meta": {}}
        tensors: dict[str, Tensor] = state["tensors"]
        meta: dict[str, Any] = {"step": self.step, "began": self.began, "attempt": self.attempt}
        meta |= {"config": self.config.settings(), "waiting": list(self._waiting), **state["meta"]}
        meta |= {"chunks": dict(self.engine.panel.chunks), "halved": list(self.engine.panel.halved)}
        meta |= {"checkpoints": dict(self.checkpoints), "steered": [list(one) for one in self.steered]}
        if search is not None:
            tensors["search.latents"], meta["search"] = search.latents, search.rounds
        for loaded in self.engine.priors:
            for name, value in loaded.prior.state_dict().items():
                (tensors if isinstance(value, Tensor) else meta)[f"prior.{loaded.label}.{name}"] = value
        return {"tensors": {name: value.detach().clone() for name, value in tensors.items()}, "meta": meta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of the same config; on the same machine and versions, bit for bit on the CPU.

        Chunk sizes are taken over, unless this run's config pins others. A search before the first step is gone on
        with to its end.

        Raises:
            RefcoreError: the state is that of another config, or of other weights.
        """
        tensors, meta = state["tensors"], state["meta"]
        if differs := differing(meta["config"], self.config.settings()):
            raise RefcoreError(f"the saved state is of another config (it differs in {differs}); resume with its own")
        for model, digest in meta["checkpoints"].items():
            if (now := self.checkpoints.get(model)) != digest:
                raise RefcoreError(
                    f'the saved state is of other weights: "{model}" had the hash {digest}, and has {now} now; '
                    "restore the checkpoint, or start anew"
                )
        panel, device = self.engine.panel, self.engine.device
        if self.config.settings()["chunk"] in (None, meta["config"]["chunk"]):  # others may be another machine's
            panel.chunks, panel.halved[:] = dict(meta["chunks"]), meta["halved"]
        self.step, self.began, self.attempt = meta["step"], meta["began"], meta["attempt"]
        self.steered = [(step, label, weight) for step, label, weight in meta.get("steered", ())]
        self._before = self._finite = None
        self._waiting, self._search, self._whole = list(meta["waiting"]), None, True
        if "search" in meta:
            self._search = Search(tensors["search.latents"].detach().clone().to(device), meta["search"])
        if "candidates" in meta:
            self.tracks = self._tracks(named(tensors, "params.", device), meta["candidates"])
            self.tracks.load_state_dict(tensors, meta)
        for loaded in self.engine.priors:
            prefix = f"prior.{loaded.label}."
            plain = {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}
            loaded.prior.load_state_dict({**named(tensors, prefix, device), **plain})
        if "candidates" not in meta:
            self._begin()

    def steer(self, label: str, weight: float) -> None:
        """Gives a referee or prior another weight from the next step on.

        The run's config becomes the one with that change: the weight is a schedule with a piece from that step on.
        Where no candidates are compared, a run of `recorded` then repeats this one bit for bit. Candidates are compared
        by the largest weights of the config, from now on the new ones.

        Args:
            label: of the term.
            weight: at least 0; 0 leaves the term out.

        Raises:
            RefcoreError: no term has the label, or the weight is negative or not finite.
        """
        self.config = self.config.with_weight(label, weight, self._taken)
        self.engine.reweigh(self.config, combiner(self.config))
        self.steered.append((self.step, label, weight))

    def close(self) -> None:
        """Ends the run: no step follows. What was made stays available."""
        self._closed = True

    def _tracks(self, params: CanvasParams, numbers: Sequence[int]) -> Tracks:
        """Tracks with these parameters and numbers."""
        config = self.config
        compared = len(self.engine.compared) if config.candidates.most > 1 else 0
        return Tracks(params, config.optimizer, config.ema, config.output == "best", compared, numbers)

    @torch.no_grad()
    def _consider_start(self, rows: list[int]) -> None:
        """Judges the start, which may be the best already."""
        kept, numbers = self.tracks.take(self.tracks.averaged, rows), self.tracks.numbers_of(rows)
        image = self.engine.decode(kept, self.engine.end, numbers)
        self.tracks.improve(kept, self._total(self.engine.losses(image, numbers, self.config.best.views)), rows)

    @torch.no_grad()
    def _look(self, rows: list[int]) -> None:
        """Judges the clean image when a look is due: keeps the best parameters, freezes finished tracks."""
        config, stop, taken = self.config, self.config.early_stop, self._taken
        last, keeps_best = taken >= config.steps, self.tracks.best is not None
        best_due = keeps_best and (last or taken % config.best.every == 0)
        stop_due = stop is not None and not last and taken % stop.every == 0 and taken >= stop.first
        if not (best_due or stop_due):
            return
        kept = self.tracks.take(self.tracks.averaged, rows)
        image = self.engine.decode(kept, self.engine.end, self.tracks.numbers_of(rows))
        # A sample that stops is never looked at again: whenever one may stop, the best is decided on, too.
        losses: dict[str, dict[str, Tensor]] = {}
        for due, group in ((keeps_best, config.best.views), (stop_due, CLEAN)):
            if due and group not in losses:
                losses[group] = self.engine.losses(image, self.tracks.numbers_of(rows), group)
        if keeps_best:
            self.tracks.improve(kept, self._total(losses[config.best.views]), rows)
        if stop_due:
            self._freeze(losses[CLEAN], rows)

    def _freeze(self, losses: dict[str, Tensor], rows: list[int]) -> None:
        """Freezes the tracks whose referees are all satisfied, or that have waited too long."""
        stop = self.config.early_stop
        assert stop is not None
        waited = self.tracks.wait(self._total(losses), rows, stop.min_delta)
        finished = torch.zeros_like(waited, dtype=torch.bool)
        samples = [self.candidates[row].sample for row in rows]
        wait_for = [judge for judge in self.engine.panel.referees if judge.satisfied_at is not None]
        if wait_for:
            satisfied = [losses[judge.label] <= judge.satisfaction(samples, losses[judge.label]) for judge in wait_for]
            finished = torch.stack(satisfied).all(0)
        if stop.patience is not None:
            finished = finished | (waited >= stop.patience)
        self.tracks.active = [row for row, over in zip(rows, finished.tolist(), strict=True) if not over]

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """[A] losses times each term's largest weight, so that totals of different steps can be compared."""
        steps = self.config.steps
        weighted = [judge.term.largest_weight(steps) * losses[judge.label] for judge in self.engine.panel.referees]
        return torch.stack(weighted).sum(0).to(self.tracks.best_loss.dtype)

    def _remember(self, losses: dict[str, Tensor]) -> None:
        """Brings the averages of recent losses up to date, where a candidate was judged."""
        decay = 1 - 1 / max(1, self.config.candidates.recent)
        for i, (judge, _) in enumerate(self.engine.compared):
            if judge.label in losses:
                self.tracks.remember(i, losses[judge.label], decay)

    @torch.no_grad()
    def _standing(self, rows: list[int]) -> Tensor:
        """[T, A] losses to compare some rows by: the recent averages, or those of a look at clean views.

        At the end of a run with `output: best` it is the best images that are looked at: they are the result.
        """
        standing = self.tracks.recent[:, rows]
        ended = self._taken >= self.config.steps and self.tracks.best is not None
        if ended or not self.config.candidates.recent or standing.isnan().all():
            standing = self._looked_at(rows, ended).to(standing.dtype)
        return standing

    def _looked_at(self, rows: list[int], best: bool = False) -> Tensor:
        """[T, A] losses of some rows, of their best or of their average if there is one, on the views to compare on."""
        kept = self.tracks.best if best and self.tracks.best is not None else self.tracks.averaged
        return self.engine.look(self.tracks.take(kept, rows), self.tracks.numbers_of(rows))

    def _ordered(self, rows: list[int] | None = None) -> tuple[list[list[int]], Tensor | None]:
        """[B] rows of each sample (None: all), best first, and the scales ([T, B]) that they were compared on."""
        if len(self.tracks) == len(self.samples):
            return [[row] for row in range(len(self.samples))], self.tracks.scale
        rows = list(range(len(self.tracks))) if rows is None else rows
        best, scale = self.engine.ordered(self._standing(rows), self.tracks.numbers_of(rows), self.tracks.scale)
        return [[rows[column] for column in own] for own in best], scale

    def _leading(self) -> list[int]:
        """[B] row of each sample's best candidate."""
        return [rows[0] for rows in self._ordered()[0]]

    def _ahead(self, samples: Sequence[int]) -> list[int]:
        """The rows of some samples' best candidates by the losses that are known; nothing is judged."""
        if len(self.tracks) == len(self.samples):
            return list(samples)
        known, signs = self.tracks.recent, torch.tensor([weight for _, weight in self.engine.compared]).sign()
        never = known.isnan().all(0)
        last = (torch.inf * signs).to(known)[:, None].expand_as(known)
        standing = torch.zeros_like(known) if never.all() else torch.where(never, last, known)
        best, _ = self.engine.ordered(standing, self.tracks.numbers, self.tracks.scale)
        return [best[sample][0] for sample in samples]

    def _drop(self) -> None:
        """Drops all but the best candidates when that is due; the end of an earlier try meets the last one of this."""
        count = self.config.candidates.kept_after(self._taken, self.config.steps)
        if count is None or len(self.tracks) == len(self.samples):
            return
        first = self.attempt * self.config.candidates.count
        present = [row for row, own in enumerate(self.candidates) if own.candidate >= first]
        competing = present if self._taken < self.config.steps else list(range(len(self.tracks)))
        best, self.tracks.scale = self._ordered(competing)
        kept = {row for rows in best for row in rows[:count]} | ({*range(len(self.tracks))} - {*competing})
        self.tracks.keep(sorted(kept))

    def _begin(self) -> None:
        """Makes the start of every sample's first try."""
        with fitting.named(self.config, self.engine.device, self.engine.canvas.size):
            first = self.engine.first_tracks(range(len(self.samples)))
            self.tracks = self._tracks(self._started(first, None), first)
            self._drop()

    def _started(self, numbers: Sequence[int], beside: Tracks | None) -> CanvasParams:
        """Parameters of new tracks, each tensor [N, ...]; a state that is saved meanwhile has those `beside` them."""
        search, self._search = self._search, None
        return start(self.engine, numbers, search, lambda now: self._on_round(partial(self._state, beside, now)))

    @torch.no_grad()
    def _unsatisfied(self) -> list[int]:
        """Samples whose best candidate has ended above `candidates.until`, where there is a try left for them."""
        if self.attempt + 1 == self.config.candidates.tries:
            return []
        self.tracks.keep([rows[0] for rows in self._ordered()[0]])
        losses = self._looked_at(list(range(len(self.samples))), self.tracks.best is not None)
        return [b for b, over in enumerate(self._above(losses).tolist()) if over]

    @torch.no_grad()
    def _begin_again(self) -> None:
        """Begins the next try of the samples that wait for it."""
        fresh = self.engine.first_tracks(self._waiting, self.attempt + 1)
        self.tracks.add(self._started(fresh, self.tracks), fresh)
        self.attempt, self.began, self._waiting = self.attempt + 1, self.step, []
        self._before = self._finite = None
        self._drop()

    def _above(self, losses: Tensor) -> Tensor:
        """[B] whether a sample with the losses [T, B] of the `compared` referees is above `candidates.until`."""
        until, compared = self.config.candidates.until, self.engine.compared
        if isinstance(until, dict):
            limits = torch.tensor([until.get(judge.label, torch.inf) for judge, _ in compared], device=losses.device)
            return (losses > limits[:, None]).any(0)
        assert until is not None, "tries come with until"
        weights = torch.tensor([weight for _, weight in compared], dtype=losses.dtype, device=losses.device)
        return (weights[:, None] * losses).sum(0) > until
