"""`refcore show`, `compare` and `report`: what they print, where they write, and how little they need for it."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from refcore import images
from refcore.cli import show
from refcore.cli.show import HalfBlocks, picture_of, sparkline
from refcore.runs.stored import look_at

ESCAPE = "\x1b"


@pytest.fixture
def run(refcore, config_file, tmp_path):
    refcore("invert", "--config", config_file, "red", "blue", "--seed", "3", "--out", tmp_path / "run")
    return tmp_path / "run"


def test_invert_ends_with_the_path_of_its_report(refcore, config_file, tmp_path):
    told = refcore("invert", "--config", config_file, "red", "--out", tmp_path / "run")
    assert told.out.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    assert (tmp_path / "run" / "report.html").is_file()
    told = refcore("invert", "--config", config_file, "red", "--out", tmp_path / "bare", "--no-report")
    assert "report" not in told.out
    assert not (tmp_path / "bare" / "report.html").exists()
    assert not (tmp_path / "bare" / "recording").exists()


def test_off_a_terminal_plain_text_is_printed(refcore, run):
    told = refcore("show", run)
    assert (told.status, told.err) == (0, "")
    assert ESCAPE not in told.out
    assert "▀" not in told.out
    lines = told.out.splitlines()
    assert lines[0] == "finished after 6 steps"
    assert lines[-1] == f"report: {run / 'report.html'}"
    words = " ".join(told.out.split())
    assert "1 red 3" in words
    assert "loss tint" in words


def test_an_unfinished_run_is_shown_as_far_as_it_came(refcore, run):
    (run / "result.json").unlink()
    (run / "report.html").unlink()
    told = refcore("show", run)
    assert told.out.startswith("unfinished: 6 steps are in the history\n")
    assert told.out.splitlines()[-1] == f"no report yet: refcore report {run}"
    (run / "image_0.png").unlink()
    assert picture_of(look_at(run), 0) is not None, "the last one that was recorded"
    (run / "history.jsonl").unlink()
    assert refcore("show", run).status == 0


def test_a_terminal_is_shown_pictures(refcore, run, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(show, "_print_pictures", shown.append)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show.run(run, False)
    assert len(shown) == 1


@pytest.mark.parametrize(("system", "codes"), [("truecolor", "38;2;255;0;0;48;2;0;0;255"), ("256", "38;5;196;48;5;21")])
def test_half_blocks_are_two_pixels_a_character(system, codes):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :, 0], picture[2:, :, 2] = 255, 255
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=system, width=40)
    console.print(HalfBlocks(Image.fromarray(picture[1:3]), cells=4))
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    assert codes in lines[0]
    assert lines[0].count("▀") == 4


def test_a_picture_keeps_its_shape_and_never_exceeds_the_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=20)
    tall = HalfBlocks(Image.new("RGB", (30, 60), "red"))
    lines = console.render_lines(tall)
    assert len(lines) == 20
    assert sum(segment.cell_length for segment in lines[0]) == 20


def test_without_the_library_for_graphics_there_are_half_blocks(monkeypatch):
    monkeypatch.setitem(sys.modules, "textual_image", None)
    assert isinstance(show.terminal_picture(np.zeros((4, 4, 3), np.uint8)), HalfBlocks)


def test_the_terminals_own_graphics_are_used_where_it_has_them(monkeypatch):
    renderable = pytest.importorskip("textual_image.renderable")
    picture = np.zeros((4, 4, 3), np.uint8)
    for own in (renderable.SixelImage, renderable.TGPImage):
        monkeypatch.setattr(renderable, "Image", own)
        assert isinstance(show.terminal_picture(picture), own)
    monkeypatch.setattr(renderable, "Image", renderable.HalfcellImage)
    assert isinstance(show.terminal_picture(picture), HalfBlocks)


def test_a_curve_is_bars_from_low_to_high(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert sparkline([0.0, 1.0, 3.0, 7.0]) == "▁▂▄█"
    assert sparkline([2.0]) == "▁"
    assert len(sparkline(list(range(1000)))) == show.SPARK
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert sparkline([0.0, 1.0]) == ""


def test_the_browser_is_opened_with_the_report_made_if_need_be(refcore, run, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (run / "report.html").unlink()
    assert refcore("show", run, "--open").status == 0
    assert opened == [(run / "report.html").as_uri()]
    assert (run / "report.html").is_file()
    assert refcore("report", run, "--open").out == f"{run / 'report.html'}\n"
    assert len(opened) == 2


def test_a_report_is_made_again_from_the_folder_alone(refcore, run):
    before = (run / "report.html").read_text("utf-8")
    (run / "report.html").unlink()
    assert refcore("report", run).status == 0
    assert (run / "report.html").read_text("utf-8") == before


def test_runs_are_compared_on_a_page_that_is_never_written_over(refcore, config_file, run, tmp_path):
    refcore("invert", "--config", config_file, "red", "--seed", "3", "--set", "steps=2", "--out", tmp_path / "short")
    told = refcore("compare", run, tmp_path / "short")
    assert told.out.splitlines()[-1] == "comparison: compare.html"
    assert "steps 6 2" in " ".join(told.out.split())
    assert refcore("compare", run, tmp_path / "short").out.splitlines()[-1] == "comparison: compare-1.html"
    assert sorted(path.name for path in (tmp_path / "working").glob("*.html")) == ["compare-1.html", "compare.html"]
    told = refcore("compare", run, tmp_path / "short", "--out", "compare.html")
    assert told.error == '"compare.html" exists, and is never overwritten; remove it, or name another with --out'
    assert "expected 2 to 8 runs" in refcore("compare", run).error


def test_what_is_no_run_is_refused_in_a_line(refcore, tmp_path):
    for command in (["show"], ["report"], ["compare", tmp_path]):
        assert "does not exist; expected the folder of a run" in refcore(*command, tmp_path / "none").error or (
            "holds no run" in refcore(*command, tmp_path / "none").error
        )


def test_show_needs_no_torch(run):
    code = f"""
import sys
from refcore.cli import main
try:
    main(["show", {str(run)!r}])
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_comparison_and_its_statistics_mention_each_other(refcore):
    assert "refcore bench compare" in " ".join(refcore("compare", "--help").out.split())
    assert "refcore compare" in " ".join(refcore("bench", "compare", "--help").out.split())


def test_pictures_of_the_folder_are_shown_as_they_are(run):
    found = picture_of(look_at(run), 1)
    assert found is not None
    assert (found == images.read_levels(run / "image_1.png")).all()
