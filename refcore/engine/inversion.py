"""The loop of an inversion, as an iterator: optimiser, latent noise, averaging, best image, early stop, resume."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from refcore.config.optimize import Optimizer
from refcore.config.run import RunConfig
from refcore.config.schedule import value_at
from refcore.config.views import CLEAN
from refcore.contracts.canvas import CanvasParams
from refcore.engine.build import build, start
from refcore.engine.step import Engine
from refcore.errors import NonFiniteError, RefcoreError
from refcore.rng import Rng

Which = Literal["current", "ema", "best"]


class Candidate(NamedTuple):
    """One of the tries at a sample; without `candidates` in the config, its only one."""

    sample: int
    """0 .. B - 1."""
    candidate: int
    """0 .. candidates.count - 1; it keeps its number when others are dropped."""


@dataclass(frozen=True)
class StepResult:
    """What one step did. Tensors are [R] on the run's device, one number for each of `candidates`.

    Without candidates R is B, and row b is sample b. Those that did not take part have NaN.
    """

    step: int
    """Counted from 0."""
    losses: dict[str, Tensor]
    """Label -> unweighted loss of a referee, or the value of a prior that has one."""
    norms: dict[str, Tensor]
    """Label -> norm of the weighted gradient where the term acts: at the image, the latent or the parameters."""
    active: tuple[bool, ...]
    """Which of the R took part."""
    candidates: tuple[Candidate, ...]
    """The R candidates that were alive, samples outermost."""
    lr: float
    seconds: float
    """Wall-clock time of the step; the first one is usually slower."""

    def record(self) -> dict[str, Any]:
        """The step as plain numbers and lists, for a JSON line. Waits for the device, once."""
        columns = [column.float() for column in (*self.losses.values(), *self.norms.values())]
        numbers = torch.stack(columns).tolist() if columns else []
        return {
            "step": self.step,
            "losses": dict(zip(self.losses, numbers, strict=False)),
            "norms": dict(zip(self.norms, numbers[len(self.losses) :], strict=True)),
            "active": list(self.active),
            "candidates": [list(candidate) for candidate in self.candidates],
            "lr": self.lr,
            "seconds": self.seconds,
        }


class Inversion:
    """A run. Iterate over it for step results; between steps it can be looked at, saved and resumed.

    Example:
        >>> inversion = Inversion(config)                                   # doctest: +SKIP
        >>> for step in inversion:                                          # doctest: +SKIP
        ...     print(step.step, step.losses["clip"].mean())
        >>> inversion.images()                      # [B, 3, H, W] in [0, 1]  # doctest: +SKIP

    A sample is a prompt with a seed, prompts outermost; B of them run side by side and never meet. Where the config
    asks for candidates, each sample has several rows of parameters until the referees have dropped all but one.

    Raises:
        RefcoreError: as `refcore.engine.build.build` and `load_state_dict`, and NonFiniteError from a step, which leaves
            the state as it was.
    """

    def __init__(self, config: RunConfig, engine: Engine | None = None, state: Mapping[str, Any] | None = None) -> None:
        """Loads the models and makes the start.

        Args:
            config: of the run.
            engine: already loaded models of this config.
            state: a `state_dict` to go on from, instead of a start: its samples, and the search for them, are not made
                again.
        """
        self.config = config
        self.engine = engine if engine is not None else build(config)
        if engine is None:
            self.engine.plan()
            self.engine.finish_reading()
        self.samples: Sequence[tuple[str, int]] = config.samples
        self.step: int
        """The next step."""
        self.params: CanvasParams
        self.ema: CanvasParams | None
        self.active: list[int]
        """The rows that still move; without candidates, the samples."""
        self._places: list[int]
        """Of every row of the parameters, which of the engine's candidates it is."""
        self._recent: Tensor
        """[referees, R]: the average of recent losses, which candidates are compared by; NaN before the first."""
        self._scale: Tensor | None
        """[referees, B]: how much each referee's losses differed over all candidates, when some were first dropped."""
        self._closed = False
        if state is None:
            self._begin(start(self.engine))
        else:
            self.load_state_dict(state)

    def _begin(self, params: CanvasParams) -> None:
        """Step 0, with all candidates."""
        config = self.config
        self.step, self.params = 0, params
        self.ema = None if config.ema is None else _copy(params)
        self._places = list(range(len(self.engine.keys)))
        self.active = list(self._places)
        self._optimizer = _optimizer(config.optimizer, params)
        self._best = _copy(params) if config.output == "best" else None
        self._best_loss, self._stop_loss = self._infinite(), self._infinite()
        self._waited = torch.zeros(len(self._places), dtype=torch.int64, device=self.engine.device)
        self._recent, self._scale = self._unjudged(), None
        self._drop()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the prompts was not read."""
        return self.engine.warnings

    @property
    def notes(self) -> tuple[str, ...]:
        """How referees understood the prompts, where that is not plain."""
        return self.engine.notes

    @property
    def recorded(self) -> RunConfig:
        """The config with what was found on the way, the chunk sizes: it repeats this run bit for bit on this CPU."""
        if not self.engine.chunks:
            return self.config
        rest = self.config.chunk if isinstance(self.config.chunk, int) else None
        chunks = {use.label: self.engine.chunks.get(use.label, rest) for use in self.engine.referees}
        return self.config.model_copy(update={"chunk": {label: n for label, n in chunks.items() if n is not None}})

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates that are left, one a row of the parameters, samples outermost."""
        return tuple(Candidate(*divmod(place, self.config.candidates.count)) for place in self._places)

    @property
    def done(self) -> bool:
        """Whether no step follows."""
        return self._closed or self.step >= self.config.steps or not self.active

    def __iter__(self) -> Inversion:
        return self

    def __next__(self) -> StepResult:
        """Does one step.

        Raises:
            NonFiniteError: a term gave NaN or infinity; parameters, average and optimiser are as before the step.
        """
        if self.done:
            raise StopIteration
        began = time.perf_counter()
        config, step, active = self.config, self.step, list(self.active)
        alive = self.candidates
        gradients = self.engine.gradients(self._of(self.params, active), self._at(active), step)
        # The one wait for the device in a step: a poisoned update must not reach the parameters.
        if gradients.finite and not (flags := torch.stack([*gradients.finite.values()])).all():
            ok = dict(zip(gradients.finite, flags.tolist(), strict=True))
            raise NonFiniteError(step, [label for label, fine in ok.items() if not fine])
        lr = config.optimizer.lr_at(step, config.steps)
        self._update(_limited(gradients.combined, config.optimizer), active, lr)
        self._add_noise(active)
        self._average(active)
        self.engine.learn(self._of(self.params, active), self._at(active), step)
        self.step += 1
        self._look(active)
        losses = {label: self._spread(value, active) for label, value in gradients.losses.items()}
        norms = {label: self._spread(value, active) for label, value in gradients.norms.items()}
        if self.config.candidates.count > 1:
            self._remember(losses)
            self._drop()
        return StepResult(
            step,
            losses,
            norms,
            tuple(row in set(active) for row in range(len(alive))),
            alive,
            lr,
            time.perf_counter() - began,
        )

    @torch.no_grad()
    def images(self, which: Which | None = None) -> Tensor:
        """[B, 3, H, W] in [0, 1]: the result so far, or that of `which`, on the run's device; of the `leaders`.

        Raises:
            RefcoreError: the config keeps no average, or no best.
        """
        which = which or self.config.output
        kept = {"current": self.params, "ema": self.ema, "best": self._best}[which]
        if kept is None:
            raise RefcoreError(f'this run keeps no "{which}" image: set {"ema" if which == "ema" else "output: best"}')
        decoded = [self.engine.decode({name: p[row : row + 1] for name, p in kept.items()}) for row in self._leading()]
        return torch.cat(decoded).clamp(0, 1)

    def leaders(self) -> tuple[int, ...]:
        """[B]: each sample's best candidate so far, by its number; at the run's end the only one that is left."""
        candidates = self.candidates
        return tuple(candidates[row].candidate for row in self._leading())

    def scores(self, images: Tensor | None = None) -> dict[str, Tensor]:
        """Label -> [B]: the scores of the result, or of other images of this batch, by every referee and witness."""
        return self.engine.scores(self.images() if images is None else images)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: `tensors` (flat, name -> tensor) and `meta` (plain values for JSON)."""
        tensors = {f"params.{name}": value for name, value in self.params.items()}
        for group, kept in (("ema", self.ema), ("best", self._best)):
            tensors |= {f"{group}.{name}": value for name, value in (kept or {}).items()}
        tensors |= {"best_loss": self._best_loss, "stop_loss": self._stop_loss, "waited": self._waited}
        if self.config.candidates.count > 1:
            tensors["candidates.recent"] = self._recent
            if self._scale is not None:
                tensors["candidates.scale"] = self._scale
        for i, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in state.items() if value is not None}
        meta: dict[str, Any] = {"step": self.step, "active": list(self.active), "config": self.config.settings()}
        meta["candidates"] = list(self._places)
        meta["chunks"] = dict(self.engine.chunks)
        for use in self.engine.priors:
            for name, value in use.prior.state_dict().items():
                (tensors if isinstance(value, Tensor) else meta)[f"prior.{use.label}.{name}"] = value
        return {"tensors": {name: value.detach().clone() for name, value in tensors.items()}, "meta": meta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of the same config; on the same machine and versions, bit for bit on the CPU.

        With its chunk sizes, unless this run's config pins others.

        Raises:
            RefcoreError: the state is that of another config.
        """
        tensors, meta = state["tensors"], state["meta"]
        theirs, ours = meta["config"], self.config.settings()
        if differing := [name for name in ours if name != "chunk" and theirs.get(name) != ours[name]]:
            differs = ", ".join(differing)
            raise RefcoreError(f"the saved state is of another config (it differs in {differs}); resume with its own")

        if self.config.chunk is None:  # what is pinned here may be another machine's
            self.engine.chunks = dict(meta["chunks"])

        def group(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value.detach().clone().to(self.engine.device)
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        self.params = group("params.")
        self.ema = group("ema.") if self.config.ema is not None else None
        self._best = group("best.") if self.config.output == "best" else None
        self._best_loss, self._stop_loss = group("best_loss")[""], group("stop_loss")[""]
        self._waited = group("waited")[""]
        self.step, self.active, self._places = meta["step"], list(meta["active"]), list(meta["candidates"])
        compared = group("candidates.")
        self._recent, self._scale = compared.get("recent", self._unjudged()), compared.get("scale")
        self._optimizer = _optimizer(self.config.optimizer, self.params)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):  # left where it is: Adam's step counter belongs on the CPU
                _, i, moment = name.split(".")
                moments.setdefault(int(i), {})[moment] = value.detach().clone()
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        for use in self.engine.priors:
            prefix = f"prior.{use.label}."
            plain = {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}
            use.prior.load_state_dict({**group(prefix), **plain})

    def close(self) -> None:
        """Ends the run: no step follows. What it has made stays."""
        self._closed = True

    def _update(self, gradient: CanvasParams, active: list[int], lr: float) -> None:
        """One optimiser step on the active samples; every torch.optim rule used here is elementwise."""
        all_move = len(active) == len(self._places)
        before = None if all_move else _copy(self.params)
        for name, param in self.params.items():
            param.grad = gradient[name] if all_move else _put(torch.zeros_like(param), active, gradient[name])
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        for name, param in self.params.items():
            param.grad = None
            if before is not None:  # momentum and weight decay would move what is frozen
                param.data.copy_(_put(before[name], active, param.data[active]))

    def _add_noise(self, active: list[int]) -> None:
        std = value_at(self.config.noise, self.step, self.config.steps)
        if not std:
            return
        keys = [self.engine.keys[place] for place in self._at(active)]
        for name, param in self.params.items():
            noise = Rng(keys, self.step, f"noise/{name}", device=self.engine.device).normal(*param.shape[1:])
            _put(param.data, active, _take(param.data, active) + std * noise.to(param.dtype))

    def _average(self, active: list[int]) -> None:
        settings = self.config.ema
        if settings is None or self.ema is None:
            return
        decay = settings.decay if self.step >= settings.start else 0.0
        for name, param in self.params.items():
            average = self.ema[name]
            _put(average, active, decay * _take(average, active) + (1 - decay) * _take(param.data, active))
            if self.step in settings.restarts:
                _put(param.data, active, _take(average, active))
        if self.step in settings.restarts and settings.momentum == "reset":
            self._optimizer.state.clear()

    @torch.no_grad()
    def _look(self, active: list[int]) -> None:
        """Judges the clean image, where it is time to: keeps what is best, freezes what is done."""
        config, stop, last = self.config, self.config.early_stop, self.step >= self.config.steps
        best_due = self._best is not None and (last or self.step % config.best.every == 0)
        stop_due = stop is not None and not last and self.step % stop.every == 0 and self.step >= stop.first
        if not (best_due or stop_due):
            return
        kept = self._of(self.ema or self.params, active)
        image = self.engine.decode(kept)
        # A sample that stops is never looked at again: whenever one may stop, the best is decided on, too.
        losses: dict[str, dict[str, Tensor]] = {}
        for due, group in ((self._best is not None, config.best.views), (stop_due, CLEAN)):
            if due and group not in losses:
                losses[group] = self.engine.losses(image, self._at(active), group)
        if self._best is not None:
            total = self._total(losses[config.best.views])
            better = total < self._best_loss[active]
            _put(self._best_loss, active, torch.where(better, total, self._best_loss[active]))
            for name, best in self._best.items():
                mask = better.view(-1, *[1] * (best.dim() - 1))
                _put(best, active, torch.where(mask, kept[name], best[active]))
        if stop_due:
            self._freeze(losses[CLEAN], active)

    def _freeze(self, losses: dict[str, Tensor], active: list[int]) -> None:
        stop = self.config.early_stop
        assert stop is not None
        total = self._total(losses)
        improved = total < self._stop_loss[active] - stop.min_delta
        _put(self._stop_loss, active, torch.where(improved, total, self._stop_loss[active]))
        _put(self._waited, active, torch.where(improved, 0, self._waited[active] + 1))
        finished = torch.zeros_like(improved)
        samples = [self.candidates[row].sample for row in active]
        wait_for = [use for use in self.engine.referees if use.satisfied_at is not None]
        if wait_for:
            satisfied = [losses[use.label] <= self.engine.bounds(use, samples, losses[use.label]) for use in wait_for]
            finished = torch.stack(satisfied).all(0)
        if stop.patience is not None:
            finished = finished | (self._waited[active] >= stop.patience)
        self.active = [b for b, over in zip(active, finished.tolist(), strict=True) if not over]

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """[A]: losses times each term's largest weight, so that totals of different steps can be compared."""
        steps = self.config.steps
        total = torch.stack([use.term.largest_weight(steps) * losses[use.label] for use in self.engine.referees]).sum(0)
        return total.to(self._best_loss.dtype)

    def _remember(self, losses: dict[str, Tensor]) -> None:
        """Brings the averages of recent losses up to date, where a candidate was judged."""
        decay = 1 - 1 / max(1, self.config.candidates.recent)
        for i, (use, _) in enumerate(self.engine.compared):
            if use.label in losses:
                now, before = losses[use.label].to(self._recent.dtype), self._recent[i]
                average = torch.where(before.isnan(), now, decay * before + (1 - decay) * now)
                self._recent[i] = torch.where(now.isnan(), before, average)

    @torch.no_grad()
    def _standing(self) -> Tensor:
        """[referees, R] losses to compare candidates by: the recent averages, or those of a look at clean views."""
        standing = self._recent.clone()
        if not self.config.candidates.recent or standing.isnan().all():
            kept = {name: p.detach() for name, p in (self.ema or self.params).items()}
            standing = self.engine.look(kept, self._places).to(standing.dtype)
        return standing

    def _ordered(self) -> tuple[list[list[int]], Tensor | None]:
        """[B]: the rows of each sample, best first, and the scales ([referees, B]) that they were compared on."""
        if len(self._places) == len(self.samples):
            return [[row] for row in range(len(self.samples))], self._scale
        return self.engine.ordered(self._standing(), self._places, self._scale)

    def _leading(self) -> list[int]:
        """[B]: the row of each sample's best candidate."""
        return [rows[0] for rows in self._ordered()[0]]

    def _drop(self) -> None:
        """Lets the best candidates go on, where it is time to; the others leave the parameters and all that follows."""
        count = self.config.candidates.kept_after(self.step, self.config.steps)
        if count is None or len(self._places) == len(self.samples):
            return
        best, self._scale = self._ordered()
        kept = [row for rows in best for row in sorted(rows[:count])]
        moments = {
            i: {name: value[kept] if isinstance(value, Tensor) and value.dim() else value for name, value in m.items()}
            for i, m in self._optimizer.state_dict()["state"].items()
        }
        self.params = {name: value.detach()[kept] for name, value in self.params.items()}
        self._optimizer = _optimizer(self.config.optimizer, self.params)
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self.ema = self.ema and {name: value[kept] for name, value in self.ema.items()}
        self._best = self._best and {name: value[kept] for name, value in self._best.items()}
        self._best_loss, self._stop_loss = self._best_loss[kept], self._stop_loss[kept]
        self._waited, self._recent = self._waited[kept], self._recent[:, kept]
        self._places = [self._places[row] for row in kept]
        moving = set(self.active)
        self.active = [i for i, row in enumerate(kept) if row in moving]

    def _at(self, rows: list[int]) -> list[int]:
        """Which of the engine's candidates some rows are."""
        return [self._places[row] for row in rows]

    def _of(self, params: CanvasParams, active: list[int]) -> CanvasParams:
        """The active samples' part of parameters, detached."""
        return {name: _take(value.detach(), active) for name, value in params.items()}

    def _spread(self, values: Tensor, active: list[int]) -> Tensor:
        """[A] -> [R], with NaN for the others."""
        if len(active) == len(self._places):
            return values
        return _put(values.new_full((len(self._places),), torch.nan), active, values)

    def _infinite(self) -> Tensor:
        dtype = next(iter(self.params.values())).dtype
        return torch.full((len(self._places),), torch.inf, dtype=dtype, device=self.engine.device)

    def _unjudged(self) -> Tensor:
        return self._infinite().expand(len(self.engine.compared), -1) * torch.nan


def _optimizer(config: Optimizer, params: CanvasParams) -> torch.optim.Optimizer:
    tensors = [value.requires_grad_() for value in params.values()]
    if config.name == "sgd":
        return torch.optim.SGD(
            tensors, config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(tensors, config.lr, config.betas, config.eps, config.weight_decay)


def _limited(gradient: CanvasParams, config: Optimizer) -> CanvasParams:
    """Each sample's gradient, over all tensors, normalised and clipped as the config asks."""
    if config.normalize == "none" and config.clip is None:
        return gradient
    norm = torch.cat([g.flatten(1) for g in gradient.values()], dim=1).norm(dim=1)
    scale = torch.ones_like(norm)
    if config.normalize == "sample":
        scale = 1 / norm.where(norm > 0, 1.0)
        norm = (norm > 0).to(norm.dtype)
    if config.clip is not None:
        scale = scale * (config.clip / norm.clamp_min(config.clip))
    return {name: g * scale.view(-1, *[1] * (g.dim() - 1)) for name, g in gradient.items()}


def _copy(params: CanvasParams) -> CanvasParams:
    return {name: value.detach().clone() for name, value in params.items()}


def _take(source: Tensor, active: list[int]) -> Tensor:
    """The rows of the active samples; the tensor itself where all are."""
    return source if len(active) == len(source) else source[active]


def _put(target: Tensor, active: list[int], values: Tensor) -> Tensor:
    """Writes the rows of the active samples, in place."""
    if len(active) == len(target):
        return target.copy_(values)
    return target.index_copy_(0, torch.tensor(active, device=target.device), values.to(target.dtype))
