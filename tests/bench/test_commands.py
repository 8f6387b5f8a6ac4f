"""`refcore bench` from end to end on the embedded checkpoints, with two prompts and two steps."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import polars
import pytest
from PIL import Image

from refcore.cli import main

pytestmark = pytest.mark.slow
TINY = ",steps=2,init=null,candidates={count: 1}"


def refcore(capsys, *argv):
    """(exit status, stdout, stderr) of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in argv])
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err


class Page(HTMLParser):
    """Images and their captions."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.figures, self.opened = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
        if tag == "figure":
            self.figures.append(dict(attrs))
        if tag not in ("meta", "img", "input"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three variants on two prompts, by two processes."""
    out = tmp_path_factory.mktemp("bench") / "results"
    variants = [f"tiny=playground{TINY}", f"clip=clip-alone{TINY}", "drawn=sampling-7.5,steps=2"]
    command = [sys.executable, "-c", "from refcore.cli import main; main()", "bench", "playground", "--out", out]
    command += [word for variant in variants for word in ("--variant", variant)]
    command += ["--count", "2", "--batch", "1", "--workers", "2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tiny: 2 of 2 images" in done.stderr
    assert "drawn" in done.stdout
    return out


def test_every_image_is_made_scored_and_counted(folder):
    rows = polars.read_parquet(folder / "results.parquet")
    assert rows.group_by("variant").len().sort("variant").rows() == [("clip", 2), ("drawn", 2), ("tiny", 2)]
    assert rows["threads"].to_list() == [1] * 6
    panel = [{s["identity"] for s in scores if s["panel"]} for scores in rows["scores"].to_list()]
    assert all(identities == panel[0] for identities in panel)
    assert (rows["model_evaluations"] > 0).all()
    assert json.loads((folder / "thresholds.json").read_text()).keys() == panel[0]


def test_images_of_workers_are_those_of_this_process(folder, tmp_path, capsys):
    again = tmp_path / "again"
    status, _, _ = refcore(
        capsys, "bench", "playground", "--out", again, "--variant", "drawn=sampling-7.5,steps=2", "--count", 2
    )
    assert status == 0
    images = [
        polars.concat(polars.read_parquet(part) for part in sorted((path / "parts/drawn").glob("*")))
        .sort("prompt")
        .get_column("image")
        .to_list()
        for path in (folder, again)
    ]
    for ours, theirs in zip(*images, strict=True):
        assert _distance(ours, theirs) <= 1  # threads add up in another order; a level may round the other way


def test_the_same_command_has_nothing_left_to_do(folder, capsys):
    status, out, err = refcore(
        capsys, "bench", "playground", "--out", folder, "--variant", "drawn=sampling-7.5,steps=2", "--count", 2
    )
    assert (status, err) == (0, "")
    assert "drawn" in out


def test_a_changed_variant_is_refused_in_one_line(folder, capsys):
    status, _, err = refcore(
        capsys, "bench", "playground", "--out", folder, "--variant", "drawn=sampling-7.5,steps=3", "--count", 2
    )
    assert status == 1
    assert re.match(r'error: ".*" holds results of another variant "drawn": settings.steps is 3, was 2', err)


def test_the_table_has_every_variant_and_an_interval(folder, capsys):
    status, out, _ = refcore(capsys, "bench", "show", folder)
    assert status == 0
    for word in ("tiny", "clip", "drawn", "hack rate", "joint domination", " to "):
        assert word in out


def test_markdown_is_tables(folder, capsys):
    _, out, _ = refcore(capsys, "bench", "show", folder, "--markdown", "--against", "drawn")
    assert "**Each variant minus drawn**" in out
    blocks = re.findall(r"(?:^\|.*\n)+", out, re.M)
    assert len(blocks) == out.count("**") / 2 == 7
    for block in blocks:
        head, rule, *rows = block.splitlines()
        assert rule.count("---") == head.count(" | ") + 1
        assert all(row.count(" | ") == head.count(" | ") for row in rows)
        assert rows


def test_json_has_the_numbers(folder, capsys):
    _, out, _ = refcore(capsys, "bench", "show", folder, "--json")
    summary = json.loads(out)
    assert (summary["prompts"], summary["source"]) == ("tuning", 1)
    assert {variant["variant"] for variant in summary["variants"]} == {"tiny", "clip", "drawn"}
    for variant in summary["variants"]:
        assert variant["checkpoints"].keys() >= {"playground:clip", "playground:diffusion"}
        assert {row["split"] for row in variant["accuracy"]} == {"all", "seen", "unseen"}
        assert 0 <= variant["hack_rate"]["low"] <= variant["hack_rate"]["high"] <= 1


def test_the_gallery_holds_every_image_in_one_file(folder, capsys, tmp_path):
    status, out, _ = refcore(capsys, "bench", "show", folder, "--html", tmp_path / "gallery.html")
    assert (status, out) == (0, "")
    text = (tmp_path / "gallery.html").read_text()
    page = Page(text)
    assert not page.opened[1:]
    parts = polars.concat(polars.read_parquet(part) for part in (folder / "parts").glob("*/*.parquet"))
    embedded = sorted(base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in page.sources)
    assert embedded == sorted(parts["image"])
    assert {figure["data-variant"] for figure in page.figures} == {"tiny", "clip", "drawn"}
    for prompt in parts["prompt"].unique():
        assert prompt in text
    assert "http" not in re.sub(r'src="[^"]*"', "", text)


def test_the_plot_and_the_sheets_are_images(folder, capsys, tmp_path):
    status, _, _ = refcore(capsys, "bench", "show", folder, "--plot", tmp_path / "plot.png")
    assert status == 0
    for file in (tmp_path / "plot.png", *(folder / "sheets" / f"{name}.png" for name in ("tiny", "clip", "drawn"))):
        with Image.open(file) as image:
            assert min(image.size) > 64


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["show", "{missing}"], "holds no results; make some with `refcore bench playground --out"),
        (["show", "{folder}", "--against", "tinny"], 'unknown variant "tinny" in --against; known: clip, drawn, tiny'),
        (["show", "{folder}", "--plot", "a.bmp"], '".bmp" is not a known format'),
        (["show", "{folder}", "--json", "--markdown"], "expected one of them"),
        (["playground", "--out", "{missing}", "--split", "sen"], 'did you mean "seen"'),
    ],
)
def test_what_is_wrong_is_told(folder, capsys, tmp_path, argv, told):
    named = [word.format(missing=tmp_path / "missing", folder=folder) for word in argv]
    status, _, err = refcore(capsys, "bench", *named)
    assert status == 1
    assert told in err


def test_a_missing_library_names_the_extra(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    status, _, err = refcore(capsys, "bench", "show", folder)
    assert status == 1
    assert 'the benchmark needs polars, which is not installed: pip install "refcore[bench]"' in err


def _distance(ours, theirs):
    import io

    import numpy as np

    first, second = (np.asarray(Image.open(io.BytesIO(png))).astype(int) for png in (ours, theirs))
    return abs(first - second).max()
