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


def run(preset_name: str | None, file: Path | None, overrides: list[str], as_json: bool) -> None:
    from refcore.diagnostics import doctor

    machine, own = doctor.machine(), doctor.own_checkpoints()
    needs = None
    if preset_name is not None or file is not None or overrides:
        needs = _needs(presets.compose(preset_name, file, overrides))
    if as_json:
        needed = None if needs is None else {**needs, "checkpoints": [asdict(c) for c in needs["checkpoints"]]}
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
    sized = "weights of unknown size"
    if needs["weights_bytes"] is not None:
        sized = f"{_gb(needs['weights_bytes'])} of weights"
    later = needs["steps_bytes"]
    if later != needs["weights_bytes"]:
        sized += f" ({_gb(later)} once the prompts are read)"
    stdout.print(f"needs {sized} in {needs['dtype']}, and memory for activations (docs/performance.md)", markup=False)


def _gb(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 10**6:.1f} MB"
