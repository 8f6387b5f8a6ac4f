"""Prompts and seeds as people give them: encodings, comments, what no model can read, and bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refcore import prompts
from refcore.errors import ConfigError, RefcoreError
from refcore.prompts import parse_seeds, problem_of, read_prompts

TWO = ["a café", "two dogs"]


def written(folder: Path, data: bytes | str) -> Path:
    path = folder / "prompts.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.fault("3.3")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_file_of_any_unicode_encoding_and_line_end_is_read(tmp_path: Path, encoding: str, newline: str) -> None:
    text = newline.join(["a café", "", "   ", "  two dogs\t", ""])
    assert read_prompts(written(tmp_path, text.encode(encoding))) == TWO
    big = "\ufeff" + text
    assert read_prompts(written(tmp_path, big.encode("utf-16-be"))) == TWO


@pytest.mark.fault("3.3")
def test_comments_are_skipped_and_a_backslash_keeps_the_sign(tmp_path: Path) -> None:
    text = "# the first ones\na café\n   # indented\n\\#1 in a race\ntwo dogs # not a comment\n"
    assert read_prompts(written(tmp_path, text)) == ["a café", "#1 in a race", "two dogs # not a comment"]


@pytest.mark.fault("3.3")
def test_files_with_marks_one_after_the_other_are_read(tmp_path: Path) -> None:
    assert read_prompts(written(tmp_path, "\ufeffa café\n\ufefftwo dogs\n")) == TWO
    assert read_prompts(written(tmp_path, "\ufeff# a comment\na café\ntwo dogs")) == TWO


@pytest.mark.fault("3.3")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("ok\na café".encode("latin-1"), r"line 2 is not UTF-8 text \(byte 0xe9\); .*iconv -f LATIN1 -t UTF-8"),
        ("a café".encode("utf-16-le"), "line 1 holds a NUL character; .*iconv -f UTF-16LE"),
        (b"\xff\xfea", "line 1 is not UTF-16-LE text .* save it as UTF-8"),
        ("ok\n\na\x1b[31mred", r'line 3: the prompt "a\\x1b\[31mred" holds the control character U\+001B; remove it'),
        ("a\x85b", r"control character U\+0085"),
        ("x" * 10_001, "line 1: the prompt has 10,001 characters; expected at most 10,000"),
        ("", "holds no prompt; expected one a line"),
        ("# all\n# comments\n", "holds no prompt"),
    ],
)
def test_a_file_that_cannot_be_read_rightly_is_refused_with_the_line_and_the_remedy(
    tmp_path: Path, data: bytes | str, said: str
) -> None:
    with pytest.raises(RefcoreError, match=said) as told:
        read_prompts(written(tmp_path, data))
    assert "\n" not in str(told.value)


def test_what_has_no_end_or_is_no_file_is_refused_and_a_pipe_is_read(tmp_path: Path, monkeypatch) -> None:
    for path, said in (
        (Path("/dev/zero"), "more than 16,777,216 bytes"),
        (tmp_path, "Is a directory"),
        ("a\0b", "null"),
    ):
        with pytest.raises(RefcoreError, match=said):
            read_prompts(path)
    source, sink = os.pipe()
    os.write(sink, b"a cat\n")
    os.close(sink)
    assert read_prompts(Path(f"/dev/fd/{source}")) == ["a cat"]
    os.close(source)


@pytest.mark.fault("3.4")
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a caf\udce9", r'"a caf\udce9" holds bytes that are not UTF-8 text; give it in UTF-8'),
        ("a\0b", r'"a\x00b" holds the control character U+0000; remove it'),
        ("a\x7fb", "holds the control character U+007F"),
        ("cat " * 5000, "has 20,000 characters"),
        ("\u3000\n", "is empty; expected some words"),
    ],
)
def test_prompts_that_no_model_can_read_are_named(prompt: str, said: str) -> None:
    from refcore.config.run import RunConfig

    assert said in (problem_of(prompt) or "")
    with pytest.raises(ConfigError) as told:
        RunConfig.from_settings({"canvas": {"name": "pixel"}, "priors": [{"name": "tv"}], "prompts": [prompt]})
    assert str(told.value) == f"prompts.0 {problem_of(prompt)}"
    assert str(told.value).isprintable()


@pytest.mark.parametrize("prompt", ["a 👩‍🚀 on the moon", "שלום", "two\nlines\tof it", "a «café», naïve", "x" * 10_000])
def test_prompts_of_all_scripts_and_layouts_are_good(prompt: str) -> None:
    assert problem_of(prompt) is None


@pytest.mark.fault("5.6")
def test_seeds_are_bounded_before_they_are_listed() -> None:
    assert parse_seeds(" 0 - 2, 7") == [0, 1, 2, 7]
    assert len(parse_seeds("0-9999")) == prompts.MOST_SEEDS
    for text in ("0-3000000", "0-10000", "0-6000,6001-12000", "0-9999999999999999999"):
        with pytest.raises(RefcoreError, match="names more than 10,000 seeds"):
            parse_seeds(text)
    for text in ("9" * 5000, "1,x", "-1", "3-1", "", "1,,2", "٣"):
        with pytest.raises(RefcoreError, match="is not a list of seeds; expected 0,1,2 or 0-9") as told:
            parse_seeds(text)
        assert len(str(told.value)) < 150
    with pytest.raises(RefcoreError, match="names a seed twice"):
        parse_seeds("0-3,2")
