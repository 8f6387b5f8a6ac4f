"""The report is one valid page that fetches nothing, escapes everything, stays small, and has the run's own numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runs.report.pages import Page, colours, contrast
from toys import toy_config

import refcore
from refcore.errors import RefcoreError
from refcore.runs.report import page as page_module
from refcore.runs.report.config_lines import config_lines
from refcore.runs.report.curves import AGREE, OPPOSE, curves, thinned
from refcore.runs.report.page import MOST_BYTES, MOST_SAMPLES, Score, report, write_report
from refcore.runs.report.palette import DASHES, SAMPLES, style
from refcore.runs.report.pictures import animation, picture
from refcore.runs.report.recording import Recording
from refcore.runs.stored import look_at

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} ' &amp; </title> 中"
EVERY = {"witnesses": [{"name": "toy", "label": "witness", "config": {"seed": 5}}], "ema": {"decay": 0.5}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of two prompts, the second a hostile one, with two seeds."""
    from toys import PLUGINS

    from refcore import registry

    for kind, classes in PLUGINS.items():
        for name, cls in classes.items():
            if name not in registry.names(kind):
                registry.register(kind, name, cls, "of the tests")
    path = tmp_path_factory.mktemp("run") / "run"
    refcore.invert(["a cat", HOSTILE], config=toy_config(**EVERY), seeds=[3, 4], out=path)
    return path


@pytest.fixture
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_the_page_is_valid_and_fetches_nothing(page: Page) -> None:
    """html5lib is strict here: it raises at the first error of a browser's parser."""
    assert [address for address in page.addresses if not address.startswith(("data:image/", "#"))] == []
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "@import" not in page.text
    assert "url(" not in page.text
    for target in (address[1:] for address in page.addresses if address.startswith("#")):
        assert any(each.get("id") == target for each in page.root.iter()), target


def test_the_policy_allows_this_style_this_script_and_nothing_else(page: Page) -> None:
    (policy,) = [each.get("content") for each in page.all("meta") if each.get("http-equiv")]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert (rules["img-src"], rules["base-uri"], rules["form-action"]) == ("data:", "'none'", "'none'")
    scripts = [each.text or "" for each in page.all("script") if each.get("type") is None]
    styles = [each.text or "" for each in page.all("style")]
    for (text,), rule in ((scripts, "script-src"), (styles, "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    inline = {str(name) for each in page.root.iter() for name in each.attrib}
    assert [name for name in inline if name == "style" or name.startswith("on")] == [], "which the policy would block"


def test_what_a_user_has_given_is_text(page: Page) -> None:
    assert " ".join(HOSTILE.split()) in page.words
    assert [each for each in page.all("img") if each.get("onerror")] == []
    assert len(list(page.all("script"))) == 2
    assert "alert(" not in "".join(each.text or "" for each in page.all("script"))


def test_every_picture_has_an_alternative_text_and_can_be_decoded(page: Page) -> None:
    found = list(page.all("img"))
    assert len(found) > 20
    for each in found:
        assert len(each.get("alt") or "") > 10
        assert (each.get("src") or "").startswith("data:image/webp;base64,")
        assert each.get("width")
    assert any((each.get("alt") or "").startswith('result: "a cat", seed 3') for each in found)


def test_the_animation_goes_from_start_to_end(page: Page, folder: Path, tmp_path: Path) -> None:
    shown = page.classed("play")[0].find("img")
    assert shown is not None
    (tmp_path / "moving.webp").write_bytes(base64.b64decode((shown.get("src") or "").partition(",")[2]))
    with Image.open(tmp_path / "moving.webp") as moving:
        assert moving.n_frames == 7
        first = np.asarray(moving.convert("RGB"))
        moving.seek(6)
        last = np.asarray(moving.convert("RGB"))
    recording = Recording.read(folder)
    for shown, frame in ((first, recording.frames[0]), (last, recording.frames[-1])):
        tiles = recording.pictures(folder, frame.file, 4)
        assert tiles is not None
        assert (shown == tiles[0][0]).all(), "small pictures lose nothing"


def test_the_curves_have_the_numbers_of_the_history(page: Page, folder: Path) -> None:
    records = history(folder)
    titles = {each.get("data-chart"): (each.find(".//h3").text or "") for each in page.classed("chart")}
    assert page.data["steps"] == [record["step"] for record in records]
    for chart, lines in page.data["charts"].items():
        kind = chart.split("-")[0]
        for b, line in enumerate(lines):
            if kind == "angle":
                names = {"all terms at the image together": "<image>"}
                first, second = titles[chart].split(" and ")
                own = [record["angles"][names.get(first, first)][second][b] for record in records]
            else:
                own = [record["losses" if kind == "loss" else "norms"][titles[chart]][b] for record in records]
            assert line == pytest.approx(own, rel=1e-5), chart
    assert {titles[f"loss-{i}"] for i in range(3)} == {"toy", "toy-2", "smooth"}
    assert {titles[f"norm-{i}"] for i in range(4)} == {"toy", "toy-2", "toy_sds", "smooth"}
    assert len(list(page.all("polyline"))) == 4 * len(titles)


def test_a_point_of_a_curve_lies_where_its_number_says(folder: Path) -> None:
    found = curves(history(folder), [0], [0])
    chart = found.losses[0]
    (points,) = chart.points()[0]
    values = chart.lines[0]
    for i, (point, value) in enumerate(zip(points.split(), values, strict=True)):
        x, y = map(float, point.split(","))
        assert x == round(1000 * i / 5)
        assert abs(y - 300 * (chart.high - value) / (chart.high - chart.low)) <= 0.5


def test_curves_can_be_reached_by_keyboard_and_are_described(page: Page) -> None:
    plots = page.classed("plot")
    assert len(plots) == len(page.classed("chart"))
    for plot in plots:
        assert plot.get("tabindex") == "0"
        assert re.search(r"sample 1 from \S+ to \S+", plot.get("aria-label") or "")
    assert [each for each in page.root.iter() if (each.get("tabindex") or "0") > "0"] == []


def test_scores_stand_before_and_after(page: Page, folder: Path) -> None:
    start = Recording.read(folder).scores
    sample = json.loads((folder / "result.json").read_text())["samples"][0]
    rows = [" ".join("".join(row.itertext()).split()) for row in page.classed("scores")[0].iter("tr")]
    for label, end in {**sample["scores"], **sample["witnesses"]}.items():
        (row,) = [row for row in rows if row.startswith(f"{label} ")]
        for value in (start[label][0], end):
            assert f"{value:.3f}".replace("-", "\u2212") in row
    assert "witness" in rows[-1]
    assert "not wanted: low is good" in " ".join(rows)


def test_better_is_up_except_for_what_is_not_wanted_and_a_hair_is_neither() -> None:
    assert Score("a", "referee", "", 0.2, 0.5).better is True
    assert Score("a", "not wanted: low is good", "", 0.2, 0.5).better is False
    assert Score("a", "referee", "", 0.5, 0.5004).better is None
    assert Score("a", "referee", "", None, 0.5).better is None


def test_who_agrees_with_whom_is_said_by_the_third(page: Page, folder: Path) -> None:
    records = history(folder)
    (body,) = page.classed("pairs")[0].iter("tbody")
    rows = [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in body]
    (cells,) = [cells for name, *cells in rows if name == "toy and toy-2"]
    for third, cell in enumerate(cells):
        own = [value for record in records[2 * third : 2 * third + 2] for value in record["angles"]["toy"]["toy-2"]]
        mean = sum(own) / len(own)
        word = "agree" if mean < AGREE else "oppose" if mean > OPPOSE else "neither"
        assert cell == f"{word} {mean:.0f}°"


def test_the_page_says_how_the_run_ended_and_how_it_is_repeated(page: Page, folder: Path) -> None:
    for words in (
        "finished after 6 steps",
        f"refcore invert --config {folder}/config.yaml --out NEW",
        "2 toy",
        "seeds 3, 4",
        f"refcore {json.loads((folder / 'result.json').read_text())['versions']['refcore']}",
        "The run had no preset.",
    ):
        assert words in page.words, words


def test_what_differs_from_the_preset_is_marked(tmp_path: Path) -> None:
    settings = {"steps": 9, "referees": [{"name": "clip", "weight": 2.0}, {"name": "toy"}], "ema": None}
    changed = {"referees.clip.weight": [1.0], "steps": [8], "priors.sds": [{"name": "sds"}], "referees.toy": []}
    lines = config_lines(settings, changed)
    shown = {line.text: line.before for line in lines if line.changed}
    assert shown == {
        "steps: 9": "the preset has 8",
        "    weight: 2.0": "the preset has 1.0",
        "  - name: toy": "",
        "# priors.sds: left out": "the preset has {name: sds}",
    }
    assert [line.text for line in lines if not line.changed] == ["referees:", "  - name: clip", "ema: null"]


def test_a_run_of_a_preset_shows_its_changes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    recording = Recording.read(tmp_path / "run")
    recording.preset, recording.changed = "<odd>", {"optimizer.lr": [0.5]}
    recording.write(tmp_path / "run")
    page = Page(report(look_at(tmp_path / "run")))
    assert "preset <odd>, 1 change" in page.words
    assert [(mark.text or "").strip() for mark in page.all("mark")] == ["lr: 0.1", "lr: 0.1"], "alone, and in the whole"
    assert "the preset has 0.5" in page.words


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_has_a_contrast_of_4_5_and_lines_of_3(name: str) -> None:
    own = colours(style(), name)
    for ground in ("ground", "panel"):
        for ink in ("ink", "soft", "accent", "good", "bad"):
            assert contrast(own[ink], own[ground]) >= 4.5, (ink, ground)
        for i in range(len(SAMPLES[name])):
            assert contrast(own[f"sample-{i}"], own[ground]) >= 3, (i, ground)
    assert contrast(own["ink"], own["mark"]) >= 4.5
    assert len(set(DASHES)) == len(SAMPLES[name]) == MOST_SAMPLES, "no line is told by its colour alone"


def test_many_samples_and_large_pictures_stay_below_the_bound(tmp_path: Path) -> None:
    """Noise, which no format makes small."""
    noise = np.random.default_rng(0)
    prompts = [f"prompt {i} " + "long words " * 60 for i in range(60)]
    config = toy_config(canvas={"name": "toy_pixel"}, priors=[{"name": "smooth"}], size=256, steps=3)
    refcore.invert(prompts, config=config, out=tmp_path / "run")
    for path in (tmp_path / "run").glob("image_*.png"):
        Image.fromarray(noise.integers(0, 256, (640, 640, 3), np.uint8)).save(path)
    written = write_report(tmp_path / "run")
    assert 500_000 < written.stat().st_size <= MOST_BYTES
    page = Page(written.read_text("utf-8"))
    assert len(list(page.all("article"))) == MOST_SAMPLES
    assert "52 more samples" in page.words
    assert all(each.find(".//img") is not None for each in page.all("article"))


def test_many_terms_and_steps_stay_below_the_bound(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    labels = [f"term {i}" for i in range(40)]
    numbers = np.random.default_rng(0)

    def record(step: int) -> dict[str, Any]:
        own = {label: numbers.random(4).tolist() for label in labels}
        angles = {one: {two: numbers.random(4).tolist() for two in labels[i + 1 :]} for i, one in enumerate(labels)}
        about = {"step": step, "active": [True] * 4, "candidates": [[b, 0] for b in range(4)]}
        return {**about, "losses": own, "norms": own, "angles": angles}

    text = report(look_at(tmp_path / "run"), [record(step) for step in range(500)])
    assert len(text.encode()) <= MOST_BYTES
    page = Page(text)
    assert len(page.classed("chart")) == 12 + 12 + 15
    assert "28 more terms" in page.words
    assert "765 more pairs of terms" in page.words
    assert (page.data["steps"][0], page.data["steps"][-1]) == (0, 499)


def test_pictures_give_way_where_the_rest_is_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(report(look_at(folder)).encode())
    monkeypatch.setattr(page_module, "MOST_BYTES", whole - 1000)
    assert len(report(look_at(folder)).encode()) < whole - 1000


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 60_000))
def test_a_picture_never_takes_more_than_its_share(width: int, height: int, budget: int) -> None:
    levels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    for found in (picture(levels, "a", budget), animation([levels, levels[::-1]], "a", budget)):
        assert found is None or found.bytes <= budget


def test_records_are_thinned_with_both_ends() -> None:
    records = [{"step": step} for step in range(1000)]
    shown = thinned(records, 20)
    assert (len(shown), shown[0]["step"], shown[-1]["step"]) == (20, 0, 999)
    assert thinned(records[:5], 20) == records[:5]


def test_the_page_of_an_unfinished_run_shows_what_there_is(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    for name in ("result.json", "report.html"):
        (tmp_path / "run" / name).unlink()
    for path in (tmp_path / "run").glob("image_*.png"):
        path.unlink()
    page = Page(write_report(tmp_path / "run").read_text("utf-8"))
    assert "unfinished: 6 steps are in the history" in page.words
    assert len(list(page.all("article"))) == 4
    assert any((each.get("alt") or "").startswith("result: ") for each in page.all("img"))
    (tmp_path / "run" / "history.jsonl").unlink()
    shutil.rmtree(tmp_path / "run" / "recording")
    page = Page(write_report(tmp_path / "run").read_text("utf-8"))
    assert "No step is in the history." in page.words
    assert "There is no picture." in page.words


def test_a_run_that_stopped_early_says_why(tmp_path: Path) -> None:
    referees = [{"name": "toy", "config": {"nan_at": 3}}]
    with pytest.raises(refcore.NonFiniteError):
        refcore.invert("a", config=toy_config(referees=referees), out=tmp_path / "run")
    page = Page((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert 'stopped after 3 of 6 steps: step 3: "toy" gave NaN' in page.words


def test_where_candidates_competed_the_page_says_who_is_shown(tmp_path: Path) -> None:
    config = toy_config(candidates={"count": 3, "keep": [[3, 1]]})
    result = refcore.invert("a", config=config, out=tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    page = Page(text)
    kept = result[0].candidate
    assert "the curves are those of the one that was kept" in page.words
    assert f"candidate {kept}" in page.words
    column = [record["candidates"].index([0, kept]) for record in result.history]
    own = [record["losses"]["toy"][place] for record, place in zip(result.history, column, strict=True)]
    assert page.data["charts"]["loss-0"][0] == pytest.approx(own, rel=1e-5)


def test_what_holds_no_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RefcoreError, match="holds no run"):
        write_report(tmp_path)
