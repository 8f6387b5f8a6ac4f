"""`refcore invert`: what it leaves on disk, and that a run which cannot go on says so in one line and loses nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from refcore import images
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml, load_yaml
from refcore.errors import RefcoreError
from refcore.runs import rundir


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def invert(refcore, config_file):
    return lambda *argv: refcore("invert", "--config", config_file, *argv)


def test_a_run_leaves_images_config_history_and_result_in_the_order_of_prompts_and_seeds(invert, tmp_path):
    told = invert("red", "blue", "--seeds", "4,2", "--out", tmp_path / "run")
    assert (told.status, told.err) == (0, "")
    assert files(tmp_path / "run") == [
        "checkpoints",
        "config.yaml",
        "history.jsonl",
        "image_0.png",
        "image_1.png",
        "image_2.png",
        "image_3.png",
        "recording",
        "report.html",
        "result.json",
        "run.json",
    ]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [(s["prompt"], s["seed"], s["image"]) for s in result["samples"]] == [
        ("red", 4, "image_0.png"),
        ("red", 2, "image_1.png"),
        ("blue", 4, "image_2.png"),
        ("blue", 2, "image_3.png"),
    ]
    assert result["finished"]
    assert result["units"] == {"tint": "distance"}
    assert result["versions"]["refcore"]
    assert set(result["timings"]) == {"load", "start", "steps", "finish"}
    for sample in result["samples"]:
        assert sample["scores"]["tint"] < 0.3
        mean = images.read(tmp_path / "run" / sample["image"]).mean((1, 2))
        assert int(mean.argmax()) == {"red": 0, "blue": 2}[sample["prompt"]]


def test_history_has_every_step_with_the_loss_of_every_term_and_sample(invert, tmp_path):
    invert("red", "blue", "--set", "priors=[{name: tv, weight: 0.1}]", "--out", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert all(set(line["losses"]) == {"tint", "tv"} and len(line["losses"]["tint"]) == 2 for line in lines)
    assert lines[-1]["losses"]["tint"][0] < lines[0]["losses"]["tint"][0]


def test_the_resolved_config_alone_reproduces_the_run(invert, refcore, tmp_path):
    invert("red", "--seed", "3", "--set", "steps=3", "--out", tmp_path / "first")
    recorded = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())
    assert (recorded["prompts"], recorded["seeds"], recorded["steps"]) == (["red"], [3], 3)
    assert "chunk" in recorded
    assert recorded["referees"][0]["config"]["model"] == "tint"
    told = refcore("invert", "--config", tmp_path / "first" / "config.yaml", "--out", tmp_path / "second")
    assert told.status == 0
    for name in ("image_0.png", "config.yaml"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_runs_without_a_folder_are_numbered_under_runs(invert, tmp_path):
    assert "runs/a-red-thing-0" in invert("A red thing!").out
    assert "runs/a-red-thing-1" in invert("A red thing!").out
    assert files(tmp_path / "working" / "runs") == ["a-red-thing-0", "a-red-thing-1"]


def test_json_output_is_the_result_and_nothing_else(invert, tmp_path):
    told = invert("a grey one", "--json", "--out", tmp_path / "run")
    printed = json.loads(told.out)
    assert printed.pop("out") == str(tmp_path / "run")
    assert printed == json.loads((tmp_path / "run" / "result.json").read_text())
    assert printed["samples"][0]["notes"] == ["tint: no colour is named"]


def test_prompts_come_from_the_command_line_and_from_a_file(invert, tmp_path):
    (tmp_path / "prompts.txt").write_text("green\n\n  blue \n")
    invert("red", "--prompts-file", tmp_path / "prompts.txt", "--out", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [sample["prompt"] for sample in result["samples"]] == ["red", "green", "blue"]


@pytest.mark.fault("3.4")
@pytest.mark.parametrize("out", [True, False])
def test_a_prompt_of_invalid_bytes_is_one_line_and_makes_no_folder(invert, tmp_path, out):
    told = invert("a caf\udce9", *(["--out", tmp_path / "run"] if out else []))
    assert told.error == r'prompts.0 "a caf\udce9" holds bytes that are not UTF-8 text; give it in UTF-8'
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "working" / "runs").exists()


@pytest.mark.fault("3.4")
def test_what_an_output_cannot_encode_is_printed_escaped(refcore_process, settings, tmp_path, monkeypatch):
    settings["referees"], settings["priors"] = [], [{"name": "tv"}]
    (tmp_path / "tv.yaml").write_text(yaml.safe_dump(settings))
    argv = ["invert", "--config", tmp_path / "tv.yaml"]
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    told = refcore_process(*argv, "red", "--json", "--out", "r\udce9")
    assert (told.status, json.loads(told.out)["out"]) == (0, "r\udce9")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:strict")
    told = refcore_process(*argv, "a café", "--out", "run")
    assert (told.status, told.err) == (0, "")
    assert r"a caf\xe9" in told.out


def test_seed_ranges_are_spelled_out(invert, tmp_path):
    invert("red", "--seeds", "0-2,7", "--out", tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["seeds"] == [0, 1, 2, 7]


def test_a_start_image_is_recorded_with_its_whole_path(invert, tmp_path):
    grey = tmp_path / "working" / "grey.png"
    grey.write_bytes(images.png(np.full((16, 16, 3), 128, np.uint8)))
    invert("red", "--set", "init=grey.png", "--out", tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["init"]["image"] == str(grey)


def test_a_prompt_that_is_too_long_warns_what_is_cut_and_strict_refuses(invert, tmp_path):
    told = invert("one two three four five six", "--out", tmp_path / "run")
    assert told.status == 0
    assert told.err.startswith("warning: ")
    assert '"five six" is cut' in told.err
    told = invert("one two three four five six", "--strict", "--out", tmp_path / "strict")
    assert '"five six" is cut' in told.error
    assert not (tmp_path / "strict").exists()


def test_nan_names_step_and_term_and_keeps_the_image_so_far(invert, tmp_path):
    told = invert("red", "--set", "referees.0.config.nan_after=3", "--out", tmp_path / "run")
    assert told.error.startswith('step 3: "tint" gave NaN')
    assert f"kept in {tmp_path / 'run'}" in told.error
    whole = ["checkpoints", "config.yaml", "history.jsonl", "image_0.png", "recording", "report.html"]
    whole += ["result.json", "run.json"]
    assert files(tmp_path / "run") == whole
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["finished"], result["steps"]) == (False, 3)
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 3


def test_a_bug_of_a_plugin_is_one_line_and_keeps_the_image_so_far(invert, tmp_path):
    told = invert("red", "--set", "referees.0.config.fail_after=2", "--out", tmp_path / "run")
    assert 'referee "tint" (judge) failed with ZeroDivisionError: a bug of the plugin' in told.error
    assert (tmp_path / "run" / "image_0.png").exists()


def test_ctrl_c_ends_after_the_step_and_keeps_the_image_so_far(invert, tmp_path):
    told = invert("red", "--set", "referees.0.config.interrupt_after=2", "--out", tmp_path / "run")
    assert told.status == 130
    path = tmp_path / "run"
    assert told.err == (
        f"warning: stopped after 2 of 6 steps; the images so far are in {path}; "
        f"go on with refcore invert --resume {path}\n"
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["finished"], result["stopped"], result["steps"]) == (False, "interrupted", 2)
    assert (tmp_path / "run" / "image_0.png").exists()


def test_a_folder_that_holds_another_run_is_refused_before_anything_is_loaded(invert, tmp_path):
    invert("red", "--out", tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    told = invert("blue", "--set", "referees.0.config.model=missing", "--out", tmp_path / "run")
    assert "holds another run" in told.error
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_full_disk_is_one_line_and_leaves_no_half_file(invert, tmp_path, monkeypatch):
    def full(path, data):
        raise rundir._unwritable(path, OSError(28, "No space left on device"))

    monkeypatch.setattr(rundir, "write", full)
    told = invert("red", "--out", tmp_path / "run")
    assert "No space left on device" in told.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "no prompt was given"),
        ([""], "prompts.0 is empty"),
        (["red", "  "], "prompts.1 is"),
        (["red", "--prompts-file", "none.txt"], 'cannot read the prompts file "none.txt": No such file'),
        (["red", "--seeds", "1,x"], '--seeds "1,x" is not a list of seeds'),
        (["red", "--seeds", "3-1"], '--seeds "3-1" is not a list of seeds'),
        (["red", "--seeds", "1,1"], "names a seed twice"),
        (["red", "--seed", "1", "--seeds", "2"], "both --seed and --seeds"),
        (["red", "--seed", "one"], "Invalid value for '--seed'"),
        (["red", "--preset", "playgrund"], 'did you mean "playground"?'),
        (["red", "--set", "stepz=3"], 'did you mean "steps"?'),
        (["red", "--set", "steps=many"], "steps: "),
        (["red", "--set", "referees.0.name=tnit"], 'unknown referee "tnit" in referees.0'),
        (["red", "--set", "referees.0.config.modle=x"], "referees.0.config.modle: unknown field"),
        (["red", "--set", "referees.0.config.nan_after=soon"], "referees.0.config.nan_after: "),
        (["red", "--set", "referees.0.config.model=missing"], 'model "missing" is not on this machine'),
        (["red", "--set", "init=none.png"], "init.image: the file is missing"),
        (["red", "--set", "device=abacus"], 'device "abacus" is not available'),
        (["red", "--bogus"], "No such option"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(invert, tmp_path, argv, told):
    assert told in invert(*argv, "--out", tmp_path / "run").error
    assert not (tmp_path / "run").exists()


def test_a_missing_checkpoint_names_the_preset_that_wants_it(refcore, settings, monkeypatch):
    settings["referees"][0]["config"] = {"model": "missing"}
    monkeypatch.setattr(presets, "get", lambda name: presets.Preset(name, dump_yaml(settings)))
    told = refcore("invert", "red", "--preset", "tinted")
    assert told.error.startswith('preset "tinted" cannot run: model "missing"')


def test_a_run_on_embedded_checkpoints_is_judged(invert, tmp_path):
    invert(
        "a red circle", "something else", "--set", "referees.0.config.model=playground:clip", "--out", tmp_path / "run"
    )
    judged, other = json.loads((tmp_path / "run" / "result.json").read_text())["samples"]
    assert judged["verdict"] is False
    assert {"asked", "found", "ok"} == set(judged["facts"][0])
    assert "verdict" not in other


def test_debug_shows_the_traceback(invert, tmp_path):
    with pytest.raises(RefcoreError) as shown:
        invert("red", "--set", "referees.0.config.fail_after=0", "--debug", "--out", tmp_path / "run")
    causes, error = [], shown.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__
    assert ZeroDivisionError in causes


def test_the_recorded_config_is_the_resolved_one(invert, tmp_path):
    invert("red", "--out", tmp_path / "run")
    config = RunConfig.from_settings(load_yaml(tmp_path / "run" / "config.yaml"))
    assert config.canvas.config["squash"] == "sigmoid"


@pytest.mark.fault("4.1")
@pytest.mark.parametrize("laid", [False, True])
def test_a_prompt_outside_the_playground_is_answered_by_what_the_preset_draws(refcore, tmp_path, laid):
    (tmp_path / "mine.yaml").write_text("extends: playground\nsteps: 2\n")
    told = refcore("invert", "a cat", *(["--config", tmp_path / "mine.yaml"] if laid else []))
    assert told.error.startswith(
        'this preset draws coloured shapes ("a red circle left of a blue square"); for things of the world try '
        "--preset natural, with a GPU --preset vlminv ('a cat': "
    )
    assert "spacy" not in told.error
    assert not (tmp_path / "working" / "runs").exists()


def test_what_a_preset_is_for_stands_in_its_file():
    found = presets.Preset("mine", "# A preset.\nabout: {prompts: only words, year: 2024}\nsteps: 1\n")
    assert (found.about.prompts, found.about.year, found.about.needs) == ("only words", 2024, "")
    assert found.settings == {"steps": 1}
    assert presets.Preset("mine", "steps: 1\n").about == presets.About()


def test_a_wrong_word_in_what_a_preset_says_of_itself_is_refused(refcore, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: playground\nabout: {papper: ReNO}\n")
    told = refcore("invert", "a red circle", "--config", tmp_path / "mine.yaml")
    assert told.error.startswith("about.papper: unknown field")
    assert 'did you mean "paper"?' in told.error


@pytest.mark.fault("4.7")
def test_the_score_of_what_is_not_wanted_is_marked(invert, refcore, config_file, tmp_path):
    avoid = "referees.+={name: tint, label: no-blue, prompt: blue, wanted: false}"
    told = invert("red", "--set", avoid, "--out", tmp_path / "run")
    assert "no-blue (not wanted: low is good)" in " ".join(told.out.split())
    assert "tint (not wanted" not in " ".join(told.out.split())
    assert json.loads((tmp_path / "run" / "result.json").read_text())["unwanted"] == ["no-blue"]
    picture = tmp_path / "run" / "image_0.png"
    told = refcore("score", picture, "red", "--config", config_file, "--set", avoid)
    assert "distance (not wanted: low is good)" in told.out
    told = refcore("score", picture, "red", "--config", config_file, "--set", avoid, "--json")
    assert json.loads(told.out)["unwanted"] == ["no-blue"]


@pytest.mark.fault("4.8")
def test_a_log_of_the_command_has_lines_of_steps(invert, monkeypatch, tmp_path):
    monkeypatch.setattr("refcore.runs.observers.Lines.__init__.__defaults__", (print, 0.0, 0.0))
    told = invert("red", "--out", tmp_path / "run")
    assert "step 6 of 6" in told.out
