"""Safe by default: files of other people run nothing, write nothing elsewhere, and reach no network."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzz.pictures import BOMBS
from fuzz.watched import Sandbox, faults, kept
from PIL import Image

from refcore import registry
from refcore.calibration import Calibration
from refcore.config import presets
from refcore.config.settings import dump_yaml
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.runs.lock import LOCK
from refcore.runs.rundir import RunDir
from refcore.runs.state import load_state

ROOT = Path(__file__).parents[1]
PROMPT = "a red circle"
SMALL = {
    "canvas": {"name": "pixel"},
    "size": 16,
    "referees": [{"name": "clip", "config": {"model": "playground:clip"}}],
    "views": {"main": {"count": 1}},
    "optimizer": {"name": "adam", "lr": 0.05},
    "steps": 1,
    "device": "cpu",
}


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "ran")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    torch.set_num_threads(1)
    with kept():
        yield Sandbox(tmp_path_factory.mktemp("sandbox"))


@pytest.fixture
def box(sandbox):
    sandbox.empty()
    (sandbox.given / "small.yaml").write_text(dump_yaml(SMALL))
    Image.new("RGB", (16, 16), "red").save(sandbox.given / "image.png")
    return sandbox


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def payloads(canary: Path) -> dict[str, bytes]:
    """Name of a format -> a file that leaves the canary in a reader that trusts it."""
    evil = Canary(canary)
    legacy, array, archive, tar = (io.BytesIO() for _ in range(4))
    torch.save({"a": evil}, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([evil], dtype=object), allow_pickle=True)
    np.savez(archive, a=np.array([evil], dtype=object))
    with tarfile.open(fileobj=tar, mode="w") as file:
        pickled = pickle.dumps(evil)
        for name in ("pickle", "sys_info", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            file.addfile(member, io.BytesIO(pickled))
    command = f"import pathlib; pathlib.Path({str(canary)!r}).write_text('ran')"
    return {
        "pickle": pickle.dumps(evil),
        "pickle protocol 0": pickle.dumps(evil, 0),
        "torch": saved({"a": torch.ones(2), "evil": evil}),
        "torch, legacy": legacy.getvalue(),
        "torch, tar": tar.getvalue(),
        "npy of objects": array.getvalue(),
        "npz of objects": archive.getvalue(),
        "YAML tags": f"a: !!python/object/apply:builtins.exec [{json.dumps(command)}]\n".encode(),
        "Python": command.encode(),
    }


FORMATS = tuple(payloads(Path("canary")))
ENDS = {
    "pickle": ".pkl",
    "torch": ".pt",
    "torch, legacy": ".pth",
    "torch, tar": ".ckpt",
    "npy of objects": ".npy",
    "Python": ".py",
}
PLACES = {
    "a config": ("config", "validate", "FILE"),
    "a config of a run": ("invert", PROMPT, "--config", "FILE"),
    "what a config extends": ("config", "validate", "--set", "extends=FILE", "--config", "EXTENDS"),
    "a file of prompts": ("invert", "--prompts-file", "FILE", "--config", "SMALL", "--set", "device=meta"),
    "an image to score": ("score", "FILE", PROMPT, "--referee", "clip"),
    "an image to judge": ("judge", "FILE", PROMPT),
    "an image to start from": ("invert", PROMPT, "--config", "SMALL", "--set", "init=FILE"),
    "a referee's image": ("SCORE", "{name: image, config: {reference: FILE, model: playground:clip}}"),
    "a calibration": ("config", "validate", "--set", "referees.0.satisfied_at={quantile: 0.5, calibration: FILE}"),
    "a calibration of latents": (
        *(
            "invert",
            PROMPT,
            "--config",
            "SMALL",
            "--set",
            "canvas={name: latent, config: {model: 'playground:diffusion'}}",
        ),
        *("--set", "size=null", "--set", "priors=[{name: moments, config: {calibration: FILE}}]"),
    ),
    "labels": ("SCORE", "{name: onnx, config: {file: FILE, labels_file: FILE, size: 16}}"),
    "an ONNX file": ("SCORE", "{name: onnx, config: {file: FILE, labels: coco, size: 16}}"),
    "weights of open_clip": ("SCORE", "{name: clip, config: {model: ViT-B-32, pretrained: FILE}}"),
    "a model of open_clip": ("SCORE", "{name: clip, config: {model: FILE}}"),
    "a model of transformers": ("SCORE", "{name: hf-clip, config: {model: FILE}}"),
    "a model of BLIP-2": ("SCORE", "{name: blip2, config: {model: FILE}}"),
    "a captioning head": ("SCORE", "{name: blip2, config: {model: 'playground:blip2', itg_head: FILE}}"),
    "a rating head": ("SCORE", "{name: aesthetic, config: {model: 'playground:clip', head: FILE}}"),
    "a model of timm": ("SCORE", "{name: classifier, config: {model: FILE}}"),
    "weights of timm": ("SCORE", "{name: classifier, config: {model: test_vit, weights: FILE}}"),
    "a diffusion model": (
        "invert",
        PROMPT,
        "--config",
        "SMALL",
        "--set",
        "canvas={name: latent, config: {model: FILE}}",
    ),
    "the source of a head": ("convert", "blip2-itg", "FILE", "out/head.safetensors"),
    "the source of weights": ("convert", "clip-weights", "FILE", "out/weights.safetensors"),
    "the source of HPSv2": ("convert", "hpsv2-weights", "FILE", "out/hps"),
    "the source of ImageReward": ("convert", "image-reward-checkpoint", "FILE", "out/reward"),
    "the source of a rating": ("convert", "aesthetic-head", "FILE", "out/rating.safetensors"),
    "witnesses": ("bench", "natural", "--out", "out", "--witnesses", "FILE", "--variant", "x=nothing"),
    "a panel": (
        "bench",
        "prompts",
        "--out",
        "out",
        "--prompts-file",
        "FILE",
        "--panel",
        "FILE",
        "--variant",
        "x=nothing",
    ),
    "a variant": ("bench", "playground", "--out", "out", "--variant", "x=FILE"),
}
"""Where a command line or a config can name a file of other people."""


@pytest.mark.parametrize("place", PLACES)
def test_a_payload_runs_in_no_place_where_a_file_can_be_named(place, box):
    canary = box.root / "canary"
    for form, content in payloads(canary).items():
        file = box.given / f"payload{ENDS.get(form, '.bin')}"
        file.write_bytes(content)
        (box.given / "extends.yaml").write_text(f"extends: {file}\n")
        words = PLACES[place]
        if words[0] == "SCORE":
            words = ("score", "IMAGE", PROMPT, "--config", "SMALL", "--set", f"referees=[{words[1]}]")
        named = {"FILE": file, "SMALL": box.given / "small.yaml", "EXTENDS": box.given / "extends.yaml"}
        named["IMAGE"] = box.given / "image.png"
        for name, path in named.items():
            words = tuple(word.replace(name, str(path)) for word in words)
        outcome = box.call(*words)
        assert faults(outcome) == [], (form, outcome.err)
        assert not canary.exists(), form
        if place not in ("a file of prompts",) and form != "Python":
            assert outcome.status != 0, form


@pytest.mark.parametrize("form", FORMATS)
def test_a_payload_of_a_saved_state_or_in_a_run_s_folder_runs_nothing(form, box):
    canary = box.root / "canary"
    content = payloads(canary)[form]
    (box.given / "state.safetensors").write_bytes(content)
    with pytest.raises(RefcoreError, match="not a saved state"):
        load_state(box.given / "state.safetensors")
    for name in ("config.yaml", "result.json"):
        for folder in ("first", "second"):
            (box.given / folder).mkdir(exist_ok=True)
            for own in ("config.yaml", "result.json"):
                (box.given / folder / own).write_bytes(content if own == name else b"{}")
        assert box.call("bench", "compare", box.given / "first", box.given / "second").status == 1
    for place in ("results.parquet", "parts/a/b.parquet", "variants/a.json", "prompts.json"):
        (box.given / "results" / place).parent.mkdir(parents=True, exist_ok=True)
        (box.given / "results" / place).write_bytes(content)
    assert faults(box.call("bench", "show", box.given / "results")) == []
    assert not canary.exists()


@pytest.mark.parametrize("form", FORMATS[:3])
def test_those_payloads_would_run_in_a_reader_that_trusts_them(form, tmp_path):
    content = payloads(tmp_path / "canary")[form]
    if form == "torch":
        torch.load(io.BytesIO(content), weights_only=False)
    else:
        pickle.loads(content)
    assert (tmp_path / "canary").exists()


def test_trust_remote_code_is_only_ever_false():
    places = [path for folder in ("refcore", "plugins", "playground", "bench", "performance", "studies", "examples")
              for path in (ROOT / folder).rglob("*.py")]  # fmt: skip
    assert len(places) > 200
    wrong = []
    for path in places:
        for line in path.read_text("utf-8").splitlines():
            plain = re.sub(r'trust_remote_code"?\s*[=:]\s*False|"trust_remote_code": "asks for Python code', "", line)
            if "trust_remote_code" in plain:
                wrong.append(f"{path.relative_to(ROOT)}: {line.strip()}")
    assert wrong == []


HOSTILE = (
    "{0.__class__}",
    "{prompt!r}",
    "$HOME",
    "${HOME}",
    "%(a)s",
    "$(touch x)",
    "`touch x`",
    "../../x",
    "/x",
    "a;b",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_config_are_texts_and_write_in_the_run_s_folder_alone(text, box):
    label = f"a red circle {text}"
    settings = {**SMALL, "prompts": [f"{PROMPT} {text}"], "referees": [{**SMALL["referees"][0], "label": label}]}
    (box.given / "hostile.yaml").write_text(dump_yaml(settings))
    for out in (("--out", "out"), ()):
        outcome = box.call("invert", "--config", box.given / "hostile.yaml", *out)
        assert (outcome.status, outcome.trespasses) == (0, []), outcome.err
    runs = [box.out, *(box.root / "working" / "runs").iterdir()]
    assert sorted(path.name for path in (box.root / "working").iterdir()) == ["out", "runs"]
    for folder in runs:
        names = {path.name for path in folder.iterdir()}
        own = {"config.yaml", "history.jsonl", "image_0.png", "result.json", "run.json", "report.html"}
        assert names == own | {"checkpoints", "recording"}
        written = json.loads((folder / "result.json").read_text())["samples"][0]
        assert written["prompt"] == f"{PROMPT} {text}"
        assert list(written["scores"]) == [label]
        assert yaml.safe_load((folder / "config.yaml").read_text())["prompts"] == [f"{PROMPT} {text}"]


def test_no_field_of_a_config_names_what_is_written():
    fields = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            fields.update(schema.get("properties", {}))
            for inner in schema.values():
                walk(inner)
        elif isinstance(schema, list):
            for inner in schema:
                walk(inner)

    walk(presets.RunConfig.model_json_schema())
    for kind in set(registry.KINDS) - {"trackers"}:  # they are named on the command line, and write where they are told
        for name in registry.names(kind):
            walk(registry.get(kind, name).Config.model_json_schema())
    words = {"out", "output", "dir", "folder", "path", "file", "save", "log", "cache", "write", "to"}
    naming = {field for field in fields if words & {*field.split("_")}}
    assert naming == {
        "output",
        "file",
        "labels_file",
        "denoiser_file",
    }  # output: which of the images; the others are read
    assert presets.RunConfig.model_fields["output"].annotation.__args__ == ("current", "ema", "best")


@pytest.mark.parametrize("name", ["config.yaml", "history.jsonl", "result.json", "image_0.png", ".refcore-x.partial"])
def test_links_in_an_output_folder_are_never_written_through(name, box):
    elsewhere = box.given / "precious"
    elsewhere.write_text("mine")
    box.out.mkdir()
    (box.out / name).symlink_to(elsewhere)
    outcome = box.call("invert", PROMPT, "--config", box.given / "small.yaml", "--out", "out")
    assert elsewhere.read_text() == "mine"
    assert outcome.trespasses == []
    assert (outcome.status == 0) == name.startswith(".refcore")


@pytest.mark.parametrize("make", ["link", "dangling link", "pipe", "folder"])
def test_a_lock_that_somebody_prepared_is_refused_and_nothing_is_written_through_it(make, tmp_path):
    precious = tmp_path / "precious"
    folder = tmp_path / "out"
    folder.mkdir()
    if make == "link":
        precious.write_text("mine")
        (folder / LOCK).symlink_to(precious)
    elif make == "dangling link":
        (folder / LOCK).symlink_to(precious)
    elif make == "pipe":
        os.mkfifo(folder / LOCK)
    else:
        (folder / LOCK).mkdir()
    with pytest.raises(RefcoreError):
        RunDir.claim(folder)
    assert precious.exists() == (make == "link")
    if make == "link":
        assert precious.read_text() == "mine"


BLOCKED = """
import socket, sys
found = []
def hear(event, arguments):
    local = event in ("socket.__new__", "socket.gethostname")
    # urllib3 binds the loopback address when it is imported, to see whether there is IPv6.
    local = local or (event == "socket.bind" and arguments[1][0] in ("::1", "127.0.0.1"))
    if event.startswith(("urllib", "socket.")) and not local:
        found.append(event)
        raise PermissionError(f"{event} {arguments}")
sys.addaudithook(hear)
import refcore
from refcore.cli import main
try:
    main()
finally:
    assert not found, found
"""
"""Runs the command line where nothing can be connected, sent, looked up or listened to."""


def offline(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    hub = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hub}
    environment |= {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
    process = [sys.executable, "-c", BLOCKED, *words]
    return subprocess.run(process, capture_output=True, text=True, cwd=folder, env=environment, check=False)


TINY = ("--set", "steps=1", "--set", "views.main.count=1", "--set", "device=cpu")
ONE = (*TINY, "--set", "candidates={count: 1}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("doctor", "--preset", "vlminv"),
        ("config", "validate", "--preset", "playground"),
        ("plugins", "--check"),
        ("invert", PROMPT, *ONE, "--set", "init={steps: 2}"),
        ("invert", PROMPT, "--preset", "playground-blind", *ONE),
        ("invert", PROMPT, "--preset", "playground-clipdraw", *ONE),
        ("invert", "volcano", "--preset", "natural", *TINY),
        ("invert", "CAT", "--preset", "lettering", *TINY),
        (
            "bench",
            "playground",
            "--quick",
            "--count",
            "1",
            "--out",
            "out",
            "--variant",
            f"x=playground-blind,{','.join(ONE[1::2])}",
        ),
    ],
    ids=lambda words: " ".join(words[:4]),
)
def test_nothing_opens_a_connection_unless_a_hub_is_named(words, tmp_path):
    done = offline(*words, folder=tmp_path)
    assert (done.returncode, done.stderr.count("PermissionError")) == (0, 0), done.stderr


@pytest.mark.slow
def test_a_hub_s_name_does_so_there(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "image.png")
    named = "witnesses=[{name: hf-clip, config: {model: 'nobody/nothing'}}]"
    done = offline("score", "image.png", PROMPT, "--referee", "hf-clip", "--set", named, folder=tmp_path)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


READ = """
import resource, sys
from PIL import features
import numpy, PIL.Image, PIL.ImageCms
from refcore import images
from refcore.errors import RefcoreError
PIL.Image.init()
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + {most}, -1))
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
for path in sys.argv[1:]:
    try:
        print(path, images.read_levels(path).shape)
    except RefcoreError as error:
        print(error)
"""
"""Reads images in little memory and time."""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_bombs_are_refused_or_read_in_bounded_memory_and_time(tmp_path):
    paths = []
    for name, content in BOMBS.items():
        (tmp_path / name).write_bytes(content)
        paths.append(str(tmp_path / name))
    code = READ.format(most=2**30)  # the largest image that is read is 200 MB in each of its copies
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == len(paths), done.stdout
    by_name = dict(zip(BOMBS, lines, strict=True))
    assert {name for name, line in by_name.items() if not line.startswith("cannot read")} <= {
        *("unfolds.png", "profile.png", "text.png", "count.tif"),
    }
    assert "MemoryError" not in done.stdout


def test_a_state_of_other_people_reads_no_pickle(toys, tmp_path):
    with zipfile.ZipFile(tmp_path / "state", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(RefcoreError, match="not a saved state"):
        Inversion.load_state_dict(None, load_state(tmp_path / "state"))  # type: ignore[arg-type]
    assert not (tmp_path / "canary").exists()


def test_a_pipe_or_a_device_in_place_of_a_calibration_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        (tmp_path / "pipe", "it is a pipe"),
        ("/dev/zero", "it is a device"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(RefcoreError, match=kind):
            Calibration.read(str(path))


def test_limits_of_this_process_are_as_they_were():
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
