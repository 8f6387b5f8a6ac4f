"""Fingerprints of ten short runs: SHA-256 of their pictures, losses and scores, for a change that must not change them.

    python tests/exactness/fingerprints.py > before     # on the old code
    python tests/exactness/fingerprints.py > after      # on the new code, same machine, same versions
    diff before after

The hashes are those of one processor and one set of library versions; none is committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

TWO = ["a red circle left of a blue square", "two striped green rings"]
SHORT = ["--set", "steps=4", "--set", "candidates={count: 1}", "--set", "init=null", "--set", "optimizer.lr=0.2"]


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def command(*words: str) -> str:
    """Output of one `refcore` command."""
    from refcore.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            main(list(words))
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"refcore {' '.join(words)} failed") from end
    return printed.getvalue()


def invert(out: Path, *words: str) -> str:
    """Fingerprint of `refcore invert`."""
    command("invert", *words, "--out", str(out), "--json")
    pictures = [path.read_bytes() for path in sorted(out.glob("image_*.png"))]
    losses = [_steady(json.loads(line)) for line in (out / "history.jsonl").read_text().splitlines()]
    samples = json.loads((out / "result.json").read_text())["samples"]
    scores = [[sample["scores"], sample["witnesses"]] for sample in samples]
    return digest(*pictures, *(json.dumps(part, sort_keys=True).encode() for part in (losses, scores)))


def _steady(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("seconds", "angles", "weights")}


def plain(canvas: str, *overrides: str) -> Callable[[Path], str]:
    """A run from noise on a canvas with the playground's referees, or with the overridden ones."""
    sets = [word for override in (f"canvas={{name: {canvas}}}", *overrides) for word in ("--set", override)]
    return lambda out: invert(out, *TWO, "--seeds", "0,7", *SHORT, *sets)


def resumed(out: Path) -> str:
    """A run that is saved in its middle and goes on in another object."""
    from refcore import Inversion, resolve
    from refcore.config import presets

    config = presets.compose(
        None,
        None,
        ["steps=6", "candidates={count: 3, keep: [[2, 2]]}", "init=null", "optimizer.lr=0.2", "output=ema"],
        prompts=TWO,
        seeds=[3],
    )
    config = resolve(config)
    first = Inversion(config)
    for _ in range(3):
        next(first)
    state = first.state_dict()
    second = Inversion(config, state=state)
    records = [_steady(step.record()) for step in second]
    return digest(second.images().numpy().tobytes(), json.dumps(records, sort_keys=True).encode())


def benchmark(out: Path) -> str:
    """Two variants of the playground's benchmark, one inversion and one choice among samples."""
    from refcore_bench.storing.results import Results

    short = "steps=3,init.rounds=[],candidates.count=3"
    variants = [f"short=playground,{short}", "best-of-n=best-of-n,count=3,steps=5"]
    command(
        "bench", "playground", "--out", str(out), "--count", "4", "--split", "seen", "--batch", "4",
        *(word for variant in variants for word in ("--variant", variant)),
    )  # fmt: skip
    rows = Results(out).rows(images=True).sort("variant", "prompt", "seed")
    told = rows.select("variant", "prompt", "seed", "verdict", "model_evaluations").rows()
    scores = [[(score["referee"], score["score"]) for score in row] for row in rows["scores"].to_list()]
    return digest(*rows["image"].to_list(), json.dumps([told, scores]).encode())


RUNS: dict[str, Callable[[Path], str]] = {
    "latent, norm balance, SDS, EMA": plain("latent", "canvas.config.model=playground:diffusion", "noise=0.05"),
    "pixel, sum, total variation": plain(
        "pixel", "size=64", "priors=[{name: tv, weight: 0.3}]", "combine={name: sum}", "optimizer.lr=0.05"
    ),
    "multires, UPGrad, hardest views": plain(
        "multires", "size=64", "combine={name: upgrad}", "views.main.hardest=2", "priors=[{name: l2}]"
    ),
    "fourier, PCGrad at the image": plain(
        "fourier", "size=64", "combine={name: pcgrad, at: image, factor: 0.5}", "priors=[{name: tv}]"
    ),
    "candidates with rounds": lambda out: invert(
        out, *TWO, "--seed", "1", "--set", "steps=3", "--set", "candidates.count=4"
    ),
    "candidates by consensus, best, early stop": plain(
        "latent",
        "candidates={count: 3, keep: [[2, 2]], recent: 2}",
        "output=best",
        "best.every=2",
        "early_stop={every: 1, patience: 1}",
        "steps=6",
    ),
    "a prior that learns (VSD)": plain("latent", "priors=[{name: vsd, config: {model: 'playground:diffusion'}}]"),
    "restarts, windows, a negated question": plain(
        "latent",
        "ema={decay: 0.9, restarts: [1]}",
        "referees.0.wanted=false",
        "referees.1.window=[1, 3]",
        "priors.+={name: moments, weight: 0.1, window: [0, 2]}",
    ),
    "real networks": lambda out: invert(out, "volcano", "--preset", "natural", "--set", "steps=3"),
    "resumed": resumed,
    "benchmark": benchmark,
}


def fingerprints(names: list[str]) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, run) in enumerate(RUNS.items()):
            if not names or any(part in name for part in names):
                yield name, run(Path(folder) / str(i))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, found in fingerprints(sys.argv[1:]):
        print(f"{found[:16]}  {name}", flush=True)
