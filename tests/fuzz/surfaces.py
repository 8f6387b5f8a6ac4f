"""Everything that the command line reads from others, each with cases for it: words to call, and files for them."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fuzz.pictures import ENDS, files
from fuzz.values import encodable, mutated, near, places, schedules, spoiled, texts, values
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from refcore import checkpoints
from refcore.calibration import QUANTILES, Calibration
from refcore.config import presets
from refcore.config.settings import dump_yaml

Draw = st.DrawFn
PROMPT = "a red circle left of a blue square"
PRESETS = ("playground", "playground-blind", "natural", "lettering", "vlminv", "vlminv-itm")
SMALL = {
    "canvas": {"name": "pixel"},
    "size": 16,
    "referees": [{"name": "clip", "config": {"model": "playground:clip"}}],
    "views": {"main": {"count": 1}},
    "optimizer": {"name": "adam", "lr": 0.05},
    "steps": 1,
    "device": "cpu",
}
"""A run of one step that takes milliseconds once its model is loaded."""


@dataclass(frozen=True)
class Case:
    """A call of the command line."""

    words: tuple[str, ...]
    named: tuple[str, ...] = ()
    """Fields, options or files, one of which an error has to name; empty: any error will do."""


@dataclass(frozen=True)
class Surface:
    """A kind of input."""

    case: Callable[[Draw, Path], Case]
    """Draws a case whose files lie in a folder that is empty before."""
    share: int
    """Part of all cases, among the sum of all shares."""


def yaml_of(value: Any) -> str:
    """YAML text of anything: flow style, as `--set` has it."""
    try:
        return (
            encodable(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9))
            .removesuffix("\n...\n")
            .strip()
        )
    except RecursionError:
        return "[" * 2000


@functools.cache
def settings(name: str) -> dict[str, Any]:
    return presets.get(name).settings


@functools.cache
def dotted(name: str) -> tuple[str, ...]:
    """Every field of a preset, as `--set` names it."""
    own = [".".join(map(str, path)) for path in places(settings(name))]
    return (*own, *TOP, *(f"{field}.{inner}" for field in own[:30] for inner in ("kind", "name", "config", "x")))


@functools.cache
def valued(name: str) -> tuple[tuple[str, Any], ...]:
    """Every field of a preset and some that it leaves out, with a good value."""
    own = [(".".join(map(str, path)), value_of(settings(name), path)) for path in places(settings(name))]
    others = {
        "init.image": "x.png",
        "referees.0.satisfied_at": 0.5,
        "early_stop": {"patience": 3},
        "dtype": "float32",
        "chunk": 2,
    }
    others |= {
        "seeds": [0, 1],
        "prompts": [PROMPT],
        "noise": 0.1,
        "best.every": 2,
        "device": "cpu",
        "size": [16, 16],
        "strict": True,
    }
    others |= {
        "priors.+": {"name": "tv"},
        "witnesses": [{"name": "clip"}],
        "referees.0.window": [0, 3],
        "referees.0.wanted": False,
    }
    return (*own, *others.items())


def value_of(structure: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        structure = structure[part]
    return structure


TOP = (
    *(
        "prompts",
        "seeds",
        "canvas",
        "size",
        "init",
        "candidates",
        "referees",
        "priors",
        "witnesses",
        "views",
        "combine",
    ),
    *(
        "optimizer",
        "steps",
        "noise",
        "ema",
        "output",
        "best",
        "early_stop",
        "chunk",
        "device",
        "dtype",
        "autocast",
        "strict",
    ),
    *(
        "referees.+",
        "priors.+",
        "witnesses.+",
        "views.main.augment.+",
        "referees.clip.weight",
        "referees.0.satisfied_at",
    ),
    *(
        "referees.0.phrases",
        "referees.0.window",
        "optimizer.lr.latent",
        "init.image",
        "init.strength",
        "extends",
        "preset",
    ),
)


def words_of(text: str) -> list[str]:
    """A text as one word of a command line: no NUL, which no operating system passes on."""
    return (
        [text.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")]
        if _passable(text)
        else [""]
    )


def _passable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def assignments(draw: Draw, name: str, most: int = 2) -> list[str]:
    """Assignments of `--set`."""
    found = []
    for _ in range(draw(st.integers(1, most))):
        field, own = draw(st.sampled_from(valued(name)))
        kind = draw(st.integers(0, 9))
        if kind < 5:
            found += words_of(f"{field}={yaml_of(draw(near(own)))}")
        elif kind < 8:
            found += words_of(f"{draw(st.sampled_from((field, *TOP)))}={yaml_of(draw(values()))}")
        elif kind == 8:
            found += words_of(f"{field}.{draw(texts(8))}={draw(texts(8))}")
        else:
            found += words_of(draw(texts(12)) + draw(st.sampled_from(("", "="))) + draw(texts(12)))
    return found


def overrides(draw: Draw, folder: Path) -> Case:
    name = draw(st.sampled_from(PRESETS))
    assigned = assignments(draw, name)
    command = draw(
        st.sampled_from(
            (
                ("config", "validate"),
                ("config", "show"),
                ("config", "show", "--json"),
                ("doctor",),
                ("config", "validate", "--json"),
            )
        )
    )
    return Case((*command, "--preset", name, *(word for one in assigned for word in ("--set", one))), ())


def config_texts(draw: Draw, folder: Path) -> Case:
    source = presets.get(draw(st.sampled_from(PRESETS))).text.encode()
    words = (
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/name:os.system ",
        b"? ",
        b"- ",
        b": ",
        b"{",
        b"[" * 60,
        b"\t",
        b"\xef\xbb\xbf",
        b"%YAML 9.9\n",
        b"---\n",
    )
    content = draw(
        st.one_of(spoiled(source, words), st.text(max_size=200).map(encodable).map(str.encode), st.binary(max_size=60))
    )
    file = folder / f"it{draw(st.sampled_from(('.yaml', '.yml', '', '.txt')))}"
    file.write_bytes(content)
    command = draw(
        st.sampled_from(
            (
                ("config", "validate", str(file)),
                ("config", "show", "--config", str(file)),
                ("doctor", "--config", str(file)),
            )
        )
    )
    return Case(command, ())


def config_structures(draw: Draw, folder: Path) -> Case:
    structure, _ = draw(mutated(settings(draw(st.sampled_from(PRESETS)))))
    if draw(st.integers(0, 4)) == 0:
        structure = {
            "extends": draw(st.one_of(st.sampled_from((*PRESETS, "it.yaml", "../x.yaml", "/dev/zero.yaml")), texts())),
            **structure,
        }
    file = folder / "it.yaml"
    file.write_text(yaml_of(structure), "utf-8", "replace")
    if draw(st.booleans()):
        return Case(("config", "validate", str(file)), ())
    return Case(("doctor", "--config", str(file), "--json"), ())


def prompts(draw: Draw, folder: Path) -> Case:
    word = draw(st.sampled_from(("red circle", PROMPT, "two green triangles", "volcano", "")))
    (prompt,) = words_of(draw(st.one_of(texts(200), st.tuples(texts(), st.just(word), texts()).map(" ".join))))
    command = draw(st.integers(0, 3))
    if command == 0:
        image(folder)
        return Case(("judge", str(folder / "image.png"), "--", prompt), ())
    if command == 1:
        image(folder)
        return Case(
            (
                "score",
                str(folder / "image.png"),
                "--referee",
                draw(st.sampled_from(("clip", "owlv2", "blip2"))),
                "--",
                prompt,
            ),
            (),
        )
    more = ["--strict"] if draw(st.booleans()) else []
    return Case(("invert", "--config", small(folder), *more, "--", prompt), ())


def seeds(draw: Draw, folder: Path) -> Case:
    text = draw(
        st.one_of(
            texts(),
            st.from_regex(r"[0-9]{1,3}(-[0-9]{1,2})?(,[0-9]{1,2}){0,2}", fullmatch=True),
            st.integers().map(str),
        )
    )
    (text,) = words_of(text)
    option = draw(st.sampled_from(("--seed", "--seeds")))
    return Case(
        ("invert", PROMPT, "--config", small(folder), f"{option}={text}", "--set", "device=meta"),
        (option, "seed", "device"),
    )


def runs(draw: Draw, folder: Path) -> Case:
    """Runs of one or two steps on corners of sizes, schedules, optimisers, starts and candidates."""
    number = st.one_of(st.floats(0, 2), schedules(1), st.sampled_from((1e-30, 1e30, 1e-8)))
    fields: dict[str, st.SearchStrategy[Any]] = {
        "size": st.one_of(st.integers(1, 33), st.lists(st.integers(1, 40), min_size=2, max_size=2)),
        "steps": st.integers(1, 3),
        "noise": number,
        "optimizer.lr": number,
        "optimizer.warmup": st.integers(0, 4),
        "optimizer.name": st.sampled_from(("adam", "adamw", "sgd", "rmsprop")),
        "optimizer.clip": st.floats(1e-9, 10),
        "referees.0.weight": st.one_of(number, st.floats(-2, 2)),
        "referees.0.window": st.lists(st.integers(0, 3), min_size=2, max_size=2),
        "referees.0.wanted": st.booleans(),
        "referees.0.satisfied_at": st.floats(-5, 5),
        "referees.0.dtype": st.sampled_from(("float64", "bfloat16", "float16")),
        "referees.0.prompt": texts(),
        "referees.0.label": texts(),
        "ema": st.sampled_from(({"decay": 0.0}, {"decay": 1.0}, {"decay": 0.5, "start": 9})),
        "output": st.sampled_from(("ema", "best", "current")),
        "best.every": st.integers(1, 3),
        "early_stop": st.sampled_from(({"patience": 1}, {"patience": 1, "min_delta": 1e9})),
        "candidates": st.sampled_from(
            ({"count": 3}, {"count": 4, "keep": [[0, 2]]}, {"count": 2, "tries": 2, "until": -9.0})
        ),
        "views.main.count": st.integers(1, 3),
        "chunk": st.integers(1, 3),
        "canvas": st.sampled_from(({"name": "fourier"}, {"name": "multires"}, {"name": "pixel"})),
        "priors": st.sampled_from(([{"name": "tv"}], [{"name": "l2", "weight": 1e30}], [{"name": "gaussian"}])),
        "combine": st.sampled_from(
            ({"name": "norm_balance", "factor": 2.0}, {"name": "upgrad"}, {"name": "sum", "votes": "equal"})
        ),
        "autocast": st.sampled_from(("bfloat16", "float16")),
        "dtype": st.sampled_from(("float64", "bfloat16", "float16")),
        "seeds": st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=2, unique=True),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=4, unique=True))
    assigned = [words_of(f"{field}={yaml_of(draw(fields[field]))}")[0] for field in chosen]
    out = ("--out", "out") if draw(st.booleans()) else ()
    return Case(
        ("invert", PROMPT, "--config", small(folder), *out, *(w for one in assigned for w in ("--set", one))), ()
    )


def pictures(draw: Draw, folder: Path) -> Case:
    name = "image." + draw(st.sampled_from(ENDS))
    content = draw(files())
    (folder / name).write_bytes(content)
    path = str(folder / name)
    command = draw(st.integers(0, 3))
    if command == 0:
        return Case(("judge", path, PROMPT), (name,))
    if command == 1:
        return Case(("score", path, PROMPT, "--referee", "clip"), (name,))
    if command == 2:
        return Case(("config", "validate", "--set", f"init={path}", "--set", f"prompts=['{PROMPT}']"), ("init", name))
    return Case(("invert", PROMPT, "--config", small(folder), "--set", f"init={path}"), ("init", name))


LINKED = ("clip", "owlv2", "blip2", "diffusion")


def checkpoint_folders(draw: Draw, folder: Path) -> Case:
    kind = draw(st.sampled_from(LINKED))
    copy = folder / kind
    shutil.copytree(checkpoints.zoo() / kind, copy, copy_function=os.link if _same_device(folder) else shutil.copy)
    names = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        spoil(draw, copy / name)
    image(folder)
    if kind == "diffusion":
        assigned = f"priors=[{{name: sds, config: {{model: '{copy}'}}}}]"
        run = (
            "invert",
            PROMPT,
            "--config",
            small(folder),
            "--set",
            "canvas={name: latent, config: {model: 'playground:diffusion'}}",
            "--set",
            "size=null",
        )
        return Case((*run, "--set", assigned), ())
    if draw(st.integers(0, 5)) == 0:
        return Case(("doctor", "--set", f"referees.{kind}.config.model={copy}"), ())
    model = f"local-dir:{copy}" if kind == "clip" else str(copy)
    return Case(
        (
            "score",
            str(folder / "image.png"),
            PROMPT,
            "--referee",
            kind,
            "--set",
            f"referees.{kind}.config.model={model}",
        ),
        (),
    )


def _same_device(folder: Path) -> bool:
    return folder.stat().st_dev == checkpoints.zoo().stat().st_dev


def spoil(draw: Draw, path: Path) -> None:
    """Changes a file of a checkpoint, which may be a link to the real one."""
    content = path.read_bytes()
    path.unlink()
    change = draw(st.integers(0, 9))
    if change == 0:
        return
    if change == 1:
        path.mkdir()
        return
    if change == 2:
        os.mkfifo(path)
        return
    if path.suffix == ".json" and change < 8:
        structure, _ = draw(mutated(json.loads(content)))
        path.write_text(encodable(dumped(structure)))
    elif path.suffix == ".safetensors" and change < 8:
        path.write_bytes(draw(st.one_of(spoiled_safetensors(content), spoiled(content))))
    else:
        path.write_bytes(draw(spoiled(content)))


def dumped(structure: Any) -> str:
    """JSON text, also of what is nested too deeply for the library."""
    try:
        return json.dumps(structure, default=str)
    except RecursionError:
        return "[" * 3000 + "]" * 3000


@st.composite
def spoiled_safetensors(draw: Draw, content: bytes) -> bytes:
    """A safetensors file with another header: sizes, dtypes, shapes and offsets that lie."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    change = draw(st.integers(0, 3))
    if change == 0:
        claimed = draw(st.sampled_from((0, 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)))
        return claimed.to_bytes(8, "little") + content[8 : draw(st.sampled_from((8, 100, len(content))))]
    if change == 1:
        header, _ = draw(mutated(header, 1))
    else:
        name = draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
        entry = header[name]
        kinds = ("F16", "F64", "BF16", "I64", "BOOL", "F8_E4M3", "U8", "X")
        shapes = ([], [0], [2**40, 2**40], [-1], entry["shape"][::-1], [1, *entry["shape"]])
        if change == 2:
            entry["dtype"] = draw(st.sampled_from(kinds))
        else:
            entry["shape"] = draw(st.sampled_from(shapes))
    text = encodable(dumped(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def calibrations(draw: Draw, folder: Path) -> Case:
    curve = {
        "name": "clip",
        "config": {},
        "prompt": "{prompt}",
        "wanted": True,
        "images": 2,
        "losses": [0.1] * QUANTILES,
        "prompts": {PROMPT: [0.1] * QUANTILES},
    }
    real = (
        json.loads(Calibration.read("playground:calibration.json").to_json())
        if (checkpoints.zoo() / "calibration.json").exists()
        else None
    )
    structure = real or {"about": {"prompts": 1}, "latent": {"mean": [0.0] * 4, "std": [1.0] * 4}, "referees": [curve]}
    structure, _ = draw(mutated(structure))
    content = encodable(dumped(structure)).encode()
    file = folder / "calibration.json"
    if draw(st.integers(0, 30)) == 0:
        os.mkfifo(file)
    else:
        file.write_bytes(draw(st.one_of(st.just(content), spoiled(content), st.binary(max_size=40))))
    path = draw(st.sampled_from((str(file), str(file), str(file), str(folder), "/dev/zero", "playground:../x")))
    if draw(st.booleans()):
        assigned = f"referees.0.satisfied_at={{quantile: 0.5, calibration: '{path}', per: {draw(st.sampled_from(('all', 'prompt')))}}}"
        return Case(
            ("config", "validate", "--set", assigned, "--set", f"prompts=['{PROMPT}']"), ("satisfied_at", "calibration")
        )
    run = (
        "invert",
        PROMPT,
        "--config",
        small(folder),
        "--set",
        "canvas={name: latent, config: {model: 'playground:diffusion'}}",
        "--set",
        "size=null",
    )
    return Case(
        (*run, "--set", f"priors=[{{name: moments, config: {{calibration: '{path}'}}}}]"), ("calibration", "statistics")
    )


def stored_run(folder: Path, scores: dict[str, float]) -> None:
    """The folder of a finished run."""
    folder.mkdir()
    config = {**SMALL, "prompts": [PROMPT], "seeds": [0]}
    (folder / "config.yaml").write_text(dump_yaml(config))
    (folder / "history.jsonl").write_text('{"step": 0, "losses": {"clip": 1.0}}\n')
    image(folder, "image_0.png")
    sample = {"prompt": PROMPT, "seed": 0, "image": "image_0.png", "scores": scores, "witnesses": {}, "verdict": None}
    result = {
        "samples": [sample],
        "steps": 1,
        "finished": True,
        "stopped": None,
        "unwanted": [],
        "units": {"clip": "cosine"},
        "timings": {"load": 0.1, "start": 0.1, "steps": 1.0, "finish": 0.1},
        "checkpoints": {"playground:clip": "0" * 16},
        "versions": {"refcore": "0.2.0"},
    }
    (folder / "result.json").write_text(json.dumps(result))


def run_folders(draw: Draw, folder: Path) -> Case:
    stored_run(folder / "first", {"clip": 0.2})
    stored_run(folder / "second", {"clip": 0.3})
    place = folder / draw(st.sampled_from(("first", "second")))
    for name in draw(
        st.lists(
            st.sampled_from(("result.json", "result.json", "config.yaml", "history.jsonl")), min_size=1, max_size=2
        )
    ):
        path = place / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        change = draw(st.integers(0, 19))
        if change < 3:
            path.unlink()
            if change == 1:
                os.mkfifo(path)
            elif change == 2:
                path.symlink_to(draw(st.sampled_from(("/dev/zero", "/etc/passwd", "/nowhere", "."))))
        elif change < 14 and name != "history.jsonl":
            structure, _ = draw(mutated(yaml.safe_load(content)))
            text = dumped(structure) if name == "result.json" else yaml_of(structure)
            path.write_text(encodable(text))
        else:
            path.write_bytes(draw(spoiled(content)))
    more = draw(st.sampled_from(((), ("--json",), ("--markdown",))))
    return Case(("bench", "compare", str(folder / "first"), str(folder / "second"), *more), ("first", "second"))


def prompt_files(draw: Draw, folder: Path) -> Case:
    text = draw(
        st.lists(st.one_of(texts(60), st.sampled_from((PROMPT, "# a comment", "\\# a prompt"))), max_size=6).map(
            "\n".join
        )
    )
    encoding = draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-16-le")))
    content = text.encode(encoding, "replace")
    file = folder / "prompts.txt"
    file.write_bytes(draw(st.one_of(st.just(content), spoiled(content), st.binary(max_size=60))))
    words = ("invert", "--prompts-file", str(file), "--config", small(folder), "--set", "device=meta")
    return Case(words, ("prompts.txt", "prompts", "device"))


PLUGINS = (
    "import refcore\nclass Own(refcore.Referee):\n    def load(self, device, dtype): ...\n    def judge(self, *a): ...\n",
    "import refcore\n@refcore.referee\ndef bright(images):\n    return images.mean((1, 2, 3))\n",
    "from refcore.hooks import hookimpl\n@hookimpl\ndef register_referees(register):\n    register('own', 'nowhere:Own')\n",
    "from refcore.hooks import hookimpl\n@hookimpl\ndef register_presets(register):\n    register('own', '/nowhere.yaml')\n",
    "api_version = 1\nimport refcore\nclass Own(refcore.Prior): ...\n",
    "raise SystemExit(3)\n",
    "1 / 0\n",
    "import nowhere\n",
    "from . import other\n",
    "import refcore\nclass Own(refcore.Referee):\n    name = 'clip'\n",
    "def f(:\n",
    "x = 1\n",
    "class Evil(Exception):\n    def __str__(self): raise ValueError\nraise Evil\n",
    "raise RuntimeError('\\x1b[31m' + 'x' * 10**6)\n",
)


def plugin_folders(draw: Draw, folder: Path) -> Case:
    for number in range(draw(st.integers(0, 2))):
        source = draw(st.sampled_from(PLUGINS)).encode()
        content = draw(st.one_of(st.just(source), st.just(source), spoiled(source, (b"\n", b"(", b"    ", b"\0"))))
        name = draw(
            st.sampled_from(
                (f"own{number}.py", f"own{number}/__init__.py", "_hidden.py", "a b.py", "class.py", "é.py", "own.txt")
            )
        )
        path = folder / "plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    words = draw(
        st.sampled_from(
            (("plugins", "--check"), ("plugins",), ("config", "validate"), ("plugins", "show", "own"), ("presets",))
        )
    )
    return Case((*words, "--plugins-dir", str(folder / "plugins")), ())


WORDS = (
    *(
        "invert",
        "score",
        "judge",
        "doctor",
        "config",
        "show",
        "validate",
        "describe",
        "schema",
        "plugins",
        "presets",
        "new",
    ),
    *(
        "convert",
        "bench",
        "compare",
        "probe",
        "playground",
        "sample",
        "smoothness",
        "--json",
        "--set",
        "--config",
        "--preset",
    ),
    *(
        "--out",
        "--seed",
        "--seeds",
        "--strict",
        "--help",
        "--version",
        "--debug=1",
        "--plugins-dir",
        "--prompts-file",
        "--by",
    ),
    *(
        "--referee",
        "steps=1",
        "natural",
        "playground",
        "referee",
        "clip",
        "-1",
        "0",
        "a cat",
        "x.png",
        "--exit-code",
        "--check",
    ),
)


def command_lines(draw: Draw, folder: Path) -> Case:
    found = draw(st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), texts(12)), max_size=6))
    words = [word for one in found for word in words_of(one)]
    if "smoothness" in words or "invert" in words or "probe" in words or "bench" in words:
        words += ["--set", "device=meta"]  # no run of the default preset, which takes half a minute
    if "sample" in words or "new" in words or "--out" in words or "train" in words:
        return Case(("config", "describe", *words[:1]))
    return Case(tuple(words))


def descriptions(draw: Draw, folder: Path) -> Case:
    field = draw(st.one_of(st.sampled_from(dotted("playground")), texts()))
    command = draw(
        st.sampled_from(
            (
                ("config", "describe"),
                ("plugins", "show"),
                ("config", "validate", "--preset"),
                ("judge", str(folder / "x.png"), PROMPT, "--by"),
            )
        )
    )
    return Case((*command, *words_of(field)), ())


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


CONVERSIONS = (
    "clip-weights",
    "hf-clip-weights",
    "blip2-itg",
    "hpsv2-weights",
    "image-reward-checkpoint",
    "aesthetic-head",
)


def conversions(draw: Draw, folder: Path) -> Case:
    source = folder / "source.bin"
    marker = folder / "marker"
    tensors = {"a": torch.ones(2), "layers.0.weight": torch.zeros(1, 4), "state_dict": {"b": torch.ones(3)}}
    content: Any = draw(
        st.sampled_from(
            (tensors, {}, [], 3, {"evil": Payload(marker)}, Payload(marker), {1: torch.ones(1)}, {"a": np.ones(2)})
        )
    )
    change = draw(st.integers(0, 4))
    if change == 0:
        source.write_bytes(pickle.dumps(content))
    elif change == 1:
        save_file({"a": torch.ones(2)}, source)
    elif change == 2:
        with source.open("wb") as file:
            np.save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=draw(st.booleans()))
    if draw(st.booleans()):
        source.write_bytes(
            draw(spoiled(source.read_bytes(), (b"cos\nsystem\n(S'id'\ntR.", b"\x80\x04", b"PK\3\4", b".")))
        )
    out = draw(st.sampled_from(("out/model.safetensors", "out", str(source), "/proc/x.safetensors", "out/x.bin")))
    return Case(("convert", draw(st.sampled_from(CONVERSIONS)), str(source), out), ())


@functools.cache
def onnx_file() -> bytes:
    """A network that averages colours, as ONNX."""
    from onnx import TensorProto, helper

    shape = [1, 3, 16, 16]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["y"], "flat"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])]
    graph = helper.make_graph(nodes, "means", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()  # type: ignore


def onnx_files(draw: Draw, folder: Path) -> Case:
    words = (b"node0", b"'); import os; os.system('id') #", b"external", b"../../etc/passwd", b"Loop", b"If")
    file = folder / "it.onnx"
    file.write_bytes(draw(st.one_of(st.just(onnx_file()), spoiled(onnx_file(), words), spoiled(onnx_file(), words))))
    labels = draw(
        st.sampled_from(
            ("labels: [a, b, c]", "labels: coco", f"labels_file: '{folder / 'labels.txt'}'", "labels_file: /dev/zero")
        )
    )
    (folder / "labels.txt").write_bytes(draw(st.one_of(st.just(b"a\nb\nc\n"), st.binary(max_size=20))))
    image(folder)
    assigned = f"referees=[{{name: onnx, config: {{file: '{file}', size: 16, {labels}}}}}]"
    return Case(("score", str(folder / "image.png"), "a", "--config", small(folder), "--set", assigned), ())


def witness_files(draw: Draw, folder: Path) -> Case:
    listed = [
        {"name": "clip", "label": "w", "config": {"model": "playground:clip"}},
        {"name": "tv", "label": "x", "kin": "c"},
    ]
    structure, _ = draw(mutated(listed))
    content = yaml_of(structure).encode()
    bomb = b"- &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"- &%c [%s]\n" % (c + 1, b",".join([b"*%c" % c] * 9)) for c in b"abcdefgh"
    )
    file = folder / "witnesses.yaml"
    file.write_bytes(draw(st.one_of(st.just(content), spoiled(content), st.just(bomb))))
    if draw(st.booleans()):
        return Case(("bench", "natural", "--out", "out", "--witnesses", str(file), "--variant", "x=nothing"), ())
    (folder / "prompts.txt").write_text(PROMPT)
    panel = draw(
        st.one_of(
            st.just(str(file)), texts(), st.sampled_from(("clip", "playground:clip", "{name: clip}", "clip,blip2"))
        )
    )
    return Case(
        (
            "bench",
            "prompts",
            "--out",
            "out",
            "--prompts-file",
            str(folder / "prompts.txt"),
            "--variant",
            "x=nothing",
            "--panel",
            *words_of(panel),
        ),
        (),
    )


def bench_folders(draw: Draw, folder: Path) -> Case:
    place = folder / "results"
    (place / "parts" / "x").mkdir(parents=True)
    content = {
        "task": "playground",
        "source": 1,
        "prompts": [{"prompt": PROMPT, "category": "relation", "split": "seen"}],
    }
    structure, _ = draw(mutated(content))
    (place / "prompts.json").write_text(encodable(dumped(structure)))
    (place / "variants.json").write_bytes(draw(st.one_of(st.just(b"{}"), st.just(b"[]"), st.binary(max_size=30))))
    (place / "results.parquet").write_bytes(draw(st.one_of(st.just(b"PAR1"), st.binary(max_size=60))))
    more = draw(st.sampled_from(((), ("--json",), ("--markdown",), ("--against", "x"))))
    return Case(("bench", "show", str(place), *more), ())


def image(folder: Path, name: str = "image.png") -> None:
    """A small good picture."""
    Image.new("RGB", (16, 16), "red").save(folder / name)


def small(folder: Path) -> str:
    """The path of the small run's config."""
    (folder / "small.yaml").write_text(dump_yaml(SMALL))
    return str(folder / "small.yaml")


SURFACES = {
    "overrides": Surface(overrides, 22),
    "config texts": Surface(config_texts, 12),
    "config structures": Surface(config_structures, 16),
    "prompts": Surface(prompts, 8),
    "seeds": Surface(seeds, 4),
    "runs": Surface(runs, 8),
    "pictures": Surface(pictures, 16),
    "checkpoint folders": Surface(checkpoint_folders, 12),
    "calibrations": Surface(calibrations, 5),
    "run folders": Surface(run_folders, 14),
    "prompt files": Surface(prompt_files, 5),
    "plugin folders": Surface(plugin_folders, 4),
    "command lines": Surface(command_lines, 8),
    "descriptions": Surface(descriptions, 3),
    "conversions": Surface(conversions, 6),
    "onnx files": Surface(onnx_files, 4),
    "witness files": Surface(witness_files, 3),
    "benchmark folders": Surface(bench_folders, 3),
}
"""By name."""
