"""The road of every run: resolved, loaded, claimed, looped, finished; and `refcore.invert`, its shortest call.

The command line, Python, the benchmark and the probes are its callers.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from refcore import registry
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.start import ImageStart
from refcore.contracts.judge import Judge
from refcore.contracts.tracker import Tracker
from refcore.engine.build import build, plugin_config, resolve, uses
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.models import Models
from refcore.engine.preflight import check
from refcore.engine.step import Engine
from refcore.errors import RefcoreError
from refcore.objective import Objective, as_objective
from refcore.plugin import Plugin
from refcore.runs.observers import Callback, Lines, Observer, Record
from refcore.runs.result import Result, collect
from refcore.runs.rundir import RunDir, refuse_taken, refuse_unwritable
from refcore.runs.tracking import Tracking, trackers
from refcore.runs.watch import watched

log = logging.getLogger("refcore")
"""Of every run: warnings about prompts, and at level INFO loading, steps every few seconds, and where the result is."""
log.addHandler(logging.NullHandler())


class Run:
    """One run, from a config to its result.

    Example:
        >>> run = Run(config, out="runs/first", observers=[Progress()])     # doctest: +SKIP
        >>> result = run.execute()                                         # doctest: +SKIP
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        out: str | Path | None = None,
        parent: str | Path | None = None,
        observers: Sequence[Observer] = (),
        preset: str | None = None,
        models: Models | None = None,
        track: Sequence[str | Tracker] = (),
    ) -> None:
        """Checks what can be checked before a model is loaded.

        Args:
            config: with prompts.
            out: folder of the run; None writes nothing, unless `parent` is given.
            parent: folder in which the run takes the next free one, named by its first prompt.
            observers: called in their order.
            preset: name that errors about missing checkpoints mention.
            models: where loaded models are looked for first, and kept for later runs.
            track: trackers that record the run, each by name or as an object.

        Raises:
            RefcoreError: no prompt, a plugin's field that is wrong, a missing image to start from, a folder that holds
                another run or is read-only, and what `refcore.engine.preflight.problems` finds.
        """
        if out is not None:
            refuse_taken(out)
        elif parent is not None:
            refuse_unwritable(Path(parent))
        if not config.prompts:
            raise RefcoreError("prompts is empty; expected at least one prompt")
        self.trackers = trackers(track)
        self.config = _with_absolute_init(resolve(config))
        with presets.needed_by(preset):
            check(self.config)
        self.out, self.parent, self.preset, self.models = out, parent, preset, models
        self.observers = (*observers, Lines(log.info, patience=0))
        self.folder: RunDir | None = None
        """The run's folder, once the start is made."""
        self.engine: Engine | None = None
        """The loaded models, once they are loaded."""
        self.history: list[Record] = []
        """One record a step."""
        self.error: BaseException | None = None
        """Exception that ended the loop early."""
        self.written: dict[str, Any] = {}
        """Contents of `result.json`, once it is written."""
        self.timings: dict[str, float] = {}
        self._beat: Callable[[], None] = lambda: None
        """Tells the watch that a step is done."""

    def load(self) -> Engine:
        """Loads the models, once; `execute` does it where it has not been done.

        Raises:
            RefcoreError: as `refcore.engine.build.build`.
        """
        if self.engine is None:
            began = time.perf_counter()
            for observer in self.observers:
                observer.before_load(self.config)
            try:
                with presets.needed_by(self.preset):
                    engine = build(self.config, self.models)
                    engine.plan()
                    engine.finish_reading()
            except BaseException:
                self._exit()
                raise
            self.engine = engine
            self.timings["load"] = time.perf_counter() - began
            for observer in self.observers:
                observer.on_load(engine)
            for warning in engine.warnings:
                log.warning(warning)
            for note in engine.notes:
                log.info(note)
        return self.engine

    def _exit(self) -> None:
        """Tells the observers once that all is over."""
        leaving, self.observers = self.observers, ()
        for observer in leaving:
            observer.on_exit()

    def loop(self) -> Inversion:
        """Makes the start, takes the folder, and does every step.

        Whatever ends it early, Ctrl-C included, is kept in `error`. The first Ctrl-C ends the run after the step that
        it comes in, the second one at once.

        Raises:
            RefcoreError: what goes wrong before the first step.
        """
        engine = self.load()
        began = time.perf_counter()
        inversion = Inversion(self.config, engine)
        self.timings["start"] = time.perf_counter() - began
        self._claim(inversion)
        began = time.perf_counter()
        try:
            self._steps(inversion)
        except (Exception, KeyboardInterrupt) as error:
            self.error = error
        self.timings["steps"] = time.perf_counter() - began
        return inversion

    def execute(self) -> Result:
        """The whole road: `loop`, then the result, collected and written however the loop ended.

        The first Ctrl-C while the result is written waits until it is; a second one ends that, too.

        Raises:
            RefcoreError: what goes wrong before the first step; a result that cannot be collected or written.
            KeyboardInterrupt: a Ctrl-C after the last step; its message says what is kept.
        """
        try:
            with watched() as watch:
                self._beat = watch.beat
                return self._finish_uncut(self.loop())
        finally:
            if self.folder is not None:
                self.folder.release()
            self._exit()

    def _claim(self, inversion: Inversion) -> None:
        """Takes the run's folder and writes its config."""
        if self.out is not None:
            self.folder = RunDir.claim(self.out)
        elif self.parent is not None:
            self.folder = RunDir.claim_next(self.parent, self.config.prompts[0])
        if self.folder is not None:
            self.folder.write_config(inversion.recorded)

    def _steps(self, inversion: Inversion) -> None:
        """Every step, watched."""
        with _interrupts() as interrupted:
            folder = self.folder.path if self.folder is not None else None
            self.observers = (*self.observers, *(Tracking(tracker, folder) for tracker in self.trackers))
            for observer in self.observers:
                observer.on_start(inversion)
            for step in inversion:
                self._beat()
                record = step.record()
                self.history.append(record)
                if self.folder is not None:
                    self.folder.append_history(record)
                for observer in self.observers:
                    observer.on_step(step, record)
                if interrupted() and not inversion.done:
                    raise KeyboardInterrupt

    def _finish_uncut(self, inversion: Inversion) -> Result:
        """The result, with what a Ctrl-C meanwhile has lost said in words."""
        where = "" if self.folder is None else f' in "{self.folder.path}"'
        try:
            with _interrupts() as interrupted:
                result = self._finish(inversion)
        except KeyboardInterrupt as error:
            kept = [] if self.folder is None else self.folder.files()
            said = f"{', '.join(kept)} are kept{where}" if kept else "nothing is kept"
            raise KeyboardInterrupt(f"interrupted while the result was written: {said}, the rest is lost") from error
        if interrupted() and self.error is None:
            raise KeyboardInterrupt(f"interrupted after the last step: the whole result is kept{where}")
        return result

    def _finish(self, inversion: Inversion) -> Result:
        """The result, written where there is a folder, and shown to the observers."""
        began = time.perf_counter()
        try:
            result = collect(inversion, judge_of(self.config), self.history, self.error, self.timings)
            if self.folder is not None:
                self.written = self.folder.finish(
                    result, lambda: self.timings.update(finish=time.perf_counter() - began)
                )
                log.info(f"written to {self.folder.path}")
            for observer in self.observers:
                observer.on_end(result)
        except Exception as failure:
            if self.error is None:
                raise
            raise self.error from failure
        return result


def invert(
    prompts: str | Iterable[str],
    *,
    preset: str | None = None,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    overrides: Iterable[str] = (),
    objective: Objective | Plugin | type[Plugin] | None = None,
    seeds: Sequence[int] | int | None = None,
    out: str | Path | None = None,
    on_step: Callable[[StepResult], None] | None = None,
    observers: Sequence[Observer] = (),
    models: Models | None = None,
    track: Sequence[str | Tracker] | str | Tracker = (),
) -> Result:
    """Optimises an image for every prompt and seed until the referees agree that it matches.

    Args:
        prompts: one, or several.
        preset: its name; the embedded playground if neither it nor `config` is given.
        config: a RunConfig, its settings as a mapping, or the path of a YAML file; with a preset, laid over that.
        overrides: such as "referees.0.weight=0.5", as `--set` of the command line.
        objective: replaces the referees (and the priors, where it has any): `2 * Clip() + MyReferee()`, or one plugin.
            With it, the config needs none of its own.
        seeds: one, or several for each prompt; by default those of the config.
        out: folder for images, config, history and scores; by default nothing is written.
        on_step: called after every step.
        observers: what else watches the run.
        models: where loaded models are looked for first, and kept: a second run with the same ones loads nothing.
        track: trackers that record the run, each by name, such as "tensorboard", or as an object.

    Raises:
        RefcoreError: anything wrong with the arguments, a missing checkpoint, NaN from a referee, a folder that holds
            another run.

    Example:
        >>> import refcore
        >>> result = refcore.invert("a red circle", seeds=[0, 1])       # doctest: +SKIP
        >>> result.images.shape, result.samples[0].scores              # doctest: +SKIP
    """
    fields: dict[str, Any] = {"prompts": [prompts] if isinstance(prompts, str) else list(prompts)}
    if seeds is not None:
        fields["seeds"] = [seeds] if isinstance(seeds, int) else list(seeds)
    if objective is not None:
        fields |= as_objective(objective).fields()
    composed = presets.compose(preset, config, overrides, **fields)
    watching = [*observers, *([Callback(on_step)] if on_step is not None else [])]
    name = presets.name_of(preset, config)
    tracked = [track] if isinstance(track, str | Tracker) else track
    result = Run(composed, out=out, observers=watching, preset=name, models=models, track=tracked).execute()
    if result.error is not None:
        raise result.error
    return result


def judge_of(config: RunConfig) -> Judge | None:
    """The judge of the world that a run's checkpoints come from; None where they come from none, or from several."""
    named = {
        model
        for field, kind, use in uses(config)
        for model in plugin_config(kind, use, field, config.steps).checkpoints().values()
    }
    worlds = {model.partition(":")[0] for model in named if ":" in model} & set(registry.names("judges"))
    return registry.create("judges", worlds.pop()) if len(worlds) == 1 else None


def _with_absolute_init(config: RunConfig) -> RunConfig:
    """`init` without the working directory in it, so that the recorded config works from anywhere."""
    if not isinstance(config.init, ImageStart):
        return config
    return config.model_copy(update={"init": config.init.absolute()})


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """A flag for Ctrl-C: the first one only raises it, so that no step is cut in half.

    Outside the main thread, where Python delivers no signals, it stays down.
    """
    raised = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        raised = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: raised
    finally:
        signal.signal(signal.SIGINT, before)
