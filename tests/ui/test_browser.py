"""The page in a real browser: a run is started, watched, steered, paused, resumed and stopped, and its report opened.

Needs Debian's chromium, or another one named by the variable CHROMIUM. With SCREENSHOTS=DIR the pictures that the
README shows are written there.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="extra `ui` is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import uvicorn
from playwright.sync_api import sync_playwright

from refcore.runs import rundir
from refcore.ui.limits import Limits
from refcore.ui.server import make
from refcore.ui.session import Session

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]
PROMPT = "a red circle left of a blue square"
STEPS = 400
CHANGES = f"steps={STEPS}\ncandidates={{count: 1}}"
PATIENCE = 120.0


class Site:
    """The page on a port of its own, with its session."""

    def __init__(self, runs: Path) -> None:
        self.session = Session(runs, Limits())
        config = uvicorn.Config(make(self.session), host="127.0.0.1", port=0, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: bool(self.server.started))
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=20)
        self.session.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "runs")
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """The page, opened; a message on the console, or a request that leaves the machine, fails the test."""
    opened = browser.new_page(viewport={"width": 1360, "height": 1000})
    opened.set_default_timeout(PATIENCE * 1000)
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    local = (site.url, "data:", "blob:", f"ws://127.0.0.1:{site.port}/")
    opened.on("request", lambda request: None if request.url.startswith(local) else wrong.append(request.url))
    opened.goto(site.url)
    opened.wait_for_selector("#start")
    yield opened
    opened.close()
    assert not wrong


def start(page: Any, prompt: str, preset: str = "playground-blind", changes: str = CHANGES) -> None:
    page.fill("#prompt textarea", prompt)
    page.locator("#preset input").fill(preset)
    page.keyboard.press("Enter")
    if not page.locator("#changes textarea").is_visible():
        page.get_by_text("Settings", exact=True).click()
    page.fill("#changes textarea", changes)
    page.click("#start")


def screenshot(page: Any, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def source(page: Any) -> str:
    return str(page.locator("#pictures img").first.get_attribute("src"))


def test_a_run_is_started_watched_steered_paused_resumed_stopped_and_opened(page: Any, site: Site) -> None:
    start(page, PROMPT)
    page.wait_for_selector("#pictures img")
    first = source(page)
    until(lambda: source(page) != first)
    job = site.session.jobs()[0]
    assert page.locator("#pictures img").first.get_attribute("alt").startswith(f"{PROMPT}, seed 0")
    labels = [one.get_attribute("id") for one in page.query_selector_all("[id^=weight-]")]
    assert labels == ["weight-clip", "weight-blip2", "weight-owlv2", "weight-sds"]

    slider = page.locator('[id="weight-owlv2"] input[type=range]')
    slider.focus()
    before = job.seen().weights["owlv2"]
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    until(lambda: job.seen().weights["owlv2"] > before)
    moved = float(slider.input_value())
    until(lambda: job.seen().weights["owlv2"] == pytest.approx(moved))

    page.click("#pause")
    page.wait_for_selector("#status >> text=is paused")
    there = job.step
    screenshot(page, "page")
    time.sleep(1.0)
    assert job.step == there
    page.click("#resume")
    until(lambda: job.step > there)
    page.click("#stop")
    page.wait_for_selector("#status >> text=was stopped")
    assert 0 < job.step < STEPS
    assert job.folder is not None
    lines = [json.loads(line) for line in (job.folder / rundir.HISTORY).read_text().splitlines()]
    told = [line["weights"]["owlv2"] for line in lines]
    assert told[0] == before
    assert told[-1] == pytest.approx(moved)
    assert (job.folder / "image_0.png").is_file()

    with page.expect_popup() as popup:
        page.click("#report a")
    report = popup.value
    report.wait_for_load_state()
    assert PROMPT in report.content()
    screenshot(report, "report")
    report.close()


def test_the_picture_of_a_run_starts_another(page: Any, site: Site) -> None:
    start(page, PROMPT, changes="steps=3\ncandidates={count: 1}")
    page.wait_for_selector("#status >> text=is finished")
    page.click("#again")
    page.get_by_text("Picture to start from or compare with").click()
    page.wait_for_selector("#upload img")
    page.click("#start")
    page.wait_for_selector("#status >> text=Run 2 is finished")
    second = site.session.jobs()[0]
    assert second.config.init is not None
    assert "gradio" in str(second.config.init.image) or ".starts" in str(second.config.init.image)


def test_runs_so_far_are_listed_and_compared(page: Any, site: Site) -> None:
    for seed, prompt in enumerate(("a red circle", "a blue square")):
        page.fill("#seeds textarea, #seeds input", str(seed))
        start(page, prompt, changes="steps=2\ncandidates={count: 1}")
        page.wait_for_selector(f"#status >> text=Run {seed + 1} is finished")
    page.get_by_role("tab", name="Runs so far").click()
    page.wait_for_selector("#listed img")
    assert page.locator("#listed figure").count() == 2
    for box in page.locator("#chosen input[type=checkbox]").all():
        box.check()
    page.click("#compare")
    page.wait_for_selector("#compared a")
    with page.expect_popup() as popup:
        page.click("#compared a")
    popup.value.wait_for_load_state()
    assert "a blue square" in popup.value.content()
    popup.value.close()


def test_markup_in_prompts_and_folder_names_stays_text(page: Any, site: Site) -> None:
    bad = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    folder = site.session.runs / "<img src=x onerror=alert(3)>"
    start(page, bad, changes="referees=[]\npriors=[{name: tv}]\ncombine={name: sum}\ncanvas={name: pixel}\nsize=16\n"
          "steps=3\ncandidates={count: 1}")  # fmt: skip
    page.wait_for_selector("#status >> text=is finished")
    assert bad.partition("<script>")[0] in page.inner_text("#pictures")
    kept = site.session.jobs()[0].folder
    assert kept is not None
    shutil.copytree(kept, folder)
    page.get_by_role("tab", name="Runs so far").click()
    page.wait_for_selector("#listed img")
    assert folder.name in page.inner_text("#listed")
    assert page.locator("#listed script, #pictures script, img[src=x]").count() == 0


def test_a_mistake_is_a_sentence_on_the_page(page: Any) -> None:
    start(page, PROMPT, changes="stepz=3")
    page.wait_for_selector('text=/stepz.*did you mean "steps"/')
    assert "Traceback" not in page.content()


def test_what_comes_under_another_name_or_from_another_page_is_refused(page: Any, site: Site) -> None:
    asked = page.request
    assert asked.get(site.url, headers={"Host": f"evil.example:{site.port}"}).status == 403
    assert asked.get(site.url, headers={"Origin": "http://evil.example"}).status == 403
    assert asked.get(f"{site.url}runs/..%2f..%2fetc%2fpasswd").status == 404
    assert asked.get(f"{site.url}gradio_api/file=/etc/passwd").status in (403, 404)
    here = Path(__file__).resolve()
    assert asked.get(f"{site.url}gradio_api/file={here}").status in (403, 404)


def test_a_phone_sees_the_page_without_scrolling_sideways(browser: Any, site: Site) -> None:
    phone = browser.new_page(viewport={"width": 375, "height": 800})
    phone.goto(site.url)
    phone.wait_for_selector("#start")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    phone.close()
