"""Every code block of README, docs and the examples' READMEs runs, or says in its source why it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from markdown_blocks import PAGES, ROOT, RUN, SHOWN, Block, Reader, blocks

from refcore import registry

BLOCKS = {page: blocks(page) for page in PAGES}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runnable(page: Path) -> list[Block]:
    return [block for block in BLOCKS[page] if block.not_run is None and (block.title or block.language in RUN)]


WITH_BLOCKS = [page for page in PAGES if any(not block.slow for block in runnable(page))]
WITH_SLOW_BLOCKS = [page for page in PAGES if any(block.slow for block in runnable(page))]


def indented_code(text: str) -> list[str]:
    """First lines of blocks that are code by their indentation alone."""
    found, before, blank, fenced = [], "", False, False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and blank and line.startswith("    ") and not re.match(r"([-*]|\d+\.) |  ", before):
            found.append(line)
        blank = not line.strip()
        before = before if blank else line
    return found


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    before = {kind: set(registry.names(kind)) for kind in registry.KINDS}
    yield Reader(tmp_path)
    for kind, names in before.items():
        for new in set(registry.names(kind)) - names:
            registry.unregister(kind, new)


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_the_blocks_of_a_page_run(page: Path, reader: Reader) -> None:
    for block in runnable(page):
        if not block.slow:
            reader.do(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SLOW_BLOCKS, ids=name)
def test_all_blocks_of_a_page_run_with_the_slow_ones(page: Path, reader: Reader) -> None:
    for block in runnable(page):
        reader.do(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_fence_says_its_language_and_code_is_never_only_indented(page: Path) -> None:
    """So that no block escapes the tests unseen."""
    text = page.read_text("utf-8")
    opened = [line for line in text.splitlines() if line.startswith("```")][::2]
    assert [line for line in opened if line == "```"] == [], f"{name(page)}: a fence without a language; text is one"
    assert len(opened) == len([block for block in BLOCKS[page] if block.source])
    assert {block.language for block in BLOCKS[page]} <= {*RUN, *SHOWN}
    assert not indented_code(text), f"{name(page)}: indented code, which no test sees; fence it"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_list_follows_an_empty_line(page: Path) -> None:
    """Without it, the site's Markdown makes one paragraph of the list, where others see a list."""
    before, listed, fenced = "", False, False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        item = re.match(r"([-*]|\d+\.) ", line) is not None
        assert fenced or not item or listed or not before.strip(), f"{name(page)}:{number}: {line}"
        listed = bool(line.strip()) and (listed or item)
        before = line


def test_marks_are_read_and_titles_and_places(tmp_path: Path) -> None:
    written = tmp_path / "page.md"
    written.write_text(
        "# T\n\n## A\n\n```sh\nfalse\n```\n\n<!-- slow: an image -->\n```python\n1 / 0\n```\n\n"
        '<!-- not-run: a download -->\n```yaml title="a/b.yaml"\nx: 1\n```\n\n```text\nno\n```\n'
    )
    found = [(b.language, b.line, b.title, b.slow, b.not_run) for b in blocks(written)]
    assert found == [
        ("sh", 6, None, None, None),
        ("python", 11, None, "an image", None),
        ("yaml", 16, "a/b.yaml", None, "a download"),
        ("text", 20, None, None, None),
    ]


@pytest.mark.parametrize(
    ("language", "source", "told"),
    [
        ("sh", "refcore plugins show clp", "status 1"),
        ("sh", "true; false", "exit status 1"),
        ("python", "1 / 0", "division by zero"),
        ("yaml", "referees: [{name: clip, weigth: 2}]", "weigth"),
        ("yaml", "referees: [{name: clip, config: {modle: x}}]", "modle"),
    ],
)
def test_a_block_that_is_wrong_fails(reader: Reader, language: str, source: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        reader.do(Block(ROOT / "README.md", 1, language, source))


@pytest.mark.fault("4.13")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_link_leads_to_a_file_of_the_repository(page: Path) -> None:
    """Pages that only a build makes are dead links where the repository is read."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.fault("4.10")
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_what_an_installation_takes_is_said_with_the_line_for_cpus(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert "6.2 GB and about five minutes" in " ".join(text.split())
    assert "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu" in text


@pytest.mark.fault("4.11")
def test_the_guide_to_checkpoints_has_what_plugins_read_and_addresses_of_the_rest() -> None:
    text = " ".join((ROOT / "docs/guides/checkpoints.md").read_text("utf-8").replace("\\\n", " ").split())
    model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    wanted = registry.create("priors", "sds", {"model": model}).downloads()[model].include
    for pattern in wanted:
        assert f"--include {pattern}" in text or f"--include '{pattern}'" in text, pattern
    for words in ("LAVIS/models/BLIP2/blip2_pretrained.pth", "HPS_v2.1_compressed.pt", "ImageReward.pt", "1.97 GB"):
        assert words in text
    for words in ("HF_HOME", "HF_HUB_OFFLINE=1", "stabilityai/sd-turbo", "stabilityai/sdxl-turbo", "~/.cache"):
        assert words in text
