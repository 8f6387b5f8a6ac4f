"""What a canvas writes beside the images of a run, and starts from such a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import toy_config

import refcore
from refcore import registry
from refcore.contracts.canvas import CanvasParams
from refcore.engine.inversion import Inversion
from refcore.errors import ContractError, RefcoreError
from refcore.runs.rundir import RunDir, own_files

STROKES: dict[str, Any] = {
    "canvas": {"name": "strokes", "config": {"strokes": 6, "segments": [2, 2], "shapes": 2}},
    "size": [24, 32],
    "priors": [],
    "seeds": [3, 4],
    "steps": 2,
    "optimizer": {"lr": {"*": 0.01, "points": 0.5}},
}


def config(**fields: Any) -> Any:
    return toy_config(**{**STROKES, **fields})


def test_a_run_writes_an_svg_beside_every_png_and_names_it_in_the_result(tmp_path: Path) -> None:
    result = refcore.invert("a cat", config=config(), out=tmp_path / "run")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    for b, sample in enumerate(written["samples"]):
        assert (sample["image"], sample["files"]) == (f"image_{b}.png", [f"image_{b}.svg"])
        assert (tmp_path / "run" / f"image_{b}.svg").read_text() == result[b].files[".svg"]
    assert result[0].files[".svg"] != result[1].files[".svg"]


def test_a_run_of_a_canvas_without_files_says_nothing_of_them(tmp_path: Path) -> None:
    refcore.invert("a cat", config=config(canvas={"name": "toy_pixel"}, optimizer={"lr": 0.1}), out=tmp_path / "run")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "files" not in written["samples"][0]
    assert not list((tmp_path / "run").glob("image_*.svg"))


def test_a_run_that_is_gone_on_with_ends_in_the_same_svg(tmp_path: Path) -> None:
    def stop(step: Any) -> None:
        if step.step == 0:
            raise KeyboardInterrupt

    whole = refcore.invert("a cat", config=config(), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        refcore.invert("a cat", config=config(), out=tmp_path / "halved", on_step=stop)
    assert (tmp_path / "halved" / "image_0.svg").read_text() != whole[0].files[".svg"]
    refcore.resume(tmp_path / "halved")
    assert (tmp_path / "halved" / "image_0.svg").read_text() == whole[0].files[".svg"]


def test_files_are_of_the_average_where_the_picture_is(tmp_path: Path) -> None:
    inversion = Inversion(config(ema={"decay": 0.9}, output="ema"))
    for _ in inversion:
        pass
    average, last = inversion.files(), inversion.files("current")
    assert average != last
    opened = inversion.engine.canvas.open(average[1][".svg"])
    shown = inversion.engine.decode(opened, inversion.engine.end)
    assert (shown[0] - inversion.images()[1]).abs().max() < 1e-3


def test_a_saved_result_and_its_folder_own_the_files(tmp_path: Path) -> None:
    result = refcore.invert("a cat", config=config())
    folder = result.save(tmp_path / "saved")
    assert {path.name for path in own_files(folder)} >= {"image_0.svg", "image_1.svg"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "image_0.svg").write_text("mine")
    RunDir.claim(tmp_path / "other")  # a drawing alone is no run


def test_a_run_starts_from_a_drawing_and_an_image_alike(tmp_path: Path) -> None:
    first = refcore.invert("a cat", config=config(), out=tmp_path / "first")
    drawing, picture = (str(tmp_path / "first" / f"image_1.{ending}") for ending in ("svg", "png"))
    started = Inversion(config(init=drawing))
    shown = started.engine.decode(started.params, started.engine.end)
    for own in shown:
        assert (own - first.images[1]).abs().max() < 1e-3
    assert Inversion(config(init=picture)).params["colours"][..., 3].eq(1).all()  # a mosaic is opaque
    between = Inversion(config(init={"image": drawing, "strength": 0.5})).params
    fresh = Inversion(config()).params
    for name, value in between.items():
        torch.testing.assert_close(value, started.params[name].lerp(fresh[name], 0.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, 'the file is missing: ".*a.svg"'),
        (b"\xff\xfe", 'init.image: cannot read ".*a.svg": it is not UTF-8 text'),
        (b"<svg><text>word</text></svg>", 'init.image ".*a.svg": cannot read the drawing: <text>: it is not read'),
        (
            b"<svg viewBox='0 0 9 9'><path d='M0 0L9 9L9 0M0 9L0 3' stroke='red' fill='none' stroke-width='99'/></svg>",
            "wide",
        ),
    ],
)
def test_a_drawing_that_cannot_be_read_is_one_error_and_leaves_no_folder(
    tmp_path: Path, text: bytes | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "a.svg").write_bytes(text)
    with pytest.raises(RefcoreError, match=said):
        refcore.invert("a cat", config=config(init=str(tmp_path / "a.svg")), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_canvas_that_opens_no_drawing_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(RefcoreError, match="it is an SVG drawing; convert it to an 8-bit PNG"):
        refcore.invert("a cat", config=config(canvas={"name": "toy_pixel"}, init=str(tmp_path / "a.svg")))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([{".exe": "x"}], r"returned a file '\.exe'; expected one of \.json, \.svg, \.txt"),
        ([{".txt": b"x"}], r"returned a value of type bytes as the file '\.txt'; expected a text"),
        ([], "expected a list of 1 dicts, one per sample"),
    ],
)
def test_files_that_break_the_contract_are_refused_with_the_canvas_named(files: Any, said: str) -> None:
    strokes = registry.get("canvases", "strokes")

    class Wrong(strokes):  # type: ignore[valid-type, misc]
        name = "wrong"

        def files(self, params: CanvasParams) -> Any:
            return files

    registry.register("canvases", "wrong", Wrong, "of this test")
    inversion = Inversion(config(canvas={"name": "wrong", "config": {"strokes": 2}}, optimizer={"lr": 0.1}))
    with pytest.raises(ContractError, match=f'canvas "wrong".*{said}'):
        inversion.files()


def test_the_pictures_of_a_run_are_still_read_as_they_are(tmp_path: Path) -> None:
    result = refcore.invert("a cat", config=config(), out=tmp_path / "run")
    assert Image.open(tmp_path / "run" / "image_0.png").size == (32, 24)
    assert (tmp_path / "run" / "report.html").exists()
    assert len(result) == 2
