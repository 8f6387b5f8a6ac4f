"""Runs on one page: paired by prompt and seed, with what differs, and never over another file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs.report.pages import Page
from toys import toy_config

import refcore
from refcore.errors import RefcoreError
from refcore.runs.report.comparison import _on, free_path, runs_in, write_comparison

HOSTILE = "<script>alert(1)</script>"


def made(folder: Path, prompts: list[str], seeds: list[int], **fields: object) -> Path:
    refcore.invert(prompts, config=toy_config(**fields), seeds=seeds, out=folder, report=False)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [
        made(tmp_path / "one", [HOSTILE, "b"], [0]),
        made(tmp_path / "two", ["b", HOSTILE], [0, 1], steps=4, optimizer={"name": "sgd", "lr": 0.3}),
    ]


def compared(folders: list[Path], path: Path) -> Page:
    write_comparison(runs_in(folders), path)
    return Page(path.read_text("utf-8"))


def test_configs_pictures_scores_and_curves_are_side_by_side(folders: list[Path], tmp_path: Path) -> None:
    page = compared(folders, tmp_path / "page.html")
    for words in ("steps 6 4", "optimizer.lr 0.1 0.3", HOSTILE):
        assert words in page.words, words
    assert [address for address in page.addresses if not address.startswith(("data:image/", "#"))] == []
    heads = [" ".join("".join(each.itertext()).split()) for each in page.all("h3")]
    assert heads[:2] == [f"{HOSTILE} seed 0", "b seed 0"], "what both have comes first"
    first, second = (json.loads((folder / "result.json").read_text())["samples"] for folder in folders)
    by = {(own["prompt"], own["seed"]): own for own in second}
    for own in first:
        theirs = by[own["prompt"], own["seed"]]["scores"]["toy"]
        assert f"{theirs - own['scores']['toy']:+.3f}".replace("-", "\u2212") in page.words
    assert "no such sample" in page.words
    assert len([each for each in page.all("img") if each.get("alt")]) == 2 + 4


def test_curves_lie_over_one_another_on_common_steps(folders: list[Path], tmp_path: Path) -> None:
    page = compared(folders, tmp_path / "page.html")
    records = [[json.loads(line) for line in (folder / "history.jsonl").open()] for folder in folders]
    assert page.data["steps"] == list(range(6))
    long, short = page.data["charts"]["0-0"]
    place = {0: 0, 1: 2}
    assert long == pytest.approx([record["losses"]["toy"][place[0]] for record in records[0]], rel=1e-5)
    assert short[:4] == pytest.approx([record["losses"]["toy"][place[1]] for record in records[1]], rel=1e-5)
    assert short[4:] == [None, None]


def test_a_grid_holds_the_last_number_and_ends_with_the_run() -> None:
    assert _on([0, 2, 4, 6, 8], [0, 1, 3, 4, 5], [0.0, 1.0, 3.0, 4.0, 5.0]) == [0.0, 1.0, 4.0, 5.0, None]


def test_runs_that_share_nothing_and_unfinished_ones_are_shown(tmp_path: Path) -> None:
    folders = [made(tmp_path / "one", ["a"], [0]), made(tmp_path / "two", ["b"], [0])]
    (folders[1] / "result.json").unlink()
    page = compared(folders, tmp_path / "page.html")
    assert "unfinished: 6 steps are in the history" in page.words
    assert page.data["charts"] == {}


def test_equal_configs_do_not_differ(tmp_path: Path) -> None:
    folders = [made(tmp_path / name, ["a"], [0]) for name in ("one", "two")]
    assert "The configs do not differ." in compared(folders, tmp_path / "page.html").words


def test_nothing_is_written_over(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "compare.html").write_text("mine")
    with pytest.raises(RefcoreError, match="is never overwritten"):
        write_comparison(runs_in(folders), tmp_path / "compare.html")
    assert (tmp_path / "compare.html").read_text() == "mine"
    assert free_path(tmp_path) == tmp_path / "compare-1.html"


def test_one_run_or_the_same_twice_is_refused(folders: list[Path]) -> None:
    with pytest.raises(RefcoreError, match="1 folders were given; expected 2 to 8"):
        runs_in(folders[:1])
    with pytest.raises(RefcoreError, match="is given twice"):
        runs_in([folders[0], folders[0] / "." / ""])
