"""`refcore doctor`: this machine, and the checkpoints and memory that a config needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from refcore.cli.output import print_json, print_table, stdout
from refcore.config import presets

GB = 10**9


def run(preset_name: str | None, file: Path | None, overrides: list[str], as_json: bool) -> None:
    import torch

    from refcore.diagnostics import doctor

    machine = doctor.machine()
    own = doctor.own_checkpoints()
    needed: dict[str, Any] | None = None
    if preset_name is not None or file is not None or overrides:
        config = presets.compose(preset_name, file, overrides)
        checkpoints = doctor.needed_checkpoints(config)
        weights = doctor.weights_in_memory(checkpoints, getattr(torch, config.dtype))
        needed = {
            "dtype": config.dtype,
            "checkpoints": [asdict(checkpoint) for checkpoint in checkpoints],
            "weights_bytes": weights,
        }
    found = {**machine, "embedded": [asdict(checkpoint) for checkpoint in own], "needed": needed}
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str, str]] = [
        ("device", f"{machine['device']}: {machine['name']}, {machine['threads']} torch threads"),
        ("memory", f"{_gb(machine['total_bytes'])}, {_gb(machine['free_bytes'])} free"),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
        ("embedded", ", ".join(f"{checkpoint.model} ({_gb(checkpoint.bytes)})" for checkpoint in own) or "none"),
    ]
    print_table(["", ""], rows)
    if needed is None:
        return
    columns = ["checkpoint", "state", "on disk", f"in {needed['dtype']}", "used by"]
    stdout.print()
    print_table(
        columns,
        [
            [c.model, c.state, _gb(c.bytes), _gb(c.in_memory(getattr(torch, config.dtype))), ", ".join(c.used_by)]
            for c in checkpoints
        ],
    )
    for checkpoint in checkpoints:
        if checkpoint.state == "missing":
            stdout.print(
                f'"{checkpoint.model}" is missing: the first run downloads it, or `hf download '
                f"{checkpoint.model}`; without a network, copy it to this machine and set {checkpoint.used_by[0]}",
                markup=False,
                soft_wrap=True,
            )
    known = needed["weights_bytes"] is not None
    sized = f"{_gb(needed['weights_bytes'])} of weights" if known else "weights of unknown size"
    stdout.print(f"needs {sized} in {config.dtype}, and memory for activations (docs/performance.md)", markup=False)


def _gb(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 10**6:.1f} MB"
