"""Runs that are killed and gone on with, many times over: each must end in the bits of one that was left alone.

    python tests/soak/kills.py --kills 1000            # at random moments and points, on the embedded playground
    python tests/soak/kills.py --kills 1000 --record runs/soak/kills.json      # the same command goes on with it
    python tests/soak/kills.py --world toy --points    # once at every named point between two writes

Every kill is SIGKILL to a process of its own, forked from one that has loaded the models. After each, everything in the
folder must be readable, its state must be said rightly, and the next process must go on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the toys and the record

from soak.record import SoakRecord

import refcore
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import load_yaml
from refcore.engine.models import Models
from refcore.runs import points, rundir
from refcore.runs.folders import RunFolder, read_folder
from refcore.runs.run import Run
from refcore.runs.state import load_state

AGAIN = 0.3
"""Chance that a process which goes on after a kill is killed, too."""
EVERY = 1
"""Steps between two checkpoints."""
ROUND = 50
"""Kills after which a record is written."""
MOST_FAULTS = 10
"""A soak with so many ends."""


@dataclass
class Report:
    """What a soak has seen."""

    kills: int = 0
    at_points: int = 0
    """Of the kills, those at a named point; the others came at a random moment."""
    resumed: int = 0
    """Times that a run was gone on with."""
    anew: int = 0
    """Of these, those that had no checkpoint yet."""
    missed: int = 0
    """Kills that came when the run had already ended."""
    runs: int = 0
    """Runs that were compared with the one left alone."""
    faults: list[str] = field(default_factory=list)
    """What went wrong, in words."""
    seconds: float = 0.0
    seconds_of_a_whole_run: float = 0.0
    named_points: int = 0
    """Points between two writes of the run left alone."""


def playground() -> RunConfig:
    """Two tries of four steps, each begun by a search of two rounds among three candidates, in about a second."""
    config = presets.compose(
        None,
        None,
        [
            "referees=[{name: clip, config: {model: 'playground:clip'}}]",
            "candidates={count: 3, keep: [[0, 1]], recent: 0, by: loss, views: main, tries: 2, until: -1.0e9}",
            "init={steps: 2, guidance: 4.0, rounds: [[1, 0.6], [1, 0.5]]}",
            "views.main.count=2",
            "steps=4",
        ],
        prompts=["a red circle"],
        seeds=[0],
    )
    return refcore.resolve(config)


def toy() -> RunConfig:
    """Two steps after a search, in milliseconds, on random networks of a few kilobytes."""
    from toys import PLUGINS, toy_config

    from refcore import registry

    for kind, classes in PLUGINS.items():
        for name, cls in classes.items():
            registry.register(kind, name, cls, "of the tests")
    return toy_config(
        prompts=["a cat"],
        init={"steps": 2, "rounds": [[1, 0.6]]},
        candidates={"count": 2, "recent": 0, "by": "loss"},
        optimizer={"name": "adam", "lr": 0.05},
        ema={"decay": 0.9},
        steps=2,
    )


WORLDS: dict[str, Callable[[], RunConfig]] = {"playground": playground, "toy": toy}


class Soak:
    """Kills runs of one config, in folders of their own, and compares each with the run left alone."""

    def __init__(self, config: RunConfig, folder: Path, seed: int) -> None:
        self.config, self.folder = config, folder
        self.models, self.random, self.report = Models(), random.Random(seed), Report()
        self._began = time.monotonic()
        Run(config, models=self.models).load()
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what takes seconds, once for all processes
        self.alone = folder / "alone"
        log = folder / "points"

        def count(point: str) -> None:
            with log.open("a") as file:
                file.write(f"{point}\n")

        began = time.monotonic()
        status = self._wait(self._begin(self.alone, count))
        assert status == 0, (folder / "alone.log").read_text()
        self.report.seconds_of_a_whole_run = self.whole = time.monotonic() - began
        self.points = log.read_text().splitlines()
        """Every point that the run left alone has passed, in order."""
        self.report.named_points = len(self.points)
        self.wanted = outcome(self.alone)

    def round(self) -> dict[str, Any]:
        """What was seen since the last round, for the record."""
        now = time.monotonic()
        counts = {**asdict(self.report), "seconds": round(now - self._began, 1)}
        alone = {name: counts[name] for name in ("seconds_of_a_whole_run", "named_points")}
        self._began, self.report = now, Report(**alone)
        return counts

    def at_random(self, name: str, left: int) -> None:
        """One run that is killed at a random moment or point, gone on with, perhaps killed again, and compared."""
        path = self.folder / name
        self._killed(path, self._begin)
        while left > self.report.kills and self.random.random() < AGAIN and (path / rundir.CONFIG).exists():
            self._killed(path, self._go_on)
        self._finish(path)

    def at_point(self, number: int) -> None:
        """One run that is killed at a point, gone on with and compared."""
        path = self.folder / f"point-{number}"
        status = self._wait(self._begin(path, killer(number)))
        if status != -signal.SIGKILL:
            self._fault(path, f"it was not killed at {self.points[number]}, but ended with {status}")
            return
        self.report.kills += 1
        self.report.at_points += 1
        self._look(path)
        self._finish(path)

    def _killed(self, path: Path, start: Callable[[Path, Callable[[str], None]], int]) -> None:
        if self.random.random() < 0.5:
            status = self._wait(start(path, killer(self.random.randrange(len(self.points)))))
            self.report.at_points += status == -signal.SIGKILL
        else:
            child = start(path, lambda point: None)
            time.sleep(self.random.random() * self.whole)
            os.kill(child, signal.SIGKILL)
            status = self._wait(child)
        if status == -signal.SIGKILL:
            self.report.kills += 1
        elif status == 0:
            self.report.missed += 1
        else:
            self._fault(path, f"the process that was to be killed ended with {status}")
        self._look(path)

    def _look(self, path: Path) -> None:
        """Everything that a killed run has left must be readable."""
        try:
            unreadable(path)
            run = read_folder(path)
            if run is not None and run.state not in ("killed", "finished"):
                self._fault(path, f"its state is {run.state}")
        except Exception as error:
            self._fault(path, f"after a kill: {error!r}")

    def _finish(self, path: Path) -> None:
        """The run is gone on with to its end, or begun if nothing was there yet, and compared."""
        before = read_folder(path)
        if before is None:
            shutil.rmtree(path, ignore_errors=True)
            status = self._wait(self._begin(path, lambda point: None))
        elif before.state == "finished":
            status = 0
        else:
            status = self._wait(self._go_on(path, lambda point: None))
            self._went_on(path, before)
        self.report.runs += 1
        if status:
            self._fault(path, f"it could not be ended: {status}")
        elif (found := outcome(path)) != self.wanted:
            differs = [name for name in self.wanted if found.get(name) != self.wanted[name]]
            self._fault(path, f"it differs in {', '.join(differs)}")
        elif (left := [each.name for each in path.rglob(".*")]) and (before is None or before.state != "finished"):
            # One that was killed once its result was written has nothing left to do, and may keep its lock's file.
            self._fault(path, f"it has left {', '.join(left)}")
        if not any(str(path) in fault for fault in self.report.faults):
            shutil.rmtree(path)

    def _went_on(self, path: Path, before: RunFolder) -> None:
        """The run must have gone on from its last checkpoint."""
        self.report.resumed += 1
        self.report.anew += before.checkpoint is None
        resumed = json.loads((path / rundir.FACTS).read_text())["resumed"]
        step = resumed[-1]["step"] if resumed else None
        if step != (before.checkpoint or 0):
            self._fault(path, f"it went on after {step} steps, its checkpoint had {before.checkpoint}")

    def _begin(self, path: Path, reached: Callable[[str], None]) -> int:
        return self._fork(
            path, reached, lambda: Run(self.config, out=path, models=self.models, checkpoint=EVERY).execute()
        )

    def _go_on(self, path: Path, reached: Callable[[str], None]) -> int:
        return self._fork(path, reached, lambda: refcore.resume(path, models=self.models, checkpoint=EVERY))

    def _fork(self, path: Path, reached: Callable[[str], None], work: Callable[[], Any]) -> int:
        """The number of a process that does the work."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            log = os.open(path.with_name(f"{path.name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            points.reached = reached
            work()
            status = 0
        except refcore.AlreadyFinished:
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _wait(self, child: int) -> int:
        """Exit status of a process; minus its signal where one has ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _fault(self, path: Path, what: str) -> None:
        log = path.with_name(f"{path.name}.log")
        told = log.read_text()[-2000:] if log.exists() else ""
        self.report.faults.append(f"{path}: {what}\n{told}".rstrip())


def killer(number: int) -> Callable[[str], None]:
    """Kills this process at the point of this number."""
    passed = 0

    def reached(point: str) -> None:
        nonlocal passed
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    return reached


def unreadable(path: Path) -> None:
    """Reads everything in the folder of a run, half-written files aside; raises what goes wrong."""
    if not path.is_dir():
        return
    for file in path.rglob("*"):
        if file.name == rundir.CONFIG:
            RunConfig.from_settings(load_yaml(file))
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            [json.loads(line) for line in file.read_text().splitlines()]
        elif file.suffix == ".png":
            Image.open(file).load()
        elif file.suffix == ".safetensors":
            load_state(file)


def outcome(path: Path) -> dict[str, Any]:
    """All that a run has made, without times: images, history, scores, config."""
    found: dict[str, Any] = {file.name: file.read_bytes() for file in sorted(path.glob("image_*.png"))}
    lines = [json.loads(line) for line in (path / rundir.HISTORY).read_text().splitlines()]
    found["history"] = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    result = json.loads((path / rundir.RESULT).read_text())
    found |= {name: value for name, value in result.items() if name not in ("timings", "resumed")}
    found[rundir.CONFIG] = (path / rundir.CONFIG).read_bytes()
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs that are killed and gone on with, many times over.")
    parser.add_argument("--kills", type=int, default=1000, help="in all rounds of the record together")
    parser.add_argument("--record", type=Path, metavar="FILE", help="continue the rounds in this file")
    parser.add_argument("--world", choices=WORLDS, default="playground")
    parser.add_argument("--points", action="store_true", help="kill once at every named point, instead of at random")
    parser.add_argument("--first", type=int, default=0, help="with --points: the number of the first one")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the first round; each further one adds 1")
    parser.add_argument("--folder", type=Path, help="where the runs are made; by default a temporary one, in memory")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    # Processes are killed here, not disks: in memory, a run does not wait for one at every write.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    record = SoakRecord(given.record)
    with tempfile.TemporaryDirectory(dir=memory) as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(WORLDS[given.world](), folder, given.seed)
        if given.points:
            for number in range(given.first, len(soak.points)):
                soak.at_point(number)
            record.add(soak.round())
        while not given.points and record.total("kills") < given.kills and len(record.faults) < MOST_FAULTS:
            soak.random = random.Random(given.seed + len(record.rounds))
            most = min(ROUND, given.kills - int(record.total("kills")))
            while soak.report.kills < most and len(soak.report.faults) < MOST_FAULTS:
                soak.at_random(f"run-{len(record.rounds)}-{soak.report.runs}", most)
            record.add(soak.round())
            print(f"{record.total('kills'):.0f} of {given.kills} kills", file=sys.stderr, flush=True)
    report = total(record)
    if given.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        for fault in report.faults:
            print(f"fault: {fault}")
        print(
            f"{report.kills} kills ({report.at_points} at one of {report.named_points} named points), "
            f"{report.resumed} resumptions ({report.anew} without a checkpoint yet), {report.runs} runs compared, "
            f"{len(report.faults)} faults, {report.seconds:.0f} s; "
            f"a run left alone took {report.seconds_of_a_whole_run:.1f} s"
        )
    return 1 if report.faults else 0


def total(record: SoakRecord) -> Report:
    """All rounds as one report; what describes the run left alone is of the last round."""
    last = record.rounds[-1] if record.rounds else {}
    kept = ("seconds_of_a_whole_run", "named_points")
    found = {each.name: last.get(each.name, 0) for each in fields(Report) if each.name in kept}
    counted = [each.name for each in fields(Report) if each.name not in (*kept, "faults", "seconds")]
    counts = {name: int(record.total(name)) for name in counted}
    return Report(**counts, **found, seconds=record.total("seconds"), faults=record.faults)


if __name__ == "__main__":
    sys.exit(main())
