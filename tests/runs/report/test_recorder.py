"""A run is recorded into its folder without a change to what it computes, and a failure costs the report alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy_config

import refcore
from refcore.config import presets
from refcore.engine.inversion import Inversion, StepResult
from refcore.runs.report import recorder
from refcore.runs.report.recorder import Recorder, changed, moments
from refcore.runs.report.recording import Recording
from refcore.runs.run import Run


def fingerprint(folder: Path) -> dict[str, Any]:
    """What a run has computed: pictures, and all numbers but times."""
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    return {
        "pictures": [path.read_bytes() for path in sorted(folder.glob("image_*.png"))],
        "history": [{name: value for name, value in record.items() if name != "seconds"} for record in history],
        "samples": result["samples"],
        "config": (folder / "config.yaml").read_text(),
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"candidates": {"count": 3, "keep": [[3, 1]]}, "ema": {"decay": 0.5}, "output": "ema"},
        {"candidates": {"count": 1, "recent": 0, "by": "loss", "tries": 2, "until": -1e9}},
        {"output": "best", "early_stop": {"patience": 1, "every": 2}, "noise": 0.1},
    ],
)
def test_a_run_is_the_same_bit_for_bit_with_and_without_a_report(tmp_path: Path, fields: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    for name, report in (("with", True), ("without", False)):
        refcore.invert(["a", "b"], config=toy_config(**fields), out=tmp_path / name, report=report)
    assert torch.equal(torch.get_rng_state(), before), "a draw from torch's global generator"
    assert fingerprint(tmp_path / "with") == fingerprint(tmp_path / "without")
    assert (tmp_path / "with" / "report.html").is_file()
    assert sorted(path.name for path in (tmp_path / "without").iterdir() if path.suffix != ".png") == [
        "checkpoints",
        "config.yaml",
        "history.jsonl",
        "result.json",
        "run.json",
    ]


def test_without_a_folder_nothing_is_recorded() -> None:
    run = Run(toy_config(steps=1))
    run.execute()
    assert run.recorder is None


def test_pictures_of_the_moments_views_and_scores_of_the_start_are_recorded(tmp_path: Path) -> None:
    config = toy_config(referees=[{"name": "toy"}], witnesses=[{"name": "toy", "config": {"seed": 5}}])
    first = Inversion(config)
    expected = first.scores()
    refcore.invert(["a cat", "a dog"], config=config, out=tmp_path)
    recording = Recording.read(tmp_path)
    assert [frame.step for frame in recording.frames] == list(range(7))
    assert [seen.step for seen in recording.seen] == [0, 3, 5]
    assert recording.samples == [0, 1]
    assert set(recording.scores) == {"toy", "toy-2"}
    for label, values in recording.scores.items():
        assert values == pytest.approx(expected[label].tolist())
    for frame in recording.frames:
        tiles = recording.pictures(tmp_path, frame.file, 2)
        assert tiles is not None
        assert tiles[0][0].shape == (32, 32, 3)
    assert recording.objective == "1 toy + 0.5 toy_sds + 1 smooth"


def test_moments_are_few_and_begin_and_end_with_the_run() -> None:
    for steps in (1, 8, 23, 24, 200, 10_000):
        found = moments(steps)
        assert found[0] == 0
        assert found[-1] == steps
        assert len(found) <= recorder.MOST_FRAMES + (steps < recorder.MOST_FRAMES)
        assert sorted(set(found)) == found


def test_many_tries_do_not_fill_the_disk(tmp_path: Path) -> None:
    again = {"count": 1, "recent": 0, "by": "loss", "tries": 20, "until": -1e9}
    refcore.invert("a", config=toy_config(candidates=again, steps=9), out=tmp_path)
    assert 2 <= len(Recording.read(tmp_path).frames) <= 2 * recorder.MOST_FRAMES


def test_a_resumed_run_goes_on_with_its_recording(tmp_path: Path) -> None:
    """What lies after the step that the run goes on from is made again."""
    config = toy_config(steps=6)
    whole = Recorder(tmp_path, config, None)
    inversion = Inversion(config)
    whole.on_start(inversion)
    states = []
    for step in inversion:
        whole.on_step(step, step.record())
        states.append(inversion.state_dict())
    whole._flush()
    assert [frame.step for frame in Recording.read(tmp_path).frames] == list(range(6))
    began = Recording.read(tmp_path).began
    again = Recorder(tmp_path, config, None)
    resumed = Inversion(config, state=states[2])
    again.on_start(resumed)
    assert [frame.step for frame in again._recording.frames] == [0, 1, 2]
    for step in resumed:
        again.on_step(step, step.record())
    again._flush()
    assert again.problem == ""
    recording = Recording.read(tmp_path)
    assert [frame.step for frame in recording.frames] == list(range(6))
    assert [seen.step for seen in recording.seen] == [0, 0, 3, 3, 5, 5], "two referees of different sizes"
    assert recording.began == began
    assert recording.scores
    assert all(recording.pictures(tmp_path, frame.file, 2) for frame in recording.frames)


def test_a_run_that_was_interrupted_and_resumed_has_one_recording(tmp_path: Path) -> None:
    def press(step: StepResult) -> None:
        if step.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        refcore.invert("a cat", config=toy_config(), out=tmp_path / "run", on_step=press)
    first = Recording.read(tmp_path / "run")
    assert {seen.step for seen in first.seen} == {0, 1}
    assert (tmp_path / "run" / "report.html").is_file()
    refcore.resume(tmp_path / "run")
    recording = Recording.read(tmp_path / "run")
    assert [frame.step for frame in recording.frames] == list(range(7))
    assert {seen.step for seen in recording.seen} == {0, 3, 5}, "those of the interruption are gone"
    assert (recording.began, recording.scores) == (first.began, first.scores)
    assert "finished after 6 steps" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_a_recording_that_fails_costs_the_report_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise ZeroDivisionError("a bug of the recorder")

    monkeypatch.setattr(recorder, "write_sheet", fail)
    run = Run(toy_config(steps=2), out=tmp_path / "run")
    result = run.execute()
    assert result.error is None
    assert run.recorder is not None
    assert run.recorder.problem == "a bug of the recorder"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["finished"]
    assert (tmp_path / "run" / "report.html").is_file(), "of what there is"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"frames": 3}', '{"frames": [{"step": 1}]}', '{"began": "x", "scores": {}}']
)
def test_a_recording_that_cannot_be_read_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "recording").mkdir()
    (tmp_path / "recording" / "recording.json").write_text(text)
    assert Recording.read(tmp_path).frames == []


@pytest.mark.parametrize("name", ["../image_0.png", "/etc/passwd", "step-1.png/../../x.png", "step-9.png"])
def test_a_recording_opens_no_file_but_its_own(tmp_path: Path, name: str) -> None:
    assert Recording().pictures(tmp_path, name, 1) is None


def test_what_differs_from_the_preset_is_known_without_prompts_and_seeds() -> None:
    config = presets.compose("playground", None, ["steps=9", "referees.clip.weight=2"], prompts=["a"], seeds=[4])
    assert changed(config, "playground") == {"referees.clip.weight": [1.0], "steps": [8]}
    assert changed(config, None) == {}
    fewer = config.model_copy(update={"priors": [], "combine": toy_config().combine})
    assert changed(fewer, "playground")["priors.sds"][0]["name"] == "sds"
