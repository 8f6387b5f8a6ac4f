"""README and the page of results report the numbers of the committed rows."""

from __future__ import annotations

import json
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
    none, images = right("claims/sds-blind", "referees")
    both, alone = right("claims/sds-blind", "both")[0], right("claims/sds-blind", "sds")[0]
    told_nothing = f"with SDS that is told nothing {both} ({percent('claims/sds-blind', 'both')})"
    assert f"{none} of {images} prompts are right, {told_nothing}, by SDS alone {alone}" in text
    views = f"{percent('claims/views-blind', 'blip2-1')} of {right('claims/views-blind', 'blip2-1')[1]} prompts"
    assert f"{views} with one view a step, and {percent('claims/views-blind', 'blip2-0')} without" in text
    for variant in ("best-of-120", "blind-spacy"):
        found, images = right("blind", variant)
        assert f"{found} of {images}" in text


def test_the_one_step_generator_has_the_numbers_of_the_rows() -> None:
    text = " ".join((ROOT / "docs" / "playground.md").read_text("utf-8").split())
    for variant in ("turbo", "sampling-3"):
        found, images = right("turbo", variant)
        assert f"{found} of {images} prompts ({percent('turbo', variant)}" in text, variant


def test_the_page_of_results_has_the_numbers_of_the_rows() -> None:
    text = (ROOT / "docs" / "results" / "index.md").read_text("utf-8")
    for variant in ("playground", "sampling-3", "sampling-7.5", "blip2-alone"):
        assert f"{right('playground', variant)[0]} " in text, variant
        assert percent("playground", variant) in text, variant
    rows = {
        "what the generator cannot?": [("blind", "no-prior"), ("blind", "best-of-120"), ("blind", "blind-spacy")],
        "Do views help?": [("claims/views-blind", f"{who}-{n}") for who in ("blip2", "three") for n in (0, 1)],
        "One referee, two, three?": [
            ("claims/referees-blind", name) for name in ("clip+blip2+owlv2", "owlv2", "blip2+owlv2")
        ],
        "Referees, distillation, or both?": [
            ("claims/sds-blind", "both"),
            *(("claims/sds", name) for name in ("sds-7.5", "both-7.5", "sampling-7.5")),
        ],
        "Which combiner?": [("claims/combiners-blind", f"{name}-balanced") for name in ("pcgrad", "upgrad")],
        "Which prior?": [("claims/priors-blind", "sds"), ("claims/priors", "sds"), ("claims/priors", "sdi")],
    }
    for question, variants in rows.items():
        (line,) = [line for line in text.splitlines() if question in line]
        for study, variant in variants:
            found, images = right(study, variant)
            said = (f"{found} of {images}", percent(study, variant), percent(study, variant).removesuffix(" %"))
            assert any(f" {one}" in line for one in said), (question, variant)
    lettering = json.loads((ROWS / "lettering" / "reporting.json").read_text("utf-8"))
    own = [row for row in lettering if row["variant"] == "views-1"]
    read = sum(row["tesseract"] == row["word"] for row in own)
    assert f"reads {read} of {len(own)} held-out words and pairs ({100 * read / len(own):.0f} %)" in text
