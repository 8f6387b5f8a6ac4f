"""The picture of a report in README and docs: the preset `natural` makes a volcano, and a browser shows its page.

python studies/report_picture.py                # makes the run in a temporary folder
python studies/report_picture.py --run DIR      # of a run that is there
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import refcore
from refcore.runs.report.page import REPORT

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1180, 1010
"""Of the window, in pixels."""
COLOURS = 192
"""Of the PNG, which is small with few."""


def photograph(page: Path, out: Path) -> None:
    """Writes the top of a page as a browser shows it."""
    chromium = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        shown = opened.screenshot()
        browser.close()
    image = Image.open(io.BytesIO(shown)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="folder of a run with a report")
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        run = given.run or Path(made) / "run"
        if given.run is None:
            refcore.invert("volcano", preset="natural", seeds=0, out=run)
        photograph(run / REPORT, given.out)


if __name__ == "__main__":
    main()
