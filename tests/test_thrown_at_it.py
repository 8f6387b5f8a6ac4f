"""What the fuzzers found, each as its whole kind: commands to a terminal, files without end or of another shape."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fuzz.folder_cases import stored_run
from fuzz.values import places
from safetensors.torch import load_file
from toys import ToyReferee, toy_config

import refcore
from refcore import checkpoints, registry
from refcore.calibration import Calibration
from refcore.cli import main, output
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml, parse_yaml
from refcore.diagnostics import doctor
from refcore.engine import preflight
from refcore.engine.build import resolve
from refcore.engine.inversion import Inversion
from refcore.errors import CheckpointError, RefcoreError, described, printable, unknown
from refcore.runs.observers import Lines, Progress
from refcore.runs.stored import read_run
from refcore.text_files import read_json, read_text
from refcore_bench.storing.results import Results
from refcore_bench.witnesses import entries
from refcore_playground.grammar import GrammarError, parse
from refcore_plugins.models.checkpoint_conversion import read_pickled
from refcore_plugins.models.diffusers_folder import DiffusersFolder
from refcore_plugins.models.preprocess import Normalise
from refcore_plugins.models.untrusted_checkpoints import reason_of, refuse_code

ROOT = Path(__file__).parents[1]

ESCAPE = "\x1b[2J\x9b31m\x07\u202e"
"""Clears a screen, colours text, rings, and turns the direction of writing."""
MINIMAL: dict[str, Any] = {"canvas": {"name": "pixel"}, "priors": [{"name": "tv"}]}


def ended(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


# Text that commands a terminal


@pytest.mark.parametrize(
    "words",
    [
        ("config", "validate", "--set", f"{ESCAPE}=1"),
        ("config", "validate", "--set", f"steps={ESCAPE}"),
        ("judge", f"{ESCAPE}.png", "a red circle"),
        ("plugins", "show", ESCAPE),
        ("bench", "compare", ESCAPE, "x"),
    ],
)
def test_a_message_shows_control_characters_and_obeys_none(words, capsys):
    status, _, error = ended(capsys, *words)
    assert status == 1
    assert error.removesuffix("\n").isprintable()
    assert r"\x1b" in error


def test_tables_json_and_yaml_show_control_characters_and_lose_none(tmp_path, capsys):
    label = f"[/bold]{ESCAPE}"
    for name in ("first", "second"):
        stored_run(tmp_path / name, {label: 0.5})
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        config["referees"][0]["label"] = label
        (tmp_path / name / "config.yaml").write_text(dump_yaml(config))
    for more in ((), ("--markdown",), ("--json",)):
        status, out, _ = ended(capsys, "bench", "compare", tmp_path / "first", tmp_path / "second", *more)
        assert status == 0
        assert not {"\x1b", "\x9b", "\x07"} & {*out}
        if more != ("--json",):
            assert r"[/bold]\x1b[2J\x9b31m\x07" in out.replace("\n", "")
    assert label in json.loads(out)["panel"]
    (tmp_path / "it.yaml").write_text(dump_yaml({**MINIMAL, "prompts": [f"a{ESCAPE[-1]}b"]}))
    status, out, _ = ended(capsys, "config", "show", tmp_path / "it.yaml")
    assert ESCAPE[-1] not in out
    assert parse_yaml(out, "it")["prompts"] == [f"a{ESCAPE[-1]}b"]


def test_a_folder_whose_name_is_markup_is_a_column_of_that_name(tmp_path, capsys):
    for name in ("[/]", "[red]"):
        stored_run(tmp_path / name.replace("/", "\u2215"), {"clip": 0.5})
    status, out, error = ended(capsys, "bench", "compare", *sorted(tmp_path.iterdir()))
    assert (status, error) == (0, "")
    assert "[red]" in out


def test_a_label_that_is_markup_breaks_no_progress_bar(monkeypatch, capsys):
    class Inversion:
        planned, step = 2, 0

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Progress()
    bar.on_start(Inversion())  # type: ignore[arg-type]
    bar._shown = -1e9
    bar.on_step(None, {"step": 0, "losses": {f"[/x]{ESCAPE}": [1.0]}, "active": [True]})  # type: ignore[arg-type]
    bar.on_exit()
    said: list[str] = []
    Lines(said.append).before_load(RunConfig.from_settings(MINIMAL))
    assert "\x07" not in capsys.readouterr().err


def test_what_prints_is_left_alone():
    assert printable("a kitten, ein Kätzchen, 子猫 🙂\n\tb") == "a kitten, ein Kätzchen, 子猫 🙂\n\tb"
    assert output.cell_text("[red]a") == r"\[red]a"


# Messages


def test_an_exception_whose_text_fails_or_has_no_end_is_one_short_line(tmp_path, capsys):
    (tmp_path / "mute.py").write_text("class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute\n")
    (tmp_path / "loud.py").write_text("raise RuntimeError('x' * 10**6)\n")
    status, out, error = ended(capsys, "plugins", "--json", "--plugins-dir", tmp_path)
    rows = {row["name"]: row["error"] for row in json.loads(out) if row["kind"] == "file"}
    assert (status, error) == (0, "")
    assert rows["mute"] == "Mute"
    assert rows["loud"].startswith("RuntimeError: xxx")
    assert max(map(len, rows.values())) < 400
    assert described(RefcoreError("a\nb")) == "a b"


def test_fields_beside_each_other_are_told_once_what_is_known_and_one_without_a_name_is_shown():
    with pytest.raises(RefcoreError) as refused:
        RunConfig.from_settings({**MINIMAL, "": 1, "stps": 2})
    message = str(refused.value)
    assert message.startswith('"": unknown field; known: prompts, seeds, ')
    assert message.endswith('; stps: unknown field; did you mean "steps"?')


def test_a_library_s_shapes_are_lists():
    error = RuntimeError("size mismatch:\n shape torch.Size([2, 3]) and torch.Size([])")
    assert reason_of(error) == "size mismatch: shape [2, 3] and []"


@pytest.mark.parametrize("mean", [None, 0.5, [0.5, 0.5], [0.5, "a", 0.5], [0.5, float("nan"), 0.5]])
def test_a_preprocessing_whose_constants_are_none_is_refused_with_its_value(mean):
    with pytest.raises(CheckpointError, match=r"the mean of .* preprocessing is .*; expected three numbers"):
        Normalise(mean, [0.5] * 3, torch.device("cpu"))
    with pytest.raises(CheckpointError, match=r"the std .* expected three numbers other than 0"):
        Normalise([0.5] * 3, [0.5, 0.0, 0.5], torch.device("cpu"))


def test_the_unread_end_of_a_long_prompt_is_told_shortened():
    with pytest.raises(RefcoreError) as refused:
        refcore.invert("a " * 3000, config={**MINIMAL, "priors": [], "referees": [{"name": "clip"}], "strict": True})
    assert len(str(refused.value)) < 500
    assert "is cut; shorten the prompt" in str(refused.value)


def test_a_long_prompt_outside_the_grammar_is_told_shortened():
    for prompt in (f"{'a' * 3000} red circle", f"a red {'circle' * 500}", f"a {'red' * 900} circle left of a red ring"):
        with pytest.raises(GrammarError) as refused:
            parse(prompt)
        assert len(str(refused.value)) < 400


def test_a_pickle_that_ends_in_the_middle_of_a_number_is_refused(tmp_path):
    """Unpickling it raises struct.error, which is none of the errors of a file."""
    torch.save({"a": torch.zeros(2)}, tmp_path / "whole.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "source.bin").write_bytes((tmp_path / "whole.bin").read_bytes()[:20] + b"M\x01")
    with pytest.raises(CheckpointError, match="cannot be read as a torch checkpoint of plain tensors"):
        read_pickled(tmp_path / "source.bin", "a file")
    (tmp_path / "source.bin").write_bytes(b"\x80\x02M\x01")
    with pytest.raises(CheckpointError, match="cannot be read as a torch checkpoint of plain tensors"):
        read_pickled(tmp_path / "source.bin", "a file")


def test_the_reason_of_a_plugin_that_fails_is_shortened(toys):
    class Wordy(ToyReferee):
        def judge(self, *args, **options):
            raise TypeError("a " * 2000)

    registry.register("referees", "wordy", Wordy, "fails")
    with pytest.raises(RefcoreError, match="failed with TypeError: a a") as refused:
        next(Inversion(toy_config(referees=[{"name": "wordy"}])))
    assert len(str(refused.value)) < 500


def test_a_calibration_of_other_channels_is_named(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(Calibration((), latent={"mean": [0.0] * 3, "std": [1.0] * 3}).to_json())
    prior = f"priors=[{{name: moments, config: {{calibration: '{path}'}}}}]"
    with pytest.raises(RefcoreError, match=f'mean of calibration "{path}" has 3 numbers'):
        refcore.invert("a red circle", overrides=[prior, "combine={name: sum}", "init=null", "candidates={count: 1}"])


def test_a_library_s_views_of_a_dict_are_lists():
    error = ValueError("size must have one of these keys, got dict_keys([]) and dict_keys(['a']).")
    assert reason_of(error) == "size must have one of these keys, got [] and ['a']."


def test_a_library_s_type_of_nothing_is_none():
    error = TypeError("Field 'vision_config' with value 0 doesn't match any type in (dict, NoneType)")
    assert reason_of(error) == "Field 'vision_config' with value 0 doesn't match any type in (dict, None)"


def test_a_config_that_is_wrong_all_over_is_told_of_three_fields():
    wrong = {**MINIMAL, **{f"field{i}": i for i in range(50)}}
    with pytest.raises(RefcoreError, match="and 47 more fields are wrong") as refused:
        RunConfig.from_settings(wrong)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(("value", "expected"), [(3, "a mapping of fields"), ([1], "a mapping of fields")])
@pytest.mark.parametrize("field", ["ema", "canvas", "optimizer", "early_stop", "combine"])
def test_messages_about_types_speak_no_python(field, value, expected):
    with pytest.raises(RefcoreError) as refused:
        RunConfig.from_settings({**MINIMAL, field: value})
    message = str(refused.value)
    assert message.startswith(f"{field}: ")
    assert "instance of" not in message
    assert "dictionary" not in message
    assert expected in message


def test_a_field_of_another_kind_of_start_is_told_with_what_it_goes():
    said = "init.strength: unknown field; known: prior, steps, guidance, rounds; it goes with image"
    with pytest.raises(RefcoreError, match=said):
        RunConfig.from_settings({**MINIMAL, "init": {"strength": 0.5}})


def test_of_many_known_names_those_like_the_unknown_one_are_listed():
    message = str(unknown("field", "kandidates.keep", [f"candidates.{i}.keep" for i in range(9)] + ["x" * 50] * 60))
    assert "candidates.3.keep" in message
    assert "others" in message
    assert len(message) < 500


@pytest.mark.slow
@pytest.mark.parametrize("name", ["playground", "playground-blind", "natural", "lettering", "vlminv"])
def test_every_field_of_a_preset_refuses_by_name_what_it_cannot_be(name):
    base = presets.get(name).settings
    values: list[Any] = [{}, {"a": {"b": [1]}}, [], [{}], [[1]], "x", -1, 1.5, True, {"kind": {}}, {"name": {}}]
    values += [{"kind": "linear"}, {"name": "tv"}, {"name": ["x"], "kind": ["y"]}, [{"name": {}}]]
    for path in places(base):
        for value in values:
            settings = copy.deepcopy(base)
            parent = settings
            for part in path[:-1]:
                parent = parent[part]
            parent[path[-1]] = value
            with contextlib.suppress(RefcoreError):  # and nothing else
                config = resolve(presets.compose(None, settings))
                list(preflight.problems(config))
                doctor.needed_checkpoints(config)


def test_a_kind_of_schedule_that_is_no_text_is_refused():
    for kind in ({}, [], {"a": 1}, 3):
        with pytest.raises(RefcoreError, match=r"noise\.kind"):
            RunConfig.from_settings({**MINIMAL, "noise": {"kind": kind}})


# Endless files


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    return tmp_path / "pipe.yaml"


def test_what_has_no_end_is_not_begun(pipe, tmp_path):
    for read in (read_text, read_json):
        for path, kind in ((pipe, "pipe"), ("/dev/zero", "device"), (tmp_path, "folder")):
            with pytest.raises(ValueError, match=f"it is a {kind}"):
                read(path)
    (tmp_path / "large").write_bytes(b" " * 1001)
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        read_text(tmp_path / "large", 1000)
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="it is nested too deeply"):
        read_json(tmp_path / "deep")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_text(tmp_path / "latin")


def test_a_config_that_extends_a_pipe_or_a_device_does_not_wait(pipe):
    for path in (pipe, "/dev/zero"):
        with pytest.raises(RefcoreError, match="expected the name of a preset, or a YAML file"):
            presets.compose(None, {"extends": str(path), **MINIMAL})


def test_a_calibration_and_labels_and_witnesses_are_read_within_bounds(pipe, tmp_path):
    for path in (pipe, "/dev/zero"):
        with pytest.raises(RefcoreError, match="is not a calibration file"):
            Calibration.read(str(path))
        with pytest.raises(RefcoreError, match="cannot be read"):
            entries(Path(path))
    names = "abcdefghi"
    bomb = "- &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"- &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise(names)
    )
    (tmp_path / "witnesses.yaml").write_text(bomb)
    with pytest.raises(RefcoreError, match="more than 100,000 values"):
        entries(tmp_path / "witnesses.yaml")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer/tokenizer.json"])
def test_a_pipe_in_a_checkpoint_is_refused_by_name(name, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"clip: {name} of model \"m\" is no file: it is a pipe"):
        refuse_code(tmp_path, "m", "clip")


def test_the_root_of_a_disk_is_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MOST_FILES", 20)
    monkeypatch.setattr("refcore_plugins.models.untrusted_checkpoints.MOST_FILES", 20)
    for i in range(30):
        (tmp_path / f"{i}.txt").touch()
    with pytest.raises(CheckpointError, match="more than 20 files"):
        refuse_code(tmp_path, "m")
    with pytest.raises(CheckpointError, match="more than 20 files"):
        checkpoints.digest(tmp_path)
    assert doctor._found(str(tmp_path), ()).parameters is None


@pytest.mark.parametrize(
    "header",
    [b"\xff" * 8, (2**40).to_bytes(8, "little"), b"\x02" + b"\0" * 7 + b"[]", b"\x0a" + b"\0" * 7 + b'{"a":{}}  '],
)
def test_a_header_that_lies_is_not_counted_by_the_doctor(header, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(header)
    assert doctor._counted(tmp_path / "model.safetensors") is None


def test_a_header_that_says_the_truth_is_counted():
    file = checkpoints.zoo() / "clip" / "open_clip_model.safetensors"
    floating = [tensor for tensor in load_file(file).values() if tensor.is_floating_point()]
    assert doctor._counted(file)[0] == sum(tensor.numel() for tensor in floating)  # type: ignore[index]


# Files of another shape


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("samples", 0, "scores"), 3),
        (("samples", 0, "scores"), {"clip": "high"}),
        (("samples", 0, "seed"), {}),
        (("samples", 0, "prompt"), ["a"]),
        (("samples", 0, "witnesses"), []),
        (("samples", 0, "verdict"), {}),
        (("samples",), {"a": 1}),
        (("timings",), []),
        (("timings", "steps"), "long"),
        (("checkpoints",), [1]),
        (("versions",), 3),
        (("unwanted",), 3),
        (("steps",), {}),
    ],
)
def test_a_result_of_another_shape_is_refused_by_field(place, value, tmp_path):
    stored_run(tmp_path / "run", {"clip": 0.5})
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    parent = result
    for part in place[:-1]:
        parent = parent[part]
    parent[place[-1]] = value
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    with pytest.raises(RefcoreError, match=".".join(map(str, place))):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("field", ["referees", "priors", "witnesses"])
@pytest.mark.parametrize("value", [3, [3], [{}], [{"name": []}], {"a": 1}])
def test_a_stored_config_of_another_shape_is_refused_by_field(field, value, tmp_path):
    stored_run(tmp_path / "run", {"clip": 0.5})
    (tmp_path / "run" / "config.yaml").write_text(dump_yaml({field: value}))
    with pytest.raises(RefcoreError, match=rf"config\.yaml that no run wrote \({field}"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("prompts.json", []),
        ("prompts.json", {"task": {}}),
        ("prompts.json", {"prompts": 3}),
        ("prompts.json", {"prompts": [{"prompt": 1}]}),
        ("prompts.json", {"panel": [{}]}),
        ("thresholds.json", {"a": 1}),
        ("budgets.json", {"a": "b"}),
        ("variants/a.json", {"name": "a"}),
        ("variants/a.json", [1]),
    ],
)
def test_results_of_another_shape_are_refused_by_file(file, content, tmp_path):
    (tmp_path / "variants").mkdir()
    (tmp_path / file).write_text(json.dumps(content))
    results = Results(tmp_path)
    with pytest.raises(RefcoreError, match=rf'{file}" is broken'):
        (results.task, results.prompts(), results.panel(), results.thresholds(), results.budgets(), results.variants())


@pytest.mark.parametrize(
    "content",
    [
        {"about": {}, "latent": {"mean": [0.0]}, "referees": []},
        {"about": {}, "latent": {"mean": [0.0], "std": [0.0]}, "referees": []},
        {"about": {}, "latent": 3, "referees": []},
        {"about": {}, "latent": None, "referees": [{"losses": [1.0]}]},
        {"about": {}, "latent": None, "referees": {"a": 1}},
        {"about": {}, "latent": {"mean": [True], "std": [1.0]}, "referees": []},
        [],
        3,
        None,
    ],
)
def test_a_calibration_of_another_shape_is_refused(content, tmp_path):
    (tmp_path / "it.json").write_text(json.dumps(content))
    with pytest.raises(RefcoreError, match="is not a calibration file") as refused:
        Calibration.read(str(tmp_path / "it.json"))
    assert "Error" not in str(refused.value)


def test_a_config_with_all_of_a_plugin_s_defaults_is_the_config_without_them():
    """`moments` once refused its own calibration once its other fields had been filled in, as every run fills them."""
    for kind in registry.KINDS:
        for name in registry.names(kind):
            config = registry.get(kind, name).Config
            try:
                plain = config()
            except ValueError:
                continue  # a field is required
            assert config.model_validate(plain.model_dump()) == plain
    settings = {
        **MINIMAL,
        "canvas": {"name": "latent"},
        "priors": [{"name": "moments", "config": {"calibration": "x.json"}}],
    }
    assert resolve(RunConfig.from_settings(settings)).priors[0].config["calibration"] == "x.json"


@pytest.mark.slow
def test_a_broken_diffusers_folder_is_one_line_on_the_standard_error(tmp_path):
    zoo = checkpoints.zoo() / "diffusion"
    for path in zoo.rglob("*"):
        if path.is_file() and path.parent.name != "unet":
            (tmp_path / path.relative_to(zoo)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, tmp_path / path.relative_to(zoo)) if path.stat().st_dev == tmp_path.stat().st_dev else (
                tmp_path / path.relative_to(zoo)
            ).write_bytes(path.read_bytes())
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_bytes((zoo / "unet" / "config.json").read_bytes())
    code = (
        "import sys, torch\nfrom refcore import registry\nfrom refcore.errors import CheckpointError\n"
        "try: registry.create('priors', 'sds', {'model': sys.argv[1]}).load(torch.device('cpu'), torch.float32)\n"
        "except CheckpointError as error: print('refused:', error)"
    )
    process = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("refused: unet of")
    assert "An error occurred" not in done.stderr
    assert DiffusersFolder(str(tmp_path)).is_local


def test_given_values_share_the_room_of_one():
    wrong = {**MINIMAL, "seeds": [["x" * 200]], "steps": "y" * 200, "size": "z" * 200}
    with pytest.raises(RefcoreError) as refused:
        RunConfig.from_settings(wrong)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("path", ["canvas.name.{}", "{0}.{0}", "referees.{}", "referees.0.name.{}", "referees.0.{0}.+"])
def test_a_long_path_of_an_override_is_told_in_short(path):
    with pytest.raises(RefcoreError) as refused:
        presets.compose("playground", None, [f"{path.format('a' * 5000)}=1"])
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["{}", "{}.yaml", "{}/{}.yaml"])
def test_a_long_name_of_what_a_config_extends_is_told_in_short(name, tmp_path):
    (tmp_path / "it.yaml").write_text(f"extends: {name.replace('{}', 'a' * 5000)}\n")
    with pytest.raises(RefcoreError) as refused:
        presets.compose(None, tmp_path / "it.yaml")
    assert len(str(refused.value)) < 500


def test_paths_of_unknown_users_are_files_that_are_missing(tmp_path):
    """`Path.expanduser` raises where there is no such user; `os.path.expanduser` leaves the path as it is."""
    for file in (f for folder in ("refcore", "plugins", "bench", "playground") for f in (ROOT / folder).rglob("*.py")):
        assert ").expanduser()" not in file.read_text("utf-8"), file
    (tmp_path / "it.yaml").write_text("extends: ~nobody-of-that-name/it.yaml\n")
    with pytest.raises(RefcoreError, match="nobody-of-that-name"):
        presets.compose(None, tmp_path / "it.yaml")
