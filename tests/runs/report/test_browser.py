"""The pages in a browser: nothing overflows, nothing is logged, and the curves are read by keyboard and pointer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toys import PLUGINS, toy_config

import refcore
from refcore import registry
from refcore.runs.report.comparison import runs_in, write_comparison

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium"),
]
SIZES = [(375, 700), (1280, 900)]
LONG = "a_word_that_is_much_longer_than_any_telephone_is_wide_" * 3 + "<b>bold</b>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    for kind, classes in PLUGINS.items():
        for name, cls in classes.items():
            if name not in registry.names(kind):
                registry.register(kind, name, cls, "of the tests")
    folder = tmp_path_factory.mktemp("pages")
    fields: dict[str, Any] = {"witnesses": [{"name": "toy", "label": "witness_" * 8}]}
    refcore.invert([f"{LONG} {i}" for i in range(10)], config=toy_config(**fields), out=folder / "many")
    refcore.invert("a cat", config=toy_config(steps=40), out=folder / "one")
    write_comparison(runs_in([folder / "many", folder / "one"]), folder / "compare.html")
    named = {name: folder / name / "report.html" for name in ("one", "many")}
    return {**named, "compare": folder / "compare.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page in a window, with what it has logged and fetched."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.logged: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ["one", "many", "compare"])
def test_nothing_overflows_nothing_is_logged_and_nothing_is_fetched(
    browser: Any, pages: dict[str, Path], name: str, width: int, height: int, scheme: str
) -> None:
    opened = Opened(browser, pages[name], viewport={"width": width, "height": height}, color_scheme=scheme)
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 384) == (scheme == "light")
    assert opened.logged == []
    assert [url for url in opened.fetched if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in opened.fetched if url.startswith("file:")]) == 1
    opened.context.close()


def test_tabbing_reaches_the_curves_and_arrow_keys_read_them(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["one"], viewport={"width": 1280, "height": 900})
    page = opened.page
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.plot')"):
            break
    else:
        pytest.fail("no curve is reached in forty presses of Tab")
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')").startswith("step 1: ")
    shown = page.locator("[data-chart='norm-0'] .values b").inner_text()
    assert float(shown) == pytest.approx(data["charts"]["norm-0"][0][1], rel=5e-3), "all charts show the same step"
    page.keyboard.press("End")
    assert page.locator(".at").first.inner_text() == "step 39"
    assert page.evaluate("document.activeElement.getAttribute('role')") == "slider"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    opened.context.close()


def test_the_pointer_reads_the_curves_and_leaving_shows_the_end_again(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["one"], viewport={"width": 1280, "height": 900})
    page = opened.page
    values = page.locator("[data-chart='loss-0'] .values b")
    last = values.inner_text()
    svg = page.locator("[data-chart='loss-0'] svg").first
    svg.scroll_into_view_if_needed()
    box = page.locator("[data-chart='loss-0'] .plot svg").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    assert float(values.inner_text()) == pytest.approx(data["charts"]["loss-0"][0][0], rel=5e-3)
    assert page.locator("[data-chart='norm-1'] .at").inner_text() == "step 0"
    page.mouse.move(5, 5)
    assert values.inner_text() == last
    opened.context.close()


def test_without_a_script_the_curves_and_their_last_numbers_are_there(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["one"], viewport={"width": 375, "height": 700}, java_script_enabled=False)
    assert opened.page.locator("polyline").count() > 5
    assert float(opened.page.locator("[data-chart='norm-0'] .values b").inner_text()) > 0
    assert not opened.page.locator(".script-only").first.is_visible()
    opened.page.locator(".play summary").first.click()
    assert opened.page.locator(".play img").first.is_visible()
    opened.context.close()
