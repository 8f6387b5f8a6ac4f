"""`refcore doctor`: this machine, and the checkpoints and memory that a config needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from refcore.cli.output import print_json, print_table, stdout
from refcore.config import presets
from refcore.config.run import RunConfig

GB = 10**9
OFFLINE = (
    "downloads go to the hub's cache (HF_HOME); without a network, copy that folder here and set HF_HUB_OFFLINE=1, "
    "or set the field to a local folder"
)


def run(
    preset_name: str | None, file: Path | None, overrides: list[str], gigabytes: float | None, as_json: bool
) -> None:
    from refcore.diagnostics import doctor

    machine, own = doctor.machine(), doctor.own_checkpoints()
    needs = None
    if preset_name is not None or file is not None or overrides:
        config = presets.compose(preset_name, file, overrides)
        needs = {**_needs(config), "memory": _memory(config, None if gigabytes is None else int(gigabytes * GB))}
    if as_json:
        needed = None
        if needs is not None:
            parts = [asdict(part) for part in needs["memory"]["parts"]]
            needed = {
                **needs,
                "checkpoints": [asdict(c) for c in needs["checkpoints"]],
                "memory": {**needs["memory"], "parts": parts},
            }
        print_json({**machine, "embedded": [asdict(checkpoint) for checkpoint in own], "needed": needed})
        return
    rows: list[tuple[str, str]] = [
        ("device", f"{machine['device']}: {machine['name']}, {machine['threads']} torch threads"),
        ("memory", f"{_gb(machine['total_bytes'])}, {_gb(machine['free_bytes'])} free"),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
        ("embedded", ", ".join(f"{checkpoint.model} ({_gb(checkpoint.bytes)})" for checkpoint in own) or "none"),
    ]
    print_table(["", ""], rows)
    if needs is not None:
        _print_needs(needs)


def _needs(config: RunConfig) -> dict[str, Any]:
    """What a config needs: dtype, checkpoints, weights_bytes (at loading), steps_bytes (after reading), problems."""
    import torch

    from refcore.diagnostics import doctor
    from refcore.engine.preflight import problems

    checkpoints = doctor.needed_checkpoints(config)
    dtype = getattr(torch, config.dtype)
    weights = doctor.weights_in_memory(checkpoints, dtype)
    dropped = dtype.itemsize * sum(checkpoint.reading for checkpoint in checkpoints)
    return {
        "dtype": config.dtype,
        "checkpoints": checkpoints,
        "weights_bytes": weights,
        "steps_bytes": None if weights is None else weights - dropped,
        "problems": list(dict.fromkeys(" ".join(str(problem).split()) for problem in problems(config))),
    }


TRIED: tuple[dict[str, str], ...] = (
    {"offload": "cpu"},
    {"weights": "int8"},
    {"weights": "int8", "offload": "cpu"},
    {"dtype": "bfloat16"},
    {"dtype": "bfloat16", "offload": "cpu"},
)
"""Settings of a run that lower its memory, each of which is counted where the run as it is does not fit."""


def _memory(config: RunConfig, device_bytes: int | None) -> dict[str, Any]:
    """What a config needs on its device: parts, bytes, device_bytes, unknown, fits, and the settings `tried`."""
    from refcore.diagnostics import footprint
    from refcore.engine import memory
    from refcore.engine.loading import pick_device
    from refcore.errors import RefcoreError

    device, apart = config.device, True
    if device_bytes is None:
        try:
            there = pick_device(config.device)
        except RefcoreError:  # `problems` has it
            there = pick_device("auto")
        device, apart, device_bytes = str(there), there.type != "cpu", memory.total_memory(there)
    parts = footprint.parts(config)
    need = footprint.need(parts, apart and config.offload == "cpu")
    fits = None if device_bytes is None else need.most <= device_bytes
    tried: list[dict[str, Any]] = []
    counted: dict[str, Any] = {"": parts}
    for settings in TRIED if fits is False else ():
        changes = [f"{name}={value}" for name, value in settings.items() if name != "offload"]
        present = all(getattr(config, name) == value for name, value in settings.items())
        if present or ("offload" in settings and not apart):
            continue
        changed = config.model_copy(update={k: v for k, v in settings.items() if k != "offload"})
        key = " ".join(changes)
        if key not in counted:
            counted[key] = footprint.parts(changed)
        other = footprint.need(counted[key], settings.get("offload", config.offload) == "cpu")
        tried.append({"set": settings, "bytes": other.most, "fits": other.most <= (device_bytes or 0)})
    return {
        "parts": parts,
        "steps_bytes": need.steps,
        "loading_bytes": need.loading,
        "unknown": list(need.unknown),
        "device": device,
        "device_bytes": device_bytes,
        "fits": None if need.unknown and fits else fits,
        "tried": tried,
    }


def _print_memory(found: dict[str, Any]) -> None:
    stdout.print()
    print_table(
        ["part", "weights", "while loading", "activations", "held"],
        [
            [p.label, f"those of {p.same}" if p.same else _gb(p.weights), _gb(p.loading), _gb(p.peak), _gb(p.held)]
            for p in found["parts"]
        ],
    )

    def say(text: str) -> None:
        stdout.print(text, markup=False, soft_wrap=True)

    most, has = max(found["steps_bytes"], found["loading_bytes"]), found["device_bytes"]
    least = "at least " if found["unknown"] else ""
    say(f"needs {least}{_gb(most)} on the device, one view judged at a time, without the workspace of kernels")
    if found["unknown"]:
        say(f"not counted, since the shapes are not known: {', '.join(found['unknown'])}")
    if found["fits"] is None:
        return
    if found["fits"]:
        say(f"fits in the device's {_gb(has)}")
        return
    say(f"does not fit in the device's {_gb(has)}")
    for other in found["tried"]:
        sets = " ".join(f"--set {name}={value}" for name, value in other["set"].items())
        say(f"{'try' if other['fits'] else 'not enough'}: {sets}, {least}{_gb(other['bytes'])}")
    if not any(other["fits"] for other in found["tried"]):
        say("try fewer seeds or candidates, a smaller size, or recompute of the canvas (docs/guides/gpu.md)")


def _print_needs(needs: dict[str, Any]) -> None:
    import torch

    dtype = getattr(torch, needs["dtype"])
    stdout.print()
    print_table(
        ["checkpoint", "state", "on disk", f"in {needs['dtype']}", "used by"],
        [[c.model, c.state, _gb(c.bytes), _gb(c.in_memory(dtype)), ", ".join(c.used_by)] for c in needs["checkpoints"]],
    )
    for checkpoint in needs["checkpoints"]:
        if checkpoint.state == "missing":
            text = f'"{checkpoint.model}" is missing: {checkpoint.remedy}'
            stdout.print(text, markup=False, soft_wrap=True)
    if any(c.state == "missing" and "hf download" in c.remedy for c in needs["checkpoints"]):
        stdout.print(OFFLINE, markup=False, soft_wrap=True)
    told = [c.remedy for c in needs["checkpoints"] if c.state == "missing"]
    for problem in needs["problems"]:
        if any(remedy in problem for remedy in told):
            continue
        stdout.print(f"problem: {problem}", markup=False, soft_wrap=True)
    whole, later = needs["weights_bytes"], needs["steps_bytes"]
    if whole is not None:
        dropped = "" if later == whole else f" ({_gb(later)} once the prompts are read)"
        stdout.print(f"needs {_gb(whole)} of weights{dropped} in {needs['dtype']}", markup=False)
    _print_memory(needs["memory"])


def _gb(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 10**6:.1f} MB"
