"""Strategies for what people and attackers write into text: values, fields, structures and broken files."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

NASTY = (
    *("", " ", "\t", "\n", "\r\n", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x7f", "\u009b31m"),
    *(
        "\u202eabc\u202c",
        "\u2066x\u2069",
        "\u200d",
        "\ufeff",
        "\u2028",
        "\x85",
        "e\u0301" * 40,
        "\U0001f600" * 30,
        "\U000e0001",
    ),
    *("a" * 300, "a" * 5000, "word " * 3000, "\ufdfa", "ß", "İ", "ǆ", "\uffff", "\ud800"),
    *(
        "..",
        "../..",
        "../../../etc/passwd",
        "/etc/passwd",
        "/etc/shadow",
        "/",
        "~",
        "~root",
        "~nobody_such/x",
        "./",
        "a/../b",
    ),
    *("/dev/zero", "/dev/null", "/dev/full", "/dev/random", "/proc/self/environ", "/proc/self/mem", "/proc/self/fd"),
    *(
        "$HOME",
        "${HOME}",
        "$(id)",
        "`id`",
        "%s%n%x",
        "{prompt}",
        "{seed}",
        "{0.__class__}",
        "{seed!r}",
        "{}",
        "{",
        "%(a)s",
    ),
    *(
        "!!python/object/apply:os.system [id]",
        "!include /etc/passwd",
        "*a",
        "&a",
        "<<",
        "? ",
        "---",
        "...",
        "#",
        "@",
        "`",
    ),
    *(
        "nan",
        ".nan",
        ".inf",
        "-.inf",
        "1e400",
        "1e-400",
        "-0",
        "-0.0",
        "0x10",
        "0b2",
        "0o9",
        "1_000",
        "1:30",
        "９",
        "½",
        "1" * 99,
    ),
    *("null", "true", "yes", "on", "~", "None", "[]", "{}", "[", "]", "{a", "a: b: c", "'", '"', "\\", "|", ">", "%"),
    *(
        "file:///etc/passwd",
        "http://127.0.0.1:9/x",
        "https://example.invalid/x",
        "hf-hub:a/b",
        "hf-hub:",
        "a/b",
        "a/b@c",
    ),
    *(
        "local-dir:",
        "local-dir:/",
        "local-dir:/dev",
        "playground:",
        "playground:..",
        "playground:../..",
        "playground:clip/..",
    ),
    *(
        "playground:hashes.json",
        "playground:clip",
        "playground:calibration",
        "-",
        "--",
        "--help",
        "-h",
        "con",
        "nul",
        "*.png",
    ),
    *(
        "os:system",
        "builtins:exec",
        "os.system",
        "__import__('os')",
        "__class__",
        "__init__",
        "model_config",
        "model_fields",
    ),
)
"""Texts that have meant something to some reader, once."""
NUMBERS = (
    *(
        0,
        1,
        -1,
        2,
        3,
        7,
        10,
        64,
        255,
        256,
        999,
        1000,
        1001,
        10**4,
        10**5,
        10**6,
        10**9,
        2**31,
        2**32,
        2**53,
        2**63,
        2**64,
    ),
    *(-(2**63), 10**30, 10**99, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-320, 1e-45, 1e-8, 1e16, 1e30, 1e38, 3.5e38, 1e308),
    *(float("inf"), float("-inf"), float("nan"), True, False),
)
KINDS = ("linear", "cosine", "warmup_cosine", "gaussian", "piecewise", "hypot", "product", "constant", "")


@functools.cache  # making a strategy takes longer than drawing from it
def texts(longest: int = 40) -> st.SearchStrategy[str]:
    """Any text, surrogates included, and the nasty ones."""
    return st.one_of(st.sampled_from(NASTY), st.text(max_size=longest), st.text("abc/.{}:_ -0", max_size=12))


def encodable(text: str) -> str:
    """The text without what no file in UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


SCALARS = st.one_of(st.sampled_from(NUMBERS), st.none(), texts(), st.integers(), st.floats(), st.integers(0, 20))
SCHEDULE_FIELDS = (
    "start",
    "end",
    "first",
    "last",
    "peak",
    "warmup",
    "centre",
    "width",
    "pieces",
    "of",
    "until",
    "value",
    "low",
    "high",
)


@functools.cache
def schedules(depth: int = 2) -> st.SearchStrategy[Any]:
    """Schedules, right and wrong ones."""
    inner: st.SearchStrategy[Any] = SCALARS if depth == 0 else st.one_of(SCALARS, schedules(depth - 1))
    pieces = st.lists(st.fixed_dictionaries({"until": SCALARS, "value": inner}), max_size=3)
    fields: dict[str, Any] = {name: st.one_of(SCALARS, st.integers(0, 9)) for name in SCHEDULE_FIELDS}
    fields |= {"pieces": pieces, "of": st.lists(inner, max_size=3)}
    return st.fixed_dictionaries({"kind": st.sampled_from(KINDS)}, optional=fields)


FIELDS = (
    *(
        "name",
        "config",
        "label",
        "prompt",
        "weight",
        "window",
        "views",
        "count",
        "size",
        "model",
        "steps",
        "kind",
        "init",
    ),
    *(
        "image",
        "strength",
        "calibration",
        "satisfied_at",
        "quantile",
        "phrases",
        "parser",
        "extends",
        "preset",
        "augment",
    ),
    *(
        "file",
        "labels_file",
        "head",
        "itg_head",
        "reference",
        "weights",
        "pretrained",
        "dtype",
        "device",
        "autocast",
        "init",
    ),
)


@functools.cache
def values() -> st.SearchStrategy[Any]:
    """Any value that YAML has, mostly small."""
    return st.recursive(
        st.one_of(SCALARS, schedules()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.one_of(st.sampled_from(FIELDS), texts(8)), inner, max_size=4),
        ),
        max_leaves=6,
    )


PLAUSIBLE = st.one_of(
    st.sampled_from(
        (0, 1, 2, 3, 8, 0.0, 0.1, 0.5, 1.0, 2.0, -1, -0.5, True, False, None, "clip", "tv", "pixel", "main", "clean")
    ),
    st.integers(0, 100),
    st.floats(0, 1),
    st.fixed_dictionaries({"kind": st.just("linear"), "start": st.floats(0, 2), "end": st.floats(-1, 2)}),
)
"""What a field may well hold."""


def near(value: Any) -> st.SearchStrategy[Any]:
    """Values that may stand in place of a good one."""
    if isinstance(value, bool):
        return st.sampled_from((not value, value, 0, 1, None, "yes"))
    if isinstance(value, int):
        return st.one_of(
            st.sampled_from((value, value + 1, value - 1, -value, 10 * value, 10**6, 2**31, 0, 1, None)), PLAUSIBLE
        )
    if isinstance(value, float):
        return st.one_of(
            st.sampled_from((value, value / 2, 2 * value, -value, 1e-30, 1e30, 1e38, 0.0, 1.0)), PLAUSIBLE, schedules()
        )
    if isinstance(value, list):
        return st.one_of(
            st.just(value[:-1]),
            st.just(value * 2),
            st.just(value[::-1]),
            st.just(value),
            st.lists(PLAUSIBLE, max_size=3),
        )
    if isinstance(value, dict):
        return st.one_of(st.just(value), mutated(value, 1).map(lambda found: found[0]), PLAUSIBLE)
    names = (
        "clip",
        "blip2",
        "owlv2",
        "sds",
        "tv",
        "pixel",
        "latent",
        "fourier",
        "multires",
        "adam",
        "sgd",
        "main",
        "clean",
        "ema",
    )
    return st.one_of(st.just(value), st.sampled_from(names), texts(), st.just(f"{value}x"), PLAUSIBLE)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a structure."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in inner:
        found += places(own, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, structure: Any, most: int = 3) -> tuple[Any, list[str]]:
    """(the structure with up to `most` changes, the names along their paths)."""
    changed = copy.deepcopy(structure)
    named: list[str] = []
    for _ in range(draw(st.integers(1, most))):
        where = places(changed)
        if not where:
            break
        path = draw(st.sampled_from(where))
        parent = changed
        for part in path[:-1]:
            parent = parent[part]
        key = path[-1]
        named += [str(part) for part in path]
        change = draw(st.sampled_from(("set", "set", "set", "set", "remove", "repeat", "rename", "add", "deepen")))
        if change == "remove":
            del parent[key]
        elif change == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif change == "rename" and isinstance(parent, dict):
            parent[draw(texts(8))] = parent.pop(key)
        elif change == "add" and isinstance(parent, dict):
            parent[draw(st.one_of(st.sampled_from(FIELDS), texts(8)))] = draw(values())
        elif change == "deepen":
            for _ in range(draw(st.sampled_from((1, 3, 60)))):
                parent[key] = [parent[key]]
        else:
            parent[key] = draw(st.one_of(PLAUSIBLE, values()))
    return changed, named


@st.composite
def spoiled(
    draw: st.DrawFn, content: bytes, words: Sequence[bytes] = (b"\0", b"\xff", b"{", b"[", b"\n", b'"')
) -> bytes:
    """The content with up to three bytes, words or stretches changed, cut or repeated."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.one_of(st.integers(0, max(0, min(len(changed), 400))), st.integers(0, len(changed))))
        length = draw(st.sampled_from((0, 1, 2, 8, 100, 10_000)))
        change = draw(st.sampled_from(("cut", "end", "insert", "repeat", "flip", "bytes")))
        if change == "cut":
            del changed[at : at + length]
        elif change == "end":
            del changed[at:]
        elif change == "insert":
            changed[at:at] = draw(st.sampled_from(words))
        elif change == "repeat":
            changed[at:at] = changed[at : at + length] * draw(st.sampled_from((1, 3)))
        elif change == "flip" and at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        else:
            new = draw(st.binary(max_size=8))
            changed[at : at + len(new)] = new
    return bytes(changed)
