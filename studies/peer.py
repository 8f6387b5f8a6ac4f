"""The study of a peer: lucent beside the preset `natural`, on the classes of the strangers.

    python studies/peer.py --peer PYTHON --witnesses coco.yaml --run runs/peer     # continues after an interruption
    python studies/peer.py                                                        # the part of docs/natural.md

lucent (package torch-lucent) needs an older kornia than this project, so it runs in an environment of its own; PYTHON
is that environment's interpreter, which must also import refcore_plugins. Both draw the same classes, lucent with its
own loop and defaults from Lite 0: a Fourier canvas of 256 pixels, its standard transforms, shown to the network at 224,
Adam with 0.05, 256 steps. Steps are timed in turn, in two processes of one thread, against the arm `one-network` of the
strangers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIZE, SHOWN, STEPS, NETWORK = 256, 224, 256, "lite0"
TIMED, PAIRS = 12, 20
"""Steps of a timed run, and the number of pairs; the first two steps of each run are not counted."""
PART = "peer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter of the environment that has lucent")
    parser.add_argument("--run", type=Path, metavar="DIR", help="make the pictures that this folder lacks")
    parser.add_argument("--witnesses", type=Path, metavar="FILE", help="YAML list of further witnesses")
    parser.add_argument("--count", type=int, help="only the first classes")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        serve(given.worker)
        return
    if given.run is not None:
        measure(given.peer, given.run, given.witnesses, given.count)
    from page import fill
    from strangers import PAGE

    fill(PAGE, Path(__file__).name, {PART: part()})


def serve(worker: str) -> None:
    """One picture after another: {class, steps, file} a line in, processor seconds of each step out."""
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        seconds, picture = WORKERS[worker](asked["class"], asked["steps"])
        if asked["file"]:
            picture.save(asked["file"])
        print(json.dumps(seconds), flush=True)


def by_lucent(name: str, steps: int) -> tuple[list[float], Any]:
    """Processor seconds of each step, and the picture, of lucent's own loop."""
    import numpy
    import torch
    from lucent.optvis import objectives, param, render
    from PIL import Image

    from refcore_plugins.models import efficientnet_lite
    from refcore_plugins.models.imagenet_classes import ClassNames, target_of

    class Normalized(torch.nn.Module):
        """The network with its own normalisation, since lucent's is that of torchvision's networks."""

        def __init__(self) -> None:
            super().__init__()
            self.network = efficientnet_lite._network(NETWORK, SHOWN)

        def forward(self, x: Any) -> Any:
            return self.network(efficientnet_lite.normalize(x))

    class Timed(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            times.append(time.process_time())
            return loss

    torch.manual_seed(0)
    numpy.random.seed(0)
    (index,) = target_of(name, ClassNames.known()).weights
    times: list[float] = []
    (array,) = render.render_vis(
        Normalized().eval(),
        objectives.channel("network__fc", index),
        lambda: param.image(SIZE),
        lambda params: Timed(params, lr=5e-2),
        thresholds=(steps,),
        preprocess=False,
        progress=False,
        show_image=False,
        fixed_image_size=SHOWN,
    )
    seconds = [after - before for before, after in itertools.pairwise(times)]
    return seconds, Image.fromarray((array[0] * 255).round().clip(0, 255).astype("uint8"))


def by_refcore(name: str, steps: int) -> tuple[list[float], Any]:
    """The same of the arm `one-network`."""
    import strangers
    from PIL import Image

    from refcore import images
    from refcore.config.run import RunConfig
    from refcore.engine.inversion import Inversion

    settings = {**strangers._arm("one-network", steps).settings, "prompts": [name], "seeds": [0], "witnesses": []}
    inversion = Inversion(RunConfig.from_settings(settings))
    times = []
    for _ in inversion:
        times.append(time.process_time())
    seconds = [after - before for before, after in itertools.pairwise(times)]
    return seconds, Image.fromarray(images.levels(inversion.images()[0]))


WORKERS = {"lucent": by_lucent, "refcore": by_refcore}


class Worker:
    """A process that makes pictures when it is asked."""

    def __init__(self, python: str, worker: str) -> None:
        words = [python, "-W", "ignore", __file__, "--worker", worker]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, name: str, steps: int, file: Path | None = None) -> list[float]:
        """Processor seconds of each step after the first."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"class": name, "steps": steps, "file": file and str(file)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._process.stdout.readline())
        return found


def measure(python: str | None, folder: Path, extra: Path | None, count: int | None) -> None:
    """Times both, makes lucent's pictures, and asks the witnesses; writes the rows after each picture."""
    import numpy as np
    import strangers
    from PIL import Image

    from refcore.runs import rundir
    from refcore_bench import witnesses
    from refcore_bench.scoring import pixels

    if python is None:
        raise SystemExit("--run needs --peer, the interpreter of an environment with torch-lucent")
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"seconds": [], "pictures": []}

    def keep() -> None:
        rundir.write_text(RESULT, json.dumps(rows, indent=1) + "\n")

    peer = Worker(python, "lucent")
    if len(rows["seconds"]) < PAIRS:
        own = Worker(sys.executable, "refcore")
        for worker in (peer, own):
            worker.ask("volcano", TIMED)
        for number in range(len(rows["seconds"]), PAIRS):
            pair = {}
            for name, worker in (("lucent", peer), ("refcore", own))[:: 1 if number % 2 else -1]:
                pair[name] = round(statistics.median(worker.ask("volcano", TIMED)[1:]), 5)
            rows["seconds"].append(pair)
            keep()
    asked = [
        (entry, witnesses.loaded(entry))
        for entry in witnesses.entries(extra)
        if entry["config"].get("weights") != NETWORK
    ]
    done = {row["class"] for row in rows["pictures"]}
    for one in strangers.classes()[:count]:
        if one.prompt in done:
            continue
        file = folder / f"{one.prompt.replace(' ', '-')}.png"
        seconds = sum(peer.ask(one.prompt, STEPS, file)) * STEPS / (STEPS - 1)
        with Image.open(file) as opened:
            picture = pixels([np.array(opened.convert("RGB"))])
        told = {
            entry["label"]: witnesses.answer(referee, picture, one.prompt, entry["coarse"]) for entry, referee in asked
        }
        rows["pictures"].append({"class": one.prompt, "seconds": round(seconds, 2), "witnesses": told})
        keep()
        print(rows["pictures"][-1], flush=True)


def part() -> str:
    """The generated part: lucent's pictures beside each arm's of the same classes, and the time of a step."""
    import strangers

    from refcore_bench import witnesses
    from refcore_bench.statistics.intervals import mean, rate
    from refcore_bench.storing.results import Results
    from refcore_bench.table import Table, markdown, number, share

    rows = json.loads(RESULT.read_text("utf-8"))
    found = Results.existing(strangers.KEPT)
    kept = witnesses.read(found)
    lines = []
    for label, witness in kept.items():
        own = {row["class"]: row["witnesses"][label] for row in rows["pictures"] if label in row["witnesses"]}
        for arm, variant in found.variants().items():
            if witnesses.optimises(variant, witness["entry"]):
                continue
            theirs = {
                key[3]: one
                for key, one in ((one["image"], one) for one in witness["ranks"])
                if key[0] == arm and key[4] == 0
            }
            both = [name for name in own if name in theirs and own[name]["rank"] and theirs[name]["rank"]]
            moved = [math.log10(theirs[name]["rank"]) - math.log10(own[name]["rank"]) for name in both]
            lines.append(
                [
                    label,
                    arm,
                    str(len(both)),
                    share(rate([own[name]["rank"] == 1 for name in both]).to_dict()),
                    share(rate([theirs[name]["rank"] == 1 for name in both]).to_dict()),
                    number(mean(moved).to_dict(), "+"),
                ]
            )
    ratios = sorted(pair["refcore"] / pair["lucent"] for pair in rows["seconds"])
    seconds = statistics.median(row["seconds"] for row in rows["pictures"])
    note = (
        f"Paired by class, 95 % intervals. lucent took {seconds:.0f} s of one core a picture. A step of `one-network` "
        f"took {statistics.median(ratios):.2f} times as long as one of lucent: the median of {len(ratios)} pairs, "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}."
    )
    columns = ["witness", "arm", "classes", "lucent: ranks first", "arm: ranks first", "log10 rank, arm minus lucent"]
    return markdown([Table("lucent, from one network", columns, lines, note)])


RESULT = Path(__file__).parent / "rows" / "natural" / "peer.json"

if __name__ == "__main__":
    main()
