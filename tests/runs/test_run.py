"""`refcore.invert`: one call, the same as the command line's run; and a package that imports nothing heavy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import toy_config

import refcore
from refcore.cli import main
from refcore.config import presets
from refcore.config.settings import load_yaml
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.step import Engine
from refcore.runs import rundir
from refcore.runs.observers import Observer, Record
from refcore.runs.result import Result
from refcore.runs.run import Run


def test_invert_gives_images_and_scores_in_the_order_of_prompts_and_seeds() -> None:
    seen: list[int] = []
    result = refcore.invert(["a", "b"], config=toy_config(), seeds=[0, 1], on_step=lambda step: seen.append(step.step))
    assert [(sample.prompt, sample.seed) for sample in result.samples] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert result.images.shape == (4, 3, 32, 32)
    assert result.images.dtype == torch.float32
    assert set(result.samples[0].scores) == {"toy", "toy-2"}
    assert seen == list(range(6))
    assert [record["step"] for record in result.history] == seen
    alone = refcore.invert("b", config=toy_config(), seeds=0)
    assert torch.allclose(alone.images[0], result.images[2], atol=1e-6)


def test_what_invert_writes_reproduces_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = refcore.invert("a", config=toy_config(), overrides=["steps=2"], out=folder)
    told = json.loads((folder / "result.json").read_text())
    assert told["samples"][0]["image"] == "image_0.png"
    assert told["samples"][0]["scores"] == first.samples[0].scores
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    again = refcore.invert("a", config=folder / "config.yaml")
    assert torch.equal(first.images, again.images)
    with pytest.raises(refcore.RefcoreError, match="holds another run"):
        refcore.invert("a", config=toy_config(), out=folder)


def test_nan_keeps_the_image_so_far(tmp_path: Path) -> None:
    referees = [{"name": "toy", "config": {"nan_at": 3}}]
    with pytest.raises(refcore.NonFiniteError, match='step 3: "toy"'):
        refcore.invert("a", config=toy_config(referees=referees), out=tmp_path)
    assert (tmp_path / "image_0.png").exists()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["finished"]
    assert result["stopped"].startswith('step 3: "toy" gave NaN')


@pytest.mark.fault("4.6")
def test_a_config_is_laid_over_the_preset_that_is_given_with_it() -> None:
    over = {
        "canvas": {"name": "toy_pixel"},
        "init": None,
        "candidates": None,
        "combine": {"name": "sum"},
        "priors": None,
    }
    settings = {**over, "referees": [{"name": "toy"}], "size": 8, "steps": 1, "ema": None, "output": None}
    result = refcore.invert("red", preset="playground", config=settings)
    assert (result.config.optimizer.lr, result.config.steps) == (0.02, 1)


def test_presets_are_valid_configs() -> None:
    for name in presets.names():
        assert presets.compose(name).steps > 0


def test_importing_refcore_and_reading_a_config_imports_no_torch() -> None:
    code = """
import sys, refcore, refcore.config.presets, refcore.objective
refcore.RunConfig.from_settings({"canvas": {"name": "latent"}, "referees": [{"name": "clip"}]})
assert "invert" in dir(refcore)
heavy = {"torch", "transformers", "diffusers", "open_clip", "kornia"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_all_public_names_exist() -> None:
    assert all(getattr(refcore, name) is not None for name in refcore.__all__)
    with pytest.raises(AttributeError, match="no attribute 'invrt'"):
        refcore.invrt  # noqa: B018


def record(folder: Path) -> dict[str, Any]:
    """`result.json` without what differs from run to run."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name != "timings"}


def test_the_command_and_python_write_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image to start from, named relatively; a prompt that the judge reads, and one that it does not."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "white").save("start.png")
    settings = ["init=start.png", "candidates={count: 1}", "steps=2", "views.main.count=1", "output=current"]
    prompts = ["a red circle", "something else"]
    refcore.invert(prompts, overrides=[*settings, "referees.2.config.parser=null"], seeds=4, out="python")
    words = [word for setting in settings for word in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main(["invert", *prompts, "--seed", "4", *words, "--set", "referees.2.config.parser=null", "--out", "command"])
    assert not end.value.code
    assert record(tmp_path / "python") == record(tmp_path / "command")
    for name in ("config.yaml", "image_0.png", "image_1.png"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    assert load_yaml(tmp_path / "python" / "config.yaml")["init"]["image"] == str(tmp_path / "start.png")
    judged, other = record(tmp_path / "python")["samples"]
    assert {"asked", "found", "ok"} == set(judged["facts"][0])
    assert "verdict" not in other


class Watcher(Observer):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.result: Result | None = None

    def on_load(self, engine: Engine) -> None:
        self.calls.append("load")

    def on_start(self, inversion: Inversion) -> None:
        self.calls.append(f"start at {inversion.step}")

    def on_step(self, step: StepResult, record: Record) -> None:
        assert record["step"] == step.step
        self.calls.append(f"step {step.step}")

    def on_end(self, result: Result) -> None:
        self.calls.append("end")
        self.result = result

    def on_exit(self) -> None:
        self.calls.append("exit")


def test_an_observer_sees_the_run_from_load_to_end() -> None:
    watcher = Watcher()
    result = refcore.invert("a", config=toy_config(), overrides=["steps=2"], observers=[watcher])
    assert watcher.calls == ["load", "start at 0", "step 0", "step 1", "end", "exit"]
    assert watcher.result is result


def test_an_observer_that_fails_ends_the_run_and_what_was_made_is_kept(tmp_path: Path) -> None:
    def fail(step: StepResult) -> None:
        if step.step == 1:
            raise ZeroDivisionError("a bug of the observer")

    watcher = Watcher()
    with pytest.raises(ZeroDivisionError, match="a bug of the observer"):
        refcore.invert("a", config=toy_config(), observers=[watcher], on_step=fail, out=tmp_path / "run")
    assert watcher.calls == ["load", "start at 0", "step 0", "step 1", "end", "exit"]
    written = record(tmp_path / "run")
    assert (written["finished"], written["steps"], written["stopped"]) == (False, 2, "a bug of the observer")
    assert (tmp_path / "run" / "image_0.png").exists()


def test_ctrl_c_in_python_ends_after_the_step_keeps_what_was_made_and_is_raised(tmp_path: Path) -> None:
    def press(step: StepResult) -> None:
        if step.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        refcore.invert("a", config=toy_config(), on_step=press, out=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    written = record(tmp_path / "run")
    assert (written["stopped"], written["steps"]) == ("interrupted", 2)
    assert (tmp_path / "run" / "image_0.png").exists()


def test_a_run_outside_the_main_thread_needs_no_signals() -> None:
    made: list[Result] = []
    thread = threading.Thread(target=lambda: made.append(refcore.invert("a", config=toy_config())))
    thread.start()
    thread.join(60)
    assert made[0].images.shape == (1, 3, 32, 32)


def test_the_models_are_loaded_once() -> None:
    run = Run(toy_config())
    engine = run.load()
    assert run.load() is engine
    assert run.execute().steps == 6


def test_the_steps_of_several_tries_are_not_counted_against_those_of_one() -> None:
    again = {"count": 1, "recent": 0, "by": "loss", "tries": 2, "until": -1e9}
    assert refcore.invert("a", config=toy_config(candidates=again)).progress == "12 steps, up to 6 a try"
    assert refcore.invert("a", config=toy_config()).progress == "6 of 6 steps"


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a shell takes from what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _press(times: int) -> None:
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)  # to this thread, and handled at once: two that wait would be one


@pytest.mark.fault("5.8")
def test_a_ctrl_c_during_the_last_writes_waits_for_them_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rundir.RunDir.write_image
    monkeypatch.setattr(rundir.RunDir, "write_image", lambda *given: (_press(1), write(*given))[1])
    with pytest.raises(
        KeyboardInterrupt, match=f'interrupted after the last step: the whole result is kept in "{tmp_path}'
    ):
        refcore.invert("a", config=toy_config(), out=tmp_path / "run")
    assert record(tmp_path / "run")["finished"] is True


@pytest.mark.fault("5.8")
def test_a_second_one_ends_the_writes_and_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctrl_c: None
) -> None:
    write = rundir.RunDir.write_image
    monkeypatch.setattr(rundir.RunDir, "write_image", lambda *given: (write(*given), _press(2))[0])
    with pytest.raises(KeyboardInterrupt) as pressed:
        refcore.invert("a", config=toy_config(), seeds=[0, 1], out=tmp_path / "run")
    assert str(pressed.value) == (
        "interrupted while the result was written: config.yaml, history.jsonl, image_0.png are kept in "
        f'"{tmp_path / "run"}", the rest is lost'
    )
    assert not (tmp_path / "run" / ".lock").exists()
