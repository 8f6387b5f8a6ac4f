"""Tracks: the rows of parameters on their way to the samples' images, and all that moves with a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refcore.config.optimize import Ema, Optimizer
from refcore.contracts.canvas import CanvasParams
from refcore.engine import lbfgs
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Key, Rng


class Candidate(NamedTuple):
    """One of the tries at a sample; without `candidates` in the config, its only one."""

    sample: int
    """0 .. B - 1."""
    candidate: int
    """0 .. candidates.count - 1, in later tries from there on; it keeps its number when others are dropped."""


class Snapshot(NamedTuple):
    """The parameters of tracks at one moment, with their average."""

    numbers: list[int]
    params: CanvasParams
    ema: CanvasParams | None


class Tracks:
    """R rows of parameters with their moving average, best parameters, optimiser state and standing.

    Row r is the engine's track `numbers[r]`. Dropped rows leave everything (`keep`); frozen ones stay as they are
    while the `active` ones move. Every method takes rows, not track numbers.
    """

    def __init__(
        self,
        params: CanvasParams,
        optimizer: Optimizer,
        ema: Ema | None,
        keeps_best: bool,
        compared: int,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Tracks that have not moved yet.

        Args:
            params: of step 0, each tensor [R, ...].
            optimizer: how rows move.
            ema: the moving average; None keeps none.
            keeps_best: whether `best` parameters are kept.
            compared: T, the number of referees that compare candidates; 0 where there are none to compare.
            numbers: [R] the engine's numbers of the tracks; None: 0 .. R - 1.
        """
        self.settings, self.averaging = optimizer, ema
        self.params = params
        self.ema: CanvasParams | None = None if ema is None else _copy(params)
        """Moving average of the parameters."""
        self.best: CanvasParams | None = _copy(params) if keeps_best else None
        """Parameters of the lowest loss that a look has seen."""
        count = len(next(iter(params.values())))
        self.numbers: list[int] = list(range(count) if numbers is None else numbers)
        """[R] the engine's number of each row's track."""
        self.active: list[int] = list(range(count))
        """Rows that still move."""
        one = next(iter(params.values()))
        infinite = torch.full((len(self.numbers),), torch.inf, dtype=one.dtype, device=one.device)
        self.best_loss = infinite
        """[R] loss of `best`."""
        self.stop_loss = infinite.clone()
        """[R] lowest loss that early stopping has seen."""
        self.waited = torch.zeros(len(self.numbers), dtype=torch.int64, device=one.device)
        """[R] looks without improvement."""
        self.recent = infinite.expand(compared, -1) * torch.nan
        """[T, R] moving average of recent losses, which candidates are compared by; NaN before the first."""
        self.scale: Tensor | None = None
        """[T, B] spread of each referee's losses over all candidates, when some were first dropped."""
        self._optimizer = _optimizer(optimizer, params)
        self._curvature: dict[int, lbfgs.State] = {}
        """Number of each track that lbfgs has moved -> what it knows of it."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def averaged(self) -> CanvasParams:
        """The moving average, or the parameters where there is none."""
        return self.ema or self.params

    def numbers_of(self, rows: Sequence[int]) -> list[int]:
        """The engine's numbers of some rows' tracks."""
        return [self.numbers[row] for row in rows]

    def take(self, params: CanvasParams, rows: list[int]) -> CanvasParams:
        """Some rows of `params`, detached."""
        return {name: _take(value.detach(), rows) for name, value in params.items()}

    def spread(self, values: Tensor, rows: list[int]) -> Tensor:
        """[R] from values of some rows, with NaN for the others."""
        if len(rows) == len(self):
            return values
        return _put(values.new_full((len(self),), torch.nan), rows, values)

    def update(self, gradient: CanvasParams, rows: list[int], at: Moment) -> None:
        """One optimiser step of some rows, with the learning rates of `at`; every rule used here is elementwise."""
        assert self._optimizer is not None, "lbfgs searches"
        all_move = len(rows) == len(self)
        before = None if all_move else _copy(self.params)
        for name, param in self.params.items():
            param.grad = gradient[name] if all_move else _put(torch.zeros_like(param), rows, gradient[name])
        rates = self.settings.lr_at(at)
        for group in self._optimizer.param_groups:
            group["lr"] = rates[group["entry"]] if isinstance(rates, dict) else rates
        self._optimizer.step()
        for name, param in self.params.items():
            param.grad = None
            if before is not None:  # momentum and weight decay would move what is frozen
                param.data.copy_(_put(before[name], rows, param.data[rows]))

    def searched(
        self,
        loss: Tensor,
        gradient: CanvasParams,
        rows: list[int],
        at: Moment,
        evaluate: Callable[[int, CanvasParams], lbfgs.Evaluated],
    ) -> list[tuple[CanvasParams, lbfgs.State]]:
        """What a step of lbfgs makes of some rows, one by one; nothing changes before `move`.

        Args:
            loss: [A] of the rows.
            gradient: of the rows, each tensor [A, ...].
            rows: that move.
            at: the step.
            evaluate: loss and gradient of a row at other parameters, each tensor [1, ...].
        """
        lr = self.settings.lr_at(at)
        assert not isinstance(lr, dict), "lbfgs has one rate"
        found = []
        for place, row in enumerate(rows):
            params = self.take(self.params, [row])
            first = (float(loss[place]), {name: value[place : place + 1] for name, value in gradient.items()})
            state = self._curvature.get(self.numbers[row], {})
            found.append(lbfgs.search(self.settings, lr, params, state, first, partial(evaluate, row)))
        return found

    def move(self, rows: list[int], found: Sequence[tuple[CanvasParams, lbfgs.State]]) -> None:
        """Takes over what `searched` has found for some rows."""
        self.replace(rows, {name: torch.cat([params[name] for params, _ in found]) for name in self.params})
        self._curvature |= {self.numbers[row]: state for row, (_, state) in zip(rows, found, strict=True) if state}

    def replace(self, rows: list[int], params: CanvasParams) -> None:
        """Sets the parameters of some rows, each tensor [A, ...]."""
        for name, param in self.params.items():
            _put(param.data, rows, params[name])

    def add_noise(self, std: float, keys: Sequence[Key], rows: list[int], step: int) -> None:
        """Adds Gaussian noise to some rows, drawn by the keys of their tracks."""
        for name, param in self.params.items():
            noise = Rng(keys, step, f"noise/{name}", device=param.device).normal(*param.shape[1:])
            _put(param.data, rows, _take(param.data, rows) + std * noise.to(param.dtype))

    def average(self, rows: list[int], step: int) -> None:
        """Takes some rows into the moving average after a step, and restarts them from it where the config says so."""
        settings = self.averaging
        if settings is None or self.ema is None:
            return
        decay = settings.decay if step >= settings.start else 0.0
        for name, param in self.params.items():
            average = self.ema[name]
            _put(average, rows, decay * _take(average, rows) + (1 - decay) * _take(param.data, rows))
            if step in settings.restarts:
                _put(param.data, rows, _take(average, rows))
        if step in settings.restarts and settings.momentum == "reset":
            self._restore({})

    def improve(self, params: CanvasParams, total: Tensor, rows: list[int]) -> None:
        """Keeps the parameters of some rows as their best where their losses [A] are lower than before."""
        if self.best is None:
            return
        better = total < self.best_loss[rows]
        _put(self.best_loss, rows, torch.where(better, total, self.best_loss[rows]))
        for name, best in self.best.items():
            mask = better.view(-1, *[1] * (best.dim() - 1))
            _put(best, rows, torch.where(mask, params[name], best[rows]))

    def wait(self, total: Tensor, rows: list[int], min_delta: float) -> Tensor:
        """[A] looks without improvement of some rows, this one of losses [A] included."""
        improved = total < self.stop_loss[rows] - min_delta
        _put(self.stop_loss, rows, torch.where(improved, total, self.stop_loss[rows]))
        _put(self.waited, rows, torch.where(improved, 0, self.waited[rows] + 1))
        return self.waited[rows]

    def remember(self, referee: int, losses: Tensor, decay: float) -> None:
        """Brings one referee's average of recent losses up to date by [R] losses; NaN where a row was not judged."""
        now, before = losses.to(self.recent.dtype), self.recent[referee]
        average = torch.where(before.isnan(), now, decay * before + (1 - decay) * now)
        self.recent[referee] = torch.where(now.isnan(), before, average)

    def snapshot(self) -> Snapshot:
        """Copies of the parameters and their average as they are now."""
        return Snapshot(list(self.numbers), _copy(self.params), self.ema and _copy(self.ema))

    def restore(self, snapshot: Snapshot) -> None:
        """Takes the parameters and their average back to an earlier moment; the optimiser stays as it is."""
        rows = [snapshot.numbers.index(number) for number in self.numbers]
        for now, before in ((self.params, snapshot.params), (self.ema or {}, snapshot.ema or {})):
            for name, value in now.items():
                value.data.copy_(_take(before[name], rows))

    def finite(self) -> Tensor:
        """Scalar bool, not read here: whether all parameters and their average are finite."""
        values = [*self.params.values(), *(self.ema or {}).values()]
        return torch.stack([value.detach().isfinite().all() for value in values]).all()

    def add(self, params: CanvasParams, numbers: Sequence[int]) -> None:
        """Takes in new tracks, each tensor of their parameters [N, ...]; the rows that are here stay as they are.

        Afterwards the new ones alone are active, all rows are ordered by their numbers, and the optimiser begins anew.
        """
        everyone = [*self.numbers, *numbers]
        order = sorted(range(len(everyone)), key=everyone.__getitem__)

        def joined(old: Tensor, new: Tensor) -> Tensor:
            return torch.cat([old.detach(), new.detach().to(old)])[order]

        def joined_params(old: CanvasParams) -> CanvasParams:
            return {name: joined(value, params[name]) for name, value in old.items()}

        fresh = Tracks(params, self.settings, self.averaging, self.best is not None, len(self.recent))
        self.params = joined_params(self.params)
        self.ema = self.ema and joined_params(self.ema)
        self.best = self.best and joined_params(self.best)
        self.best_loss = joined(self.best_loss, fresh.best_loss)
        self.stop_loss = joined(self.stop_loss, fresh.stop_loss)
        self.waited = joined(self.waited, fresh.waited)
        self.recent = torch.cat([self.recent, fresh.recent], 1)[:, order]
        self.scale = None
        self.numbers = [everyone[row] for row in order]
        self.active = [place for place, row in enumerate(order) if row >= len(everyone) - len(numbers)]
        self._restore({})

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, with everything that belongs to them."""
        kept = list(rows)
        moments = self._moments()
        if self._optimizer is None:
            moments = {number: moments[number] for number in map(str, self.numbers_of(kept)) if number in moments}
        else:
            moments = {
                name: {
                    kind: value[kept] if isinstance(value, Tensor) and value.dim() else value
                    for kind, value in m.items()
                }
                for name, m in moments.items()
            }
        self.params = {name: value.detach()[kept] for name, value in self.params.items()}
        self._restore(moments)
        self.ema = self.ema and {name: value[kept] for name, value in self.ema.items()}
        self.best = self.best and {name: value[kept] for name, value in self.best.items()}
        self.best_loss, self.stop_loss = self.best_loss[kept], self.stop_loss[kept]
        self.waited, self.recent = self.waited[kept], self.recent[:, kept]
        moving = set(self.active)
        self.numbers = [self.numbers[row] for row in kept]
        self.active = [i for i, row in enumerate(kept) if row in moving]

    def state_dict(self) -> dict[str, Any]:
        """`tensors` (flat, name -> tensor) and `meta` (plain values)."""
        tensors = {f"params.{name}": value for name, value in self.params.items()}
        for group, kept in (("ema", self.ema), ("best", self.best)):
            tensors |= {f"{group}.{name}": value for name, value in (kept or {}).items()}
        tensors |= {"best_loss": self.best_loss, "stop_loss": self.stop_loss, "waited": self.waited}
        if len(self.recent):
            tensors["candidates.recent"] = self.recent
        if self.scale is not None:
            tensors["candidates.scale"] = self.scale
        for name, state in self._moments().items():
            tensors |= {f"optimizer.{name}.{kind}": value for kind, value in state.items() if value is not None}
        meta = {"active": list(self.active), "candidates": list(self.numbers), "tensors": list(self.params)}
        return {"tensors": tensors, "meta": meta}

    def load_state_dict(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Restores `state_dict`, on the device of the parameters that are here.

        Raises:
            RefcoreError: the state is of an older refcore, which did not name the tensors.
        """
        if "tensors" not in meta:
            raise RefcoreError("the saved state is of an older refcore, which cannot be resumed; start anew")
        device = next(iter(self.params.values())).device
        params = named(tensors, "params.", device)
        self.params = {name: params[name] for name in meta["tensors"]}  # norms are summed in this order
        self.ema = named(tensors, "ema.", device) if self.ema is not None else None
        self.best = named(tensors, "best.", device) if self.best is not None else None
        alone = {name: tensors[name].detach().clone().to(device) for name in ("best_loss", "stop_loss", "waited")}
        self.best_loss, self.stop_loss, self.waited = alone["best_loss"], alone["stop_loss"], alone["waited"]
        self.active, self.numbers = list(meta["active"]), list(meta["candidates"])
        compared = named(tensors, "candidates.", device)
        self.recent, self.scale = compared.get("recent", self.recent), compared.get("scale")
        moments: dict[str, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            if path.startswith("optimizer."):  # left where it is: Adam's step counter belongs on the CPU
                name, _, kind = path.removeprefix("optimizer.").rpartition(".")
                moments.setdefault(name, {})[kind] = value.detach().clone()
        self._restore(moments)

    def _moments(self) -> dict[str, dict[str, Any]]:
        """Name of each tensor that has moved, of lbfgs number of each track, -> the optimiser's state of it."""
        if self._optimizer is None:
            return {str(number): dict(state) for number, state in self._curvature.items()}
        state = self._optimizer.state
        return {name: dict(state[param]) for name, param in self.params.items() if param in state}

    def _restore(self, moments: Mapping[str, Mapping[str, Any]]) -> None:
        """A new optimiser of the parameters with some state."""
        self._optimizer = _optimizer(self.settings, self.params)
        if self._optimizer is None:
            self._curvature = {int(number): dict(state) for number, state in moments.items()}
            return
        names = [name for own in self.settings.tensors_of(list(self.params)).values() for name in own]
        state = {i: moments[name] for i, name in enumerate(names) if name in moments}
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})


def named(tensors: Mapping[str, Tensor], prefix: str, device: torch.device) -> dict[str, Tensor]:
    """Copies on a device of the tensors whose names start with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): value.detach().clone().to(device)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _optimizer(config: Optimizer, params: CanvasParams) -> torch.optim.Optimizer | None:
    """torch's optimiser, with a group of tensors for each entry of `optimizer.lr`; each step sets their rates.

    None for lbfgs, which is one for each row.
    """
    if config.name == "lbfgs":
        return None
    groups: list[dict[str, Any]] = [
        {"params": [params[name].requires_grad_() for name in names], "entry": entry}
        for entry, names in config.tensors_of(list(params)).items()
        if names
    ]
    unset = 0.0
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, unset, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, unset, config.betas, config.eps, config.weight_decay)


def _copy(params: CanvasParams) -> CanvasParams:
    return {name: value.detach().clone() for name, value in params.items()}


def _take(source: Tensor, rows: list[int]) -> Tensor:
    """Some rows; the tensor itself where all are taken."""
    return source if len(rows) == len(source) else source[rows]


def _put(target: Tensor, rows: list[int], values: Tensor) -> Tensor:
    """Writes some rows, in place."""
    if len(rows) == len(target):
        return target.copy_(values)
    return target.index_copy_(0, torch.tensor(rows, device=target.device), values.to(target.dtype))
