"""Runs: prompts, seeds, files of prompts, and corners of sizes, schedules, optimisers, starts and candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuzz.cases import PROMPT, Case, Draw, image, small, words_of, yaml_of
from fuzz.values import schedules, spoiled, texts
from hypothesis import strategies as st


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
        "optimizer.name": st.sampled_from(("adam", "adamw", "sgd", "lbfgs", "rmsprop")),
        "transforms": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(
                        ("clip", "normalize", "clamp", "sign", "white_noise", "spectral", "renormalize")
                    )
                },
                optional={"at": st.sampled_from(("terms", "gradient", "parameters")), "config": st.just({"block": 4})},
            ),
            max_size=3,
        ),
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
