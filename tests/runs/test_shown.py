"""What is shown of a job is escaped, has a text for every picture, and says how long the rest takes."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from refcore.runs import shown
from refcore.runs.jobs import Seen

INJECTION = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"
SEEN = Seen(
    number=1,
    state="running",
    step=3,
    planned=9,
    seconds=12.0,
    pictures=(b"png",),
    curves={"clip": [(1, 2.0), (2, 1.0)]},
    weights={},
    scores=(),
    verdicts=(),
    folder=None,
    error="",
)


class Tags(HTMLParser):
    """Names of all tags, and attributes that are handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_prompts_labels_and_errors_never_become_markup() -> None:
    seen = replace(
        SEEN,
        state="failed",
        curves={INJECTION: [(1, 2.0), (2, 1.0)]},
        weights={INJECTION: 1.0},
        scores=({INJECTION: 0.5},),
        verdicts=(True,),
        error=INJECTION,
    )
    parser = Tags()
    html = shown.status(seen) + shown.pictures(seen, [(INJECTION, 0)]) + shown.curves(seen.curves)
    parser.feed(html + shown.weights(seen.weights))
    assert parser.found <= {"p", "progress", "div", "figure", "img", "figcaption", "br", "b", "span", "svg", "polyline"}
    assert not parser.handlers


def test_every_picture_and_curve_has_a_text() -> None:
    assert 'alt="a cat, seed 4, after 3 steps"' in shown.pictures(SEEN, [("a cat", 4)])
    assert 'aria-label="Loss of clip: 2 at first, 1 now, between 1 and 2"' in shown.curves(SEEN.curves)


def test_the_state_has_the_time_so_far_and_while_it_goes_on_the_time_left() -> None:
    assert "Run 1 goes on: 3 of 9 steps, 12 s, about 24 s left." in shown.status(SEEN)
    assert "Run 1 makes its start: 0 of 9 steps.<" in shown.status(replace(SEEN, state="starting", step=0, seconds=0.0))
    assert "The run is finished: 9 of 9 steps, 36 s." in shown.status(
        replace(SEEN, number=0, state="finished", step=9, seconds=36.0)
    )
