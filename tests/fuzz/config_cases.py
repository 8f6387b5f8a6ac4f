"""Configs: overrides, texts and structures of YAML, and command lines as such."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from fuzz.cases import PRESETS, PROMPT, Case, Draw, words_of, yaml_of
from fuzz.values import encodable, mutated, near, places, spoiled, texts, values
from hypothesis import strategies as st

from refcore.config import presets


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
