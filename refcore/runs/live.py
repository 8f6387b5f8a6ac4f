"""A run that goes on in a thread while a notebook shows it, with controls; `refcore.live`."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from refcore.config.run import RunConfig
from refcore.contracts.tracker import Tracker
from refcore.engine.inversion import StepResult
from refcore.engine.models import Models
from refcore.errors import RefcoreError
from refcore.objective import Objective
from refcore.plugin import Plugin
from refcore.runs import shown
from refcore.runs.checkpoints import DEFAULT
from refcore.runs.jobs import Job, Seen, slider_end
from refcore.runs.observers import Observer
from refcore.runs.result import Result
from refcore.runs.run import Run, asked, whole
from refcore.runs.steering import Steering, drive

REFRESH_SECONDS = 0.5
"""Time between two looks of the widget at its run."""
END_SECONDS = 20.0
"""Longest time that a program that ends waits for the step that its run is in."""
STYLE = """\
<style>
.refcore-live .pictures { display: flex; flex-wrap: wrap; gap: .75rem; }
.refcore-live figure { margin: 0; }
.refcore-live svg, .refcore-live progress { box-sizing: border-box; }
.refcore-live .pictures img { width: 12rem; max-width: 100%; display: block; }
.refcore-live figcaption, .refcore-live .soft { opacity: .85; font-size: .9em; }
.refcore-live .pictures figcaption { max-width: 14rem; }
.refcore-live .curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; }
.refcore-live .curve svg { width: 100%; height: 4rem; border: 1px solid #8886; display: block; }
.refcore-live .status { margin: 0 0 .25rem; }
.refcore-live progress { width: 100%; }
.refcore-live .wrong { color: #c0392b; font-weight: 600; white-space: pre-wrap; }
</style>"""
"""For the elements of `shown`, on the ground and with the ink of the notebook."""
log = logging.getLogger("refcore")


class Live:
    """A run in a thread of its own, shown in a notebook; made by `refcore.live`."""

    def __init__(self, run: Run) -> None:
        """Begins the run, and shows it where there is a notebook.

        Args:
            run: not begun.

        Raises:
            RefcoreError: ipywidgets is not installed.
        """
        self._widgets = _ipywidgets()
        self._job = Job(0, run.config, state="loading")
        self._samples = run.config.samples
        run.observers = (*run.observers, Steering(self._job))
        self._outcome: Result | BaseException | None = None
        self._ended, self._over = threading.Event(), threading.Event()
        self._handles: list[Any] = []
        self._cell: int | None = None
        """Count of the cell in which it was shown last."""
        self._drawn: dict[str, str] = {}
        """Part of the widget -> the HTML that it has."""
        self._board()
        self._display()
        atexit.register(self._end)
        threading.Thread(target=self._drive, args=[run], name="refcore-live-run", daemon=True).start()
        threading.Thread(target=self._refresh, name="refcore-live-view", daemon=True).start()

    @property
    def state(self) -> str:
        """loading, starting, running, paused, finished, stopped or failed."""
        return self._job.state

    @property
    def step(self) -> int:
        """Steps done."""
        return self._job.step

    def pause(self) -> None:
        """Lets the run wait after the step that it is in."""
        self._job.pause()

    def resume(self) -> None:
        """Lets a paused run go on."""
        self._job.resume()

    def stop(self) -> None:
        """Ends the run after the step that it is in; `result` gives what it has made."""
        self._job.stop()

    def steer(self, label: str, weight: float) -> None:
        """Gives a referee or prior another weight from the next step on, as `Inversion.steer` does.

        Raises:
            RefcoreError: no term has the label, or the weight is negative or not finite.
        """
        self._job.config.with_weight(label, weight, 0)
        if (slider := self._sliders.get(label)) is not None:
            slider.value = weight
        self._job.steer(label, weight)

    def result(self) -> Result:
        """Waits for the end of the run, and gives its result; of a run that was stopped, as far as it came.

        Raises:
            KeyboardInterrupt: a Ctrl-C, or the kernel's interrupt, while it waits. The run is stopped after the step
                that it is in, and the next call gives what it has made. A second one raises at once.
            RefcoreError: what went wrong in the run.
        """
        try:
            self._wait()
        except KeyboardInterrupt:
            self.stop()
            self._wait()
            self._leave()
            raise KeyboardInterrupt("the run was stopped; the next result() gives what it has made") from None
        self._leave()
        outcome = self._outcome
        assert outcome is not None, "a run that is over has an outcome"
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome.error, KeyboardInterrupt) else whole(outcome)

    def _wait(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):  # with a limit: a wait without one hears no Ctrl-C on Windows
            pass

    def __repr__(self) -> str:
        seen = self._job.seen()
        return f"Live({seen.state}, {seen.step} of {seen.planned} steps)"

    def _repr_html_(self) -> str:
        """The run as it stands, without controls."""
        return self._static(self._job.seen())

    def _ipython_display_(self) -> None:
        if self._cell is None or self._cell != _cell():
            self._display()

    # The thread of the run.

    def _drive(self, run: Run) -> None:
        try:
            self._outcome = drive(self._job, lambda: run)
        finally:
            self._ended.set()

    # The thread of the view.

    def _refresh(self) -> None:
        """Draws the widget at a bounded rate, and leaves plain HTML in its place once the run is over."""
        try:
            while not self._ended.wait(REFRESH_SECONDS):
                self._draw(self._job.seen())
            self._leave()
            for widget in self._controls:
                widget.close()
        except Exception:  # a notebook that is closed is no reason to end its run
            log.exception("the widget cannot be drawn")
            self._ended.wait()
        finally:
            self._over.set()
            atexit.unregister(self._end)

    def _end(self) -> None:
        """Stops the run of a program that ends, so that no thread is cut in the middle of torch."""
        self.stop()
        self._over.wait(END_SECONDS)

    def _draw(self, seen: Seen) -> None:
        """Brings the parts of the widget up to date that have changed."""
        for name, part in self._parts.items():
            html = _inside(_HTML[name](seen, self._samples))
            if self._drawn.get(name) != html:
                self._drawn[name] = part.value = html
        self._pause.disabled = seen.state not in ("loading", "starting", "running")
        self._resume.disabled = seen.state != "paused"

    def _board(self) -> None:
        """Makes the widget."""
        widgets, terms = self._widgets, self._job.config.terms
        self._parts = {name: widgets.HTML() for name in _HTML}
        self._pause = widgets.Button(description="Pause", tooltip="wait after this step")
        self._resume = widgets.Button(description="Resume", tooltip="go on", disabled=True)
        stop = widgets.Button(description="Stop", tooltip="end after this step; what it has made is kept")
        for button, act in ((self._pause, self.pause), (self._resume, self.resume), (stop, self.stop)):
            button.on_click(lambda _, act=act: act())
        self._sliders = {
            label: self._slider(label, float(term.weight_at(0, self._job.config.steps)))
            for label, term in terms.items()
        }
        weights = widgets.VBox([*self._sliders.values(), self._parts["weights"]])
        buttons = widgets.HBox([self._pause, self._resume, stop])
        wrap = widgets.Layout(flex_flow="row wrap")
        middle = widgets.HBox([self._parts["pictures"], weights], layout=wrap)
        style = widgets.HTML(STYLE)
        self._box = widgets.VBox([style, self._parts["status"], buttons, middle, self._parts["curves"]])
        own = (self._pause, self._resume, stop, *self._parts.values(), *self._sliders.values())
        self._controls = (self._box, buttons, middle, weights, style, *own)
        self._draw(self._job.seen())

    def _slider(self, label: str, weight: float) -> Any:
        slider = self._widgets.FloatSlider(
            weight, min=0.0, max=slider_end(weight), step=0.01, description=label, tooltip=f"weight of {label}"
        )
        slider.observe(lambda change: self._job.steer(label, float(change["new"])), "value")
        return slider

    def _static(self, seen: Seen) -> str:
        """The run as plain HTML, which a saved notebook shows without a kernel."""
        return STYLE + _inside("".join(html(seen, self._samples) for html in _HTML.values()))

    def _display(self) -> None:
        """Shows the widget, or what is left of it, in the cell that is executed. Outside notebooks, nothing."""
        if (cell := _cell()) is None:
            return
        from IPython.display import display

        self._cell = cell
        what = _Static(self._static(self._job.seen())) if self._ended.is_set() else self._box
        self._handles.append(display(what, display_id=True))  # type: ignore[no-untyped-call]

    def _leave(self) -> None:
        """Leaves plain HTML in place of the widget, wherever it is shown.

        Done by the thread of the view, and again by the cell that waits: a program that executes notebooks reads
        only what belongs to the cell of the moment.
        """
        if self._handles:
            static = _Static(self._static(self._job.seen()))
            for handle in list(self._handles):
                handle.update(static)


_HTML: Mapping[str, Callable[[Seen, Sequence[tuple[str, int]]], str]] = {
    "status": lambda seen, samples: shown.status(seen),
    "pictures": shown.pictures,
    "weights": lambda seen, samples: shown.weights(seen.weights),
    "curves": lambda seen, samples: shown.curves(seen.curves),
}
"""Part of the widget -> its HTML."""


class _Static:
    """HTML, with a line for what shows none."""

    def __init__(self, html: str) -> None:
        self._html = html

    def __repr__(self) -> str:
        return "a run, as it ended"

    def _repr_html_(self) -> str:
        return self._html


def live(
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
) -> Live:
    """Begins a run in the background and shows it in the notebook, with controls; the cell returns at once.

    The arguments are those of `refcore.invert`, and where no control is touched the result is the same, bit for bit.
    A weight that is moved becomes a piece of its schedule, so the result's config describes the steered run. Functions
    and observers are called in the thread of the run.

    Args:
        prompts: one, or several.
        preset: its name; the embedded playground if neither it nor `config` is given.
        config: a RunConfig, its settings as a mapping, or the path of a YAML file; with a preset, laid over that.
        overrides: such as "referees.0.weight=0.5".
        objective: replaces the referees (and the priors, where it has any).
        seeds: one, or several for each prompt; by default those of the config.
        out: folder for images, config, history, scores and the report; by default nothing is written.
        on_step: called after every step.
        observers: what else watches the run.
        models: where loaded models are looked for first, and kept; runs that go on at once must not share them.
        checkpoint: how often the run's state is saved in `out`.
        report: whether `out` gets a `report.html`.
        track: trackers that record the run.

    Raises:
        RefcoreError: anything wrong with the arguments; ipywidgets is not installed. What goes wrong later is shown in
            the widget and raised by `Live.result`.

    Example:
        >>> live = refcore.live("a red circle", seeds=0)                # doctest: +SKIP
        >>> live.result()[0].image                                     # doctest: +SKIP
    """
    _ipywidgets()
    return Live(
        asked(
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
    )


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError as error:
        raise RefcoreError(
            f"refcore.live needs ipywidgets: pip install 'refcore[notebook]' ({error}); "
            "refcore.invert takes the same arguments without it"
        ) from error
    return ipywidgets


def _cell() -> int | None:
    """Count of the cell that is executed; None elsewhere than in a notebook."""
    from IPython import get_ipython

    shell: Any = get_ipython()  # type: ignore[no-untyped-call]
    return shell.execution_count if getattr(shell, "kernel", None) is not None else None


def _inside(html: str) -> str:
    return f'<div class="refcore-live">{html}</div>'
