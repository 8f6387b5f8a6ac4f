"""The training loop that the recipes share: a time budget, cosine learning rate, weight averaging, resume, a log."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

WARMUP = 0.02
"""Share of the budget over which the learning rate rises."""
SAVE_EVERY = 300.0
"""Seconds between saves of the resumable state and of the native checkpoint."""


class Recipe(Protocol):
    """What the loop needs of a model: its parts, a loss on fresh data, an evaluation, a native save."""

    lr: float
    ema_decay: float

    def modules(self) -> nn.ModuleDict: ...
    def loss(self, step: int, progress: float) -> dict[str, Tensor]: ...
    def warm_start(self) -> None: ...
    def save(self) -> None: ...
    def evaluate(self, quick: bool) -> dict[str, float]: ...  # of what was just saved


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up, then cosine to a fiftieth of the peak; `progress` in [0, 1] of the budget."""
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.02)
    done = min((progress - WARMUP) / (1 - WARMUP), 1.0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(recipe: Recipe, state_dir: Path, minutes: float, seed: int) -> None:
    """Trains for `minutes` of wall-clock over all resumed runs together and saves the averaged weights.

    `state_dir` receives `state.pt` (replaced atomically) and `log.jsonl`; a run that finds them goes on from there.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    modules = recipe.modules()
    trainable = [p for p in modules.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1]
    plain = [p for p in trainable if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=(0.9, 0.98),
    )
    averaged = {k: v.detach().clone() for k, v in modules.state_dict().items()}
    step, elapsed = 0, 0.0
    state_file = state_dir / "state.pt"
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        modules.load_state_dict(saved["modules"])
        optimizer.load_state_dict(saved["optimizer"])
        averaged, step, elapsed = saved["averaged"], saved["step"], saved["elapsed"]
    torch.manual_seed(seed + step)

    def save() -> None:
        part = state_file.with_suffix(".part")
        content: dict[str, Any] = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**content, "averaged": averaged, "step": step, "elapsed": elapsed}, part)
        os.replace(part, state_file)

    def evaluate(quick: bool) -> dict[str, float]:
        current = {k: v.clone() for k, v in modules.state_dict().items()}
        modules.load_state_dict(averaged)
        modules.eval()
        recipe.save()
        with torch.no_grad():
            scores = recipe.evaluate(quick)
        modules.load_state_dict(current)
        modules.train()
        return scores

    def log(**row: Any) -> None:
        with (state_dir / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)

    modules.train()
    last_save, seen = elapsed, 0
    sums: dict[str, float] = {}
    while elapsed < minutes * 60:
        begin = time.perf_counter()
        progress = elapsed / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.lr, progress)
        # On the CPU the fused attention's backward takes most of a step at these sizes; plain products are 2-3x faster.
        with sdpa_kernel(SDPBackend.MATH):
            losses = recipe.loss(step, progress)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        step += 1
        decay = min(recipe.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in modules.state_dict().items():
                if value.is_floating_point():
                    averaged[name].lerp_(value, 1 - decay)
                else:
                    averaged[name].copy_(value)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        seen += 1
        elapsed += time.perf_counter() - begin
        if step % 50 == 0:
            log(step=step, minutes=elapsed / 60, **{k: v / seen for k, v in sums.items()})
            sums, seen = {}, 0
        if elapsed - last_save > SAVE_EVERY:
            save()
            log(step=step, minutes=elapsed / 60, **evaluate(quick=True))
            last_save = elapsed
    save()
    log(step=step, minutes=elapsed / 60, final=True, **evaluate(quick=False))
