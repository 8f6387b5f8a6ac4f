"""Calibrations, and folders of runs, results and plugins that other people have made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import yaml
from fuzz.cases import PROMPT, SMALL, Case, Draw, dumped, image, small, words_of, yaml_of
from fuzz.values import encodable, mutated, spoiled, texts
from hypothesis import strategies as st

from refcore import checkpoints
from refcore.calibration import QUANTILES, Calibration
from refcore.config.settings import dump_yaml


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
        per = draw(st.sampled_from(("all", "prompt")))
        assigned = f"referees.0.satisfied_at={{quantile: 0.5, calibration: '{path}', per: {per}}}"
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
            st.sampled_from(("result.json", "result.json", "config.yaml", "history.jsonl")),
            min_size=1,
            max_size=2,
            unique=True,
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


HOOK = "from refcore.hooks import hookimpl\n@hookimpl\n"
PLUGINS = (
    "import refcore\nclass Own(refcore.Referee):\n    def load(self, *a): ...\n    def judge(self, *a): ...\n",
    "import refcore\n@refcore.referee\ndef bright(images):\n    return images.mean((1, 2, 3))\n",
    f"{HOOK}def register_referees(register):\n    register('own', 'nowhere:Own')\n",
    f"{HOOK}def register_presets(register):\n    register('own', '/nowhere.yaml')\n",
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
