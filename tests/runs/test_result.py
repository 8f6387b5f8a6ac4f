"""A result reads well: a table in a terminal, pictures in a notebook, samples by number, and a folder on demand."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import toy_config

import refcore
from refcore import images, show
from refcore.config.terms import UNWANTED
from refcore.contracts.judge import Verdict
from refcore.runs.result import Result

pytestmark = pytest.mark.fault("4.9")


@pytest.fixture
def result() -> Result:
    return refcore.invert(["a", "<b>" + 30 * " long"], config=toy_config(), overrides=["steps=2"], seeds=[0, 7])


def test_a_result_prints_as_a_table_without_tensors(result: Result) -> None:
    lines = str(result).splitlines()
    assert lines[0].split() == ["prompt", "seed", "toy", "toy-2", *f"({UNWANTED})".split()]
    first = result.samples[0]
    assert lines[1].split() == ["a", "0", *(f"{first.scores[label]:.3f}" for label in ("toy", "toy-2"))]
    assert len({line.index(cell) for line, cell in zip(lines[:2], ("seed", "0"), strict=True)}) == 1
    assert lines[3].startswith("<b> long long")
    assert "..." in lines[3]
    assert lines[5] == "2 of 2 steps"
    assert repr(result) == str(result)
    assert "tensor" not in repr(result) + repr(result.samples) + repr(result[0])


def test_a_verdict_is_a_column_where_any_sample_has_one(result: Result) -> None:
    judged = replace(result[0], verdict=Verdict(False, []))
    lines = str(replace(result, samples=(judged, *result[1:]))).splitlines()
    assert lines[0].endswith("  verdict")
    assert lines[1].endswith("  no")


def test_a_table_of_many_samples_says_how_many_it_leaves_out(result: Result) -> None:
    many = replace(result, samples=result.samples * 20)
    assert len(str(many).splitlines()) == 1 + show.ROWS + 1 + 1
    assert f"... and {80 - show.ROWS} more" in str(many)
    assert many._repr_html_().count("<img") == show.ROWS


def test_a_run_that_ended_early_says_why(result: Result) -> None:
    stopped = replace(result, steps=1, error=ValueError("no more light"))
    assert str(stopped).endswith("stopped after 1 of 2 steps: no more light")


def test_samples_by_number_slice_and_turn(result: Result) -> None:
    assert len(result) == 4
    assert [sample.seed for sample in result] == [0, 7, 0, 7]
    assert result[-1] is result.samples[3]
    assert result[:2] == result.samples[:2]
    with pytest.raises(IndexError):
        result[4]


def test_a_sample_has_its_picture(result: Result) -> None:
    sample = result[2]
    assert sample.image.mode == "RGB"
    assert np.array_equal(np.array(sample.image), images.levels(result.images[2]))
    assert np.array_equal(np.array(Image.open(io.BytesIO(sample._repr_png_()))), np.array(sample.image))


def test_a_notebook_shows_pictures_and_no_markup_of_a_prompt(result: Result) -> None:
    html = result._repr_html_()
    assert html.count("<img") == 4
    assert "&lt;b&gt;" in html
    assert "<b>" not in html + result[2]._repr_html_()
    data = html.partition("base64,")[2].partition('"')[0]
    assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(data)))), np.array(result[0].image))


def test_save_writes_the_folder_that_out_does(tmp_path: Path) -> None:
    result = refcore.invert(["a", "b"], config=toy_config(), overrides=["steps=2"], out=tmp_path / "out", report=False)
    assert result.save(tmp_path / "saved") == tmp_path / "saved"
    saved = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert saved == ["config.yaml", "history.jsonl", "image_0.png", "image_1.png", "result.json"]
    for name in saved:  # a result has no state to go on from, so `out` also has run.json and a checkpoint
        ours, theirs = ((tmp_path / folder / name).read_bytes() for folder in ("saved", "out"))
        if name == "result.json":  # the time that `finish` takes is known once the folder is written
            assert {**json.loads(ours), "timings": 0} == {**json.loads(theirs), "timings": 0}
        else:
            assert ours == theirs, name
    with pytest.raises(refcore.RefcoreError, match="holds another run"):
        result.save(tmp_path / "saved")


def test_a_step_prints_as_a_line() -> None:
    shown: list[str] = []
    refcore.invert(
        ["a", "b"], config=toy_config(), overrides=["steps=1"], on_step=lambda step: shown.append(repr(step))
    )
    assert shown[0].startswith("step 0, toy ")
    assert shown[0].endswith("2 of 2 tracks active")
    assert "tensor" not in shown[0]
