"""The page's form is read as the command line is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from refcore.config.start import ImageStart
from refcore.errors import RefcoreError
from refcore.ui import form
from refcore.ui.limits import Limits

LIMITS = Limits(side=32)


def test_the_form_is_a_config() -> None:
    changes = "steps=7\n\n# a remark\nreferees.clip.weight=2"
    config = form.read(LIMITS, "a red circle", "playground", "0-2", changes, None, "start", 0)
    assert (config.prompts, config.seeds, config.steps) == (["a red circle"], [0, 1, 2], 7)
    assert config.terms["clip"].weight == 2


def test_an_upload_is_a_start_or_a_referee(tmp_path: Path) -> None:
    picture = tmp_path / "it's.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    start = form.read(LIMITS, "a", "playground", "", "", str(picture), "start", 0.6).init
    assert isinstance(start, ImageStart)
    assert (start.image, start.strength) == (str(picture), 0.6)
    whole = form.read(LIMITS, "a", "playground", "0", "", str(picture), "start", 0).init
    assert isinstance(whole, ImageStart)
    assert whole.strength is None
    compared = form.read(LIMITS, "a", "playground", "0", "", str(picture), "reference", 0)
    assert compared.referees[-1].config["reference"] == str(picture)
    assert compared.referee_labels[-1] == "reference"


@pytest.mark.parametrize(("content", "said"), [(b"no image", "image"), (None, "256 px wide or high; .* at most 128")])
def test_what_is_no_picture_or_too_large_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "upload.png"
    if content is None:
        Image.new("RGB", (256, 8)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(RefcoreError, match=said):
        form.checked(path, LIMITS)


def test_a_kept_picture_starts_another_run(tmp_path: Path) -> None:
    first, second = (form.keep([b"png"], tmp_path / "starts", 3) for _ in range(2))
    assert first != second
    assert first.read_bytes() == b"png"
    with pytest.raises(RefcoreError, match="no picture yet"):
        form.keep([], tmp_path, 3)
