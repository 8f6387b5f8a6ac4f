"""The road of every run: resolved, loaded, claimed, looped, finished; and `refcore.invert`, its shortest call.

The command line, Python, the benchmark and the probes are its callers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

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
from refcore.engine.recorded import recorded
from refcore.engine.step import Engine
from refcore.errors import RefcoreError
from refcore.objective import Objective, as_objective
from refcore.plugin import Plugin
from refcore.runs import signals
from refcore.runs.checkpoints import DEFAULT, Checkpoints, read_every
from refcore.runs.facts import Facts, now
from refcore.runs.observers import Callback, Lines, Observer, Record
from refcore.runs.report.recorder import Recorder
from refcore.runs.result import Result, collect
from refcore.runs.resumption import Resumption
from refcore.runs.rundir import RunDir, refuse_taken, refuse_unwritable, versions
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
        checkpoint: str | float | None = DEFAULT,
        resumed: Resumption | None = None,
        report: bool = True,
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
            checkpoint: how often the run's state is saved in its folder: "30s", "5m", a number of steps, or "off".
            resumed: a run to go on with, in its own folder; `config` is its.
            report: whether the folder gets a report.
            track: trackers that record the run, each by name or as an object.

        Raises:
            RefcoreError: no prompt, a plugin's field that is wrong, a missing image to start from, a folder that holds
                another run or is read-only, and what `refcore.engine.preflight.problems` finds.
        """
        self.every = read_every(checkpoint)
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
        self.written_config = config
        """The config before the plugins' defaults are filled in."""
        self.report = report
        self.recorder: Recorder | None = None
        """Records the run and writes its report, where it has a folder and is to have one."""
        self.observers = (*observers, Lines(log.info, patience=0))
        self.resumed = resumed
        self.folder: RunDir | None = resumed.folder if resumed is not None else None
        """The run's folder, once the models are loaded."""
        self.checkpoints: Checkpoints | None = None
        """What saves the run, where it has a folder and is to be saved."""
        self.facts = resumed.facts if resumed is not None else Facts(preset)
        """What the folder says of the run beside its config."""
        self.engine: Engine | None = None
        """The loaded models, once they are loaded."""
        self.history: list[Record] = resumed.history if resumed is not None else []
        """One record a step."""
        self.error: BaseException | None = None
        """Exception that ended the loop early."""
        self.written: dict[str, Any] = {}
        """Contents of `result.json`, once it is written."""
        self.timings: dict[str, float] = {}
        self._began: dict[str, float] = {}
        """What is timed now, and since when."""
        self._threads = torch.get_num_threads()
        """Of torch, as the run found them."""
        self._beat: Callable[[], None] = lambda: None
        """Tells the watch that a step is done."""

    def load(self) -> Engine:
        """Loads the models, once; `execute` does it where it has not been done.

        Raises:
            RefcoreError: as `refcore.engine.build.build`.
        """
        if self.engine is None:
            began = time.perf_counter()
            try:
                self._set_threads()
                for observer in self.observers:
                    observer.before_load(self.config)
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

    def _set_threads(self) -> None:
        """Gives torch as many threads as a resumed run began with, since sums are split between them."""
        if self.resumed is None:
            return
        for warning in self.resumed.warnings:
            log.warning(warning)
        threads = self.facts.threads
        if threads is not None and threads != self._threads:
            torch.set_num_threads(threads)
            log.warning(f"the run began with {threads} threads of torch and goes on with as many, not {self._threads}")

    def _exit(self) -> None:
        """Gives back the folder and the threads, and tells the observers once that all is over."""
        if self.folder is not None:
            self.folder.release()
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        leaving, self.observers = self.observers, ()
        for observer in leaving:
            observer.on_exit()

    def loop(self) -> Inversion:
        """Takes the folder, makes the start, and does every step that is left.

        Whatever ends it early, Ctrl-C included, is kept in `error`. The first Ctrl-C ends the run after the step that
        it comes in, the second one at once; SIGTERM is like the first.

        Raises:
            RefcoreError: what goes wrong before the first step.
        """
        engine = self.load()
        self._claim(engine)
        inversion = self._start(engine)
        try:
            with self._timed("steps"):
                self._steps(inversion)
        except (Exception, KeyboardInterrupt) as error:
            self.error = error
        if self.checkpoints is not None:
            self.checkpoints.save_end(inversion)
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
            self._exit()

    def _claim(self, engine: Engine) -> None:
        """Takes the run's folder and writes what is known of it; the folder of a resumed one is taken already."""
        if self.resumed is not None:
            before = self.facts.device
            if before not in (None, str(engine.device)):
                log.warning(f"the run began on {before} and goes on on {engine.device}, which has other last bits")
            self.resumed.settle()
        elif self.out is not None:
            self.folder = RunDir.claim(self.out)
        elif self.parent is not None:
            self.folder = RunDir.claim_next(self.parent, self.config.prompts[0])
        if self.folder is None:
            return
        if self.resumed is None:
            self.facts = Facts(self.preset, now(), self._threads, str(engine.device))
            try:
                self.folder.write_facts(self.facts.to_dict())
                self.folder.write_config(recorded(self.config, engine))
            except BaseException:
                self.folder.abandon()
                raise
        if self.every is not None:
            self.checkpoints = Checkpoints(self.folder, self.every, self._facts)
        if self.report:
            self.recorder = Recorder(self.folder.path, self.written_config, self.preset)
            self.observers = (*self.observers, self.recorder)

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint says of the run beside its state."""
        if not self.facts.versions:  # looked up here, since that would take a tenth of a second from the start of a run
            self.facts = replace(self.facts, versions=versions())
        return {**self.facts.to_dict(), "timings": {name: self._seconds(name) for name in ("start", "steps")}}

    def _start(self, engine: Engine) -> Inversion:
        """The inversion before its first step, or where a resumed one goes on; without a start, no folder is left."""
        state = self.resumed.state if self.resumed is not None else None
        keeper = self.checkpoints
        on_round = keeper.offer_round if keeper is not None else lambda state: None
        try:
            with self._timed("start"), signals.raised():
                return Inversion(self.config, engine, state, on_round=on_round)
        except BaseException as error:
            if self.folder is None:
                raise
            if self.resumed is None and (keeper is None or not keeper.any):
                self.folder.abandon()
            elif isinstance(error, KeyboardInterrupt):
                raise type(error)(
                    "interrupted before the first step; go on with the search for the start by "
                    f"`refcore invert --resume {self.folder.path}`"
                ) from error
            raise

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Counts the seconds of one of the `timings`, beside those of earlier processes."""
        self._began[what] = time.perf_counter()
        try:
            yield
        finally:
            self.timings[what] = self._seconds(what)
            del self._began[what]

    def _seconds(self, what: str) -> float:
        """Seconds of one of the `timings` until now."""
        before = self.resumed.seconds.get(what, 0.0) if self.resumed is not None else 0.0
        if what in self._began:
            return before + time.perf_counter() - self._began[what]
        return self.timings.get(what, before)

    def _steps(self, inversion: Inversion) -> None:
        """Every step, watched."""
        with signals.held_back() as asked:
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
                if self.checkpoints is not None:
                    self.checkpoints.offer_step(inversion)
                if (end := asked()) is not None and not inversion.done:
                    raise end

    def _finish_uncut(self, inversion: Inversion) -> Result:
        """The result, with what a Ctrl-C meanwhile has lost said in words."""
        where = "" if self.folder is None else f' in "{self.folder.path}"'
        try:
            with signals.held_back() as asked:
                result = self._finish(inversion)
        except KeyboardInterrupt as error:
            kept = [] if self.folder is None else self.folder.files()
            said = f"{', '.join(kept)} are kept{where}" if kept else "nothing is kept"
            raise KeyboardInterrupt(f"interrupted while the result was written: {said}, the rest is lost") from error
        if (end := asked()) is not None and self.error is None:
            raise type(end)(f"interrupted after the last step: the whole result is kept{where}")
        return result

    def _finish(self, inversion: Inversion) -> Result:
        """The result, written where there is a folder, and shown to the observers."""
        began = time.perf_counter()
        try:
            judge, resumed = judge_of(self.config), self.facts.resumed
            result = collect(inversion, judge, self.history, self.error, self.timings, resumed)
            if self.folder is not None:
                if inversion.steered or (self.resumed is not None and self.resumed.extended):
                    self.folder.write_config(result.config)
                self.written = self.folder.finish(
                    result, lambda: self.timings.update(finish=time.perf_counter() - began)
                )
                log.info(f"written to {self.folder.path}")
                if self.checkpoints is not None and self.error is None:
                    self.checkpoints.finish()
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
    checkpoint: str | float | None = DEFAULT,
    report: bool = True,
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
        out: folder for images, config, history, scores and the report; by default nothing is written.
        on_step: called after every step.
        observers: what else watches the run.
        models: where loaded models are looked for first, and kept: a second run with the same ones loads nothing.
        checkpoint: how often the run's state is saved in `out`: "30s", "5m", a number of steps, or "off".
        report: whether `out` gets a `report.html`, a page that shows the run.
        track: trackers that record the run, each by name, such as "tensorboard", or as an object.

    Raises:
        RefcoreError: anything wrong with the arguments, a missing checkpoint, NaN from a referee, a folder that holds
            another run.

    Example:
        >>> import refcore
        >>> result = refcore.invert("a red circle", seeds=[0, 1])       # doctest: +SKIP
        >>> result.images.shape, result.samples[0].scores              # doctest: +SKIP
    """
    run = asked(
        prompts,
        preset=preset,
        config=config,
        overrides=overrides,
        objective=objective,
        seeds=seeds,
        on_step=on_step,
        observers=observers,
        track=track,
        out=out,
        models=models,
        checkpoint=checkpoint,
        report=report,
    )
    return whole(run.execute())


def asked(
    prompts: str | Iterable[str],
    *,
    preset: str | None,
    config: RunConfig | Mapping[str, Any] | str | Path | None,
    overrides: Iterable[str],
    objective: Objective | Plugin | type[Plugin] | None,
    seeds: Sequence[int] | int | None,
    on_step: Callable[[StepResult], None] | None,
    observers: Sequence[Observer],
    track: Sequence[str | Tracker] | str | Tracker,
    **kept: Any,
) -> Run:
    """The run that the arguments of `invert` ask for, before a model is loaded; `kept` goes to `Run` as it is."""
    fields: dict[str, Any] = {"prompts": [prompts] if isinstance(prompts, str) else list(prompts)}
    if seeds is not None:
        fields["seeds"] = [seeds] if isinstance(seeds, int) else list(seeds)
    if objective is not None:
        fields |= as_objective(objective).fields()
    composed = presets.compose(preset, config, overrides, **fields)
    watching = [*observers, *([Callback(on_step)] if on_step is not None else [])]
    recording = [track] if isinstance(track, str | Tracker) else track
    return Run(composed, observers=watching, preset=presets.name_of(preset, config), track=recording, **kept)


def whole(result: Result) -> Result:
    """A result; what has ended its run early is raised."""
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
