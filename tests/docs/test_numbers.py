"""README and the page of results report the numbers of the committed rows."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "studies" / "rows"
OVERVIEWS = [ROOT / "README.md", ROOT / "docs" / "results" / "index.md"]


def right(study: str, variant: str) -> tuple[int, int]:
    """Images with a positive verdict, and all images, of a variant."""
    rows = polars.read_parquet(ROWS / study / "results.parquet").filter(polars.col("variant") == variant)
    return int(rows["verdict"].sum()), len(rows)


def percent(study: str, variant: str) -> str:
    """Rounded as `refcore bench show` rounds."""
    found, images = right(study, variant)
    return f"{100 * found / images:.0f} %"


@pytest.mark.parametrize("page", OVERVIEWS, ids=lambda page: page.name)
def test_sampling_is_never_reported_without_its_guidance_scale(page: Path) -> None:
    text = page.read_text("utf-8")
    for guidance in ("3", "7.5"):
        found, share = right("playground", f"sampling-{guidance}")[0], percent("playground", f"sampling-{guidance}")
        assert f"{found} " in text
        assert share in text
        assert f"guidance {guidance}" in text
    assert percent("playground", "sampling-3") != percent("playground", "sampling-7.5")


def test_the_first_screen_has_the_numbers_of_the_rows() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    found, images = right("playground", "playground")
    assert f"{found} of {images} prompts right ({percent('playground', 'playground')})" in text
    for guidance in ("3", "7.5"):
        variant = f"sampling-{guidance}"
        assert f"{right('playground', variant)[0]} ({percent('playground', variant)}) at guidance {guidance}" in text
    found, images = right("blind", "playground-blind")
    assert f"{found} of {images} prompts ({percent('blind', 'playground-blind')})" in text
    found, images = right("natural/report", "natural")
    assert f"{found} of {images} pictures ({percent('natural/report', 'natural')})" in text
    for alone in ("lite0-alone", "lite1-alone"):
        assert f"{right('natural/report', alone)[0]} ({percent('natural/report', alone)})" in text
    none, images = right("claims/sds", "referees")
    both = f"with SDS {right('claims/sds', 'both-7.5')[0]} ({percent('claims/sds', 'both-7.5')})"
    assert f"{none} of {images} prompts are right, {both}" in text


def test_the_page_of_results_has_the_numbers_of_the_rows() -> None:
    text = (ROOT / "docs" / "results" / "index.md").read_text("utf-8")
    for variant in ("playground", "sampling-3", "sampling-7.5", "blip2-alone"):
        assert f"{right('playground', variant)[0]} " in text, variant
        assert percent("playground", variant) in text, variant
    rows = {
        "One referee, two, three?": [("claims/referees", name) for name in ("clip+blip2+owlv2", "clip")],
        "Is distillation better": [
            ("claims/sds", name) for name in ("sds-7.5", "sds-7.5-long", "both-7.5", "sampling-7.5")
        ],
        "Which combiner?": [("claims/combiners", name) for name in ("norm_balance", "imtl_g")],
        "Which prior?": [("claims/priors", name) for name in ("sds", "sdi")],
    }
    for question, variants in rows.items():
        (line,) = [line for line in text.splitlines() if question in line]
        for study, variant in variants:
            assert percent(study, variant) in line, (question, variant)
