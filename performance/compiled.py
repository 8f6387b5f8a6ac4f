"""The effect and cost of torch.compile: parts of a step forward and backward, compiled against eager.

    python -m performance.compiled

Prints, for each part, the processor seconds of compiling (compiler processes included) and the paired ratio of times.
With TORCHINDUCTOR_CACHE_DIR set to a folder, a second call shows the cost of compiling from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from performance import models
from performance.measure import median, paired
from refcore.engine.build import build
from refcore.engine.panel import LoadedReferee
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore.moment import Moment

Part = Callable[[Tensor], Tensor]


def parts(scratch: Path) -> Iterator[tuple[str, Part, Tensor]]:
    """(name, function from an input to losses or an image, input) of the embedded models, then of ViT-B/32."""
    small = build(models.embedded())
    for use in small.panel.referees:
        yield f"embedded {use.label}", *_judge(small, use)
    latent = start(small)["latent"]
    yield "embedded decoder", lambda z: small.canvas.decode({"latent": z}, small.end), latent
    middle = build(models.medium(scratch / models.VIT_B_32))
    yield "ViT-B/32", *_judge(middle, middle.panel.referees[0])


def _judge(engine: Engine, use: LoadedReferee) -> tuple[Part, Tensor]:
    first = Moment(0, engine.config.steps)
    opened = engine.panel.groups["main"].open(
        engine.decode(start(engine), first), use.referee.input_size, engine.keys, first
    )
    views = opened.make(range(len(opened.sample))).detach()
    rows = torch.zeros(len(views), dtype=torch.int64)
    return lambda x: use.referee.judge(x, use.conditioning, rows), views


def compared(name: str, part: Part, x: Tensor, pairs: int) -> dict[str, Any]:
    """Times the part, eager and compiled, forward and backward."""
    compiled = torch.compile(part)

    def both_ways(function: Part) -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(function(leaf).sum(), leaf)[0]

    expected = both_ways(part)
    began = _spent()
    found = both_ways(compiled)
    compiling = _spent() - began
    timed = paired(lambda: both_ways(compiled), lambda: both_ways(part), pairs)
    ratio, plain = timed.ratio, median(timed.second).value
    saved = plain * (1 - ratio.value)
    return {
        "what": name,
        "compiled / as it is": str(ratio),
        "seconds as it is": plain,
        "seconds of compiling": compiling,
        "steps until it pays": compiling / saved if saved > 0 else None,
        "relative difference of the gradient": float((found - expected).norm() / expected.norm()),
    }


def _spent() -> float:
    """Processor seconds of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m performance.compiled", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs per part")
    parser.add_argument("--scratch", type=Path, default=Path("scratch"), help="folder for a medium model, 0.6 GB")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    # Compile in this process: the time of pool workers would not be counted.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    for name, part, x in parts(given.scratch):
        print(json.dumps(compared(name, part, x, given.pairs)), flush=True)


if __name__ == "__main__":
    main()
