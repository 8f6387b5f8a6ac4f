"""The recipes' training loop: time budget, cosine learning rate, weight averaging, resume, log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from refcore.runs.state import load_state, save_state

WARMUP = 0.02
"""Share of the budget in which the learning rate rises."""
LOG_EVERY = 50
"""Steps between log lines."""
SAVE_EVERY = 300.0
"""Seconds between saves of the resumable state and the native checkpoint."""


class Recipe(Protocol):
    """A model for the loop to train: its modules, a loss on fresh data, an evaluation, a native save."""

    lr: float
    ema_decay: float

    def modules(self) -> nn.ModuleDict: ...
    def loss(self, step: int, progress: float) -> dict[str, Tensor]: ...
    def warm_start(self) -> None: ...
    def save(self) -> None: ...
    def evaluate(self, quick: bool) -> dict[str, float]: ...  # of the weights just saved


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up, then cosine to a fiftieth of the peak; `progress` in [0, 1] of the budget."""
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.02)
    done = min((progress - WARMUP) / (1 - WARMUP), 1.0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(recipe: Recipe, state_dir: Path, minutes: float, seed: int) -> None:
    """Trains for `minutes` of wall-clock time, over all resumed runs together, and saves the averaged weights.

    `state_dir` receives `state.safetensors` (replaced atomically) and `log.jsonl`; a run that finds them continues.
    """
    training = Training(recipe, state_dir)
    torch.manual_seed(seed + training.step)
    budget = minutes * 60
    last_save, seen = training.elapsed, 0
    sums: dict[str, float] = {}
    while training.elapsed < budget:
        for name, value in training.advance(training.elapsed / budget).items():
            sums[name] = sums.get(name, 0.0) + value
        seen += 1
        if training.step % LOG_EVERY == 0:
            training.log(**{name: value / seen for name, value in sums.items()})
            sums, seen = {}, 0
        if training.elapsed - last_save > SAVE_EVERY:
            training.save()
            training.log(**training.evaluate(quick=True))
            last_save = training.elapsed
    training.save()
    training.log(final=True, **training.evaluate(quick=False))


class Training:
    """A recipe in training: its weights and their average, the optimiser, the steps done and the seconds spent."""

    def __init__(self, recipe: Recipe, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self.recipe, self.state_dir, self.state_file = recipe, state_dir, state_dir / "state.safetensors"
        self.modules = recipe.modules()
        self.trainable = [p for p in self.modules.parameters() if p.requires_grad]
        decayed = [p for p in self.trainable if p.ndim > 1]
        plain = [p for p in self.trainable if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
            lr=recipe.lr,
            betas=(0.9, 0.98),
        )
        self.averaged = {k: v.detach().clone() for k, v in self.modules.state_dict().items()}
        self.step, self.elapsed = 0, 0.0
        if self.state_file.exists():
            self._resume(load_state(self.state_file))
        self.modules.train()

    def advance(self, progress: float) -> dict[str, float]:
        """One optimiser step, at `progress` in [0, 1] of the budget; returns the losses."""
        began = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.lr, progress)
        # On the CPU the fused attention's backward takes most of a step at these sizes; plain products are 2-3x faster.
        with sdpa_kernel(SDPBackend.MATH):
            losses = self.recipe.loss(self.step, progress)
            total = torch.stack(list(losses.values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trainable, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.modules.state_dict().items():
                if value.is_floating_point():
                    self.averaged[name].lerp_(value, 1 - decay)
                else:
                    self.averaged[name].copy_(value)
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.elapsed += time.perf_counter() - began
        return values

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Saves the native checkpoint of the averaged weights and evaluates it."""
        current = {k: v.clone() for k, v in self.modules.state_dict().items()}
        self.modules.load_state_dict(self.averaged)
        self.modules.eval()
        self.recipe.save()
        with torch.no_grad():
            scores = self.recipe.evaluate(quick)
        self.modules.load_state_dict(current)
        self.modules.train()
        return scores

    def save(self) -> None:
        """Saves the resumable state."""
        moments = {
            f"{parameter}.{name}": value
            for parameter, own in self.optimizer.state_dict()["state"].items()
            for name, value in own.items()
        }
        parts = {"modules": self.modules.state_dict(), "averaged": self.averaged, "moments": moments}
        tensors = {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}
        save_state({"tensors": tensors, "meta": {"step": self.step, "elapsed": self.elapsed}}, self.state_file)

    def _resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `save` wrote."""
        parts: dict[str, dict[str, Tensor]] = {"modules": {}, "averaged": {}, "moments": {}}
        for name, value in state["tensors"].items():
            part, _, own = name.partition(".")
            parts[part][own] = value
        self.modules.load_state_dict(parts["modules"])
        self.averaged = parts["averaged"]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["moments"].items():
            parameter, _, own = name.partition(".")
            moments.setdefault(int(parameter), {})[own] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step, self.elapsed = state["meta"]["step"], state["meta"]["elapsed"]

    def log(self, **values: Any) -> None:
        """Appends a line to the log and prints it."""
        row = {"step": self.step, "minutes": self.elapsed / 60, **values}
        with (self.state_dir / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
