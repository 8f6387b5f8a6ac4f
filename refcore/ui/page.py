"""The page itself: a form, the run that goes on, its weights, and the runs so far."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, TypeVar

import gradio as gr

from refcore.config import presets
from refcore.errors import RefcoreError
from refcore.runs import shown
from refcore.runs.jobs import Job, slider_end
from refcore.ui import form, gallery
from refcore.ui.session import Session, yaml_of

TITLE = "refcore"
TICK_SECONDS = 0.7
STARTS = ".starts"
"""Folder, beside the runs, of pictures that further runs start from."""
CSS = """
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; }
.pictures figure { margin: 0; width: min(100%, 16rem); }
.pictures img { width: 100%; image-rendering: auto; border-radius: .25rem; display: block; }
.pictures figcaption, .runs figcaption, .soft { color: var(--body-text-color); opacity: .8; font-size: .9rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .75rem; }
.curve { margin: 0; } .curve svg { width: 100%; height: 6rem; border: 1px solid var(--border-color-primary); }
.status { margin: 0 0 .25rem; } progress { width: 100%; }
.wrong { color: var(--error-text-color, #b02a20); font-weight: 600; white-space: pre-wrap; }
.runs { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; }
.runs figure { margin: 0; } .runs img { width: 100%; }
iframe.compared { width: 100%; height: 80vh; border: 1px solid var(--border-color-primary); }
"""
Answer = TypeVar("Answer")


def theme() -> Any:
    """Gradio's own, with the fonts of the system: nothing is fetched."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(session: Session) -> gr.Blocks:
    """The page of a session."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p class='soft'>Pictures by inverting referees. Runs are kept in the folder "
            f"{escape(session.runs.name)}.</p>"
        )
        number = gr.State(None)
        with gr.Tab("Run", id="run"):
            _run_tab(session, number)
        with gr.Tab("Runs so far", id="runs") as runs:
            _gallery_tab(session, runs)
    blocks: gr.Blocks = page
    return blocks


def _run_tab(session: Session, number: gr.State) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            prompt = gr.Textbox(label="Prompt", placeholder="a red circle left of a blue square", elem_id="prompt")
            preset = gr.Dropdown(presets.names(), value=presets.DEFAULT, label="Preset", elem_id="preset")
            seeds = gr.Textbox("0", label="Seeds", info="one image for each: 0, or 0,1, or 0-3", elem_id="seeds")
            with gr.Accordion("Picture to start from or compare with", open=False):
                upload = gr.Image(
                    type="filepath",
                    format="png",
                    image_mode="RGB",
                    sources=["upload", "clipboard"],
                    label="Picture",
                    elem_id="upload",
                )
                role = gr.Radio(list(form.ROLES), value="start", label="It is the run's")
                strength = gr.Slider(0, 1, 0, label="Strength of a start", info="0: the picture; 1: a fresh start")
            with gr.Accordion("Settings", open=False):
                changes = gr.Textbox(
                    label="Changes to the preset",
                    lines=4,
                    placeholder="steps=60\nreferees.clip.weight=2",
                    info="one a line, as --set takes them",
                    elem_id="changes",
                )
            start = gr.Button("Start", variant="primary", elem_id="start")
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(shown.status(None), elem_id="status")
            with gr.Row():
                pause = gr.Button("Pause", elem_id="pause", min_width=80)
                resume = gr.Button("Resume", elem_id="resume", min_width=80)
                stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
                again = gr.Button("Start from this picture", elem_id="again", min_width=160)
            pictures = gr.HTML(shown.pictures(None, ()), elem_id="pictures")
            curves = gr.HTML(shown.curves({}), elem_id="curves")
            report = gr.HTML("", elem_id="report")
        with gr.Column(scale=1, min_width=240):
            gr.HTML("<h2>Weights</h2><p class='soft'>A change acts from the next step on, and is recorded.</p>")
            terms = gr.State(())
            _weights(session, number, terms)
            with gr.Accordion("Config", open=False):
                config = gr.Code(language="yaml", label="to copy", interactive=False, elem_id="config")
    last = gr.State(None)
    views = [status, pictures, curves, report, config, terms, last]

    def submitted(prompt: str, preset: str, *fields: Any) -> int:
        return session.submit(form.read(session.limits, prompt, preset, *fields), preset).number

    start.click(
        _told(submitted), [prompt, preset, seeds, changes, upload, role, strength], number, api_visibility="private"
    )
    gr.Timer(TICK_SECONDS).tick(
        lambda given, before: _look(session, given, before),
        [number, last],
        views,
        show_progress="hidden",
        api_visibility="private",
    )
    for button, act in ((pause, Job.pause), (resume, Job.resume), (stop, Job.stop)):
        button.click(_on(session, act), number, None, api_visibility="private")

    def starting(given: int | None) -> Any:
        job = _job(session, given)
        path = form.keep(job.seen().pictures, session.runs / STARTS, job.number)
        return str(path), "start"

    again.click(_told(starting), number, [upload, role], api_visibility="private")


def _weights(session: Session, number: gr.State, terms: gr.State) -> None:
    """A slider for each term of the run, made when the run is."""

    @gr.render(inputs=[terms, number], triggers=[terms.change], show_progress="hidden")  # type: ignore[untyped-decorator]
    def sliders(found: tuple[tuple[str, float], ...], given: int | None) -> None:
        if not found:
            gr.HTML("<p class='soft'>The terms of the run appear here.</p>")
        for label, weight in found:
            slider = gr.Slider(
                0,
                slider_end(weight),
                weight,
                step=0.01,
                label=label,
                elem_id=f"weight-{label}",
                key=label,
                interactive=True,
            )

            def change(value: float, at: int | None, label: str = label) -> None:
                if (job := session.job(at)) is not None and not job.over:
                    job.steer(label, float(value))

            slider.change(change, [slider, number], None, show_progress="hidden", api_visibility="private")


def _gallery_tab(session: Session, tab: gr.Tab) -> None:
    with gr.Row():
        refresh = gr.Button("Refresh", elem_id="refresh", min_width=80)
        compare = gr.Button("Compare the chosen", elem_id="compare", min_width=160)
    chosen = gr.CheckboxGroup([], label="Runs", elem_id="chosen")
    listed = gr.HTML("", elem_id="listed")
    compared = gr.HTML("", elem_id="compared")

    def look() -> Any:
        found = gallery.runs(session.runs)
        names = [gallery.name_of(run, session.runs) for run in found]
        return gr.CheckboxGroup(choices=names, value=[]), gallery.html(found, session.runs)

    tab.select(look, None, [chosen, listed], api_visibility="private")
    refresh.click(look, None, [chosen, listed], api_visibility="private")
    compare.click(
        _told(lambda names: gallery.compared(session.runs, names)), chosen, compared, api_visibility="private"
    )


def _look(session: Session, given: int | None, before: Any) -> Any:
    """The page's views of a job; nothing where they are as before."""
    job = session.job(given)
    if job is None:
        return [gr.skip()] * 7
    seen = job.seen()
    now = (seen.number, seen.state, seen.step, hash(seen.pictures), seen.error)
    if now == before:
        return [gr.skip()] * 7
    fresh = not isinstance(before, tuple) or before[0] != seen.number
    told = fresh or before[1] != seen.state
    terms = tuple(seen.weights.items()) if told and seen.weights else gr.skip()
    return [
        shown.status(seen),
        shown.pictures(seen, job.config.samples),
        shown.curves(seen.curves),
        gallery.link(session.runs, seen.folder) if seen.folder is not None else "",
        yaml_of(job) if told else gr.skip(),
        terms if fresh or before[1] == "loading" else gr.skip(),
        now,
    ]


def _on(session: Session, act: Callable[[Job], None]) -> Callable[[int | None], None]:
    def acting(given: int | None) -> None:
        act(_job(session, given))

    return _told(acting)


def _job(session: Session, given: int | None) -> Job:
    job = session.job(given)
    if job is None:
        raise RefcoreError("there is no run yet; type a prompt and press Start")
    return job


def _told(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """A handler whose errors the page shows as sentences."""

    def handling(*given: Any) -> Answer:
        try:
            return function(*given)
        except RefcoreError as error:
            raise gr.Error(escape(str(error)), duration=None, title="That does not work") from error

    return handling
