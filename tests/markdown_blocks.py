"""The code blocks of a Markdown page in a reader's order, and a runner for each kind.

Conventions of the pages, all visible in their source:

- Blocks in python, sh and yaml run, in order, in one folder and one namespace a page; text, toml and json are only
  shown. YAML is read as part of a run's config, without loading a model.
- A block with a title, ```` ```yaml title="mine.yaml" ````, is written to that file instead.
- `<!-- slow: why -->` before a block: it runs with the slow tests only.
- `<!-- not-run: why -->` before a block: it never runs here. Before the first heading of the second level: the page.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sybil import Document
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

from refcore.cli import main
from refcore.config.run import RunConfig
from refcore.config.settings import Settings
from refcore.engine.build import resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
RUN = ("python", "sh", "yaml")
SHOWN = ("text", "toml", "json")
LEAST: Settings = {"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}]}
"""The config that completes a fragment of one."""
_FENCE = FencedCodeBlockLexer(".+", {"language": "info", "source": "source"})
_DIRECTIVE = DirectiveInHTMLCommentLexer("(?:slow|not-run)", ".*?")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    """Line number of its first line of code."""
    language: str
    source: str
    title: str | None = None
    slow: str | None = None
    """Why it is slow; None if it is not."""
    not_run: str | None = None
    """Why it is not run; None if it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    document = Document(page.read_text("utf-8"), str(page))
    first_heading = document.text.find("\n## ")
    found: list[Block] = []
    marks: dict[str, str] = {}
    whole: dict[str, str] = {}
    for region in sorted([*_FENCE(document), *_DIRECTIVE(document)], key=lambda region: region.start):
        lexemes = region.lexemes
        if "info" not in lexemes:
            mark = {lexemes["directive"]: lexemes["arguments"].strip()}
            (whole if region.start < first_heading and lexemes["directive"] == "not-run" else marks).update(mark)
            continue
        language, *attributes = shlex.split(lexemes["info"])
        named = dict(attribute.partition("=")[::2] for attribute in attributes)
        marks = {**whole, **marks}
        found.append(
            Block(
                page,
                document.text.count("\n", 0, region.start) + 2,
                language,
                str(lexemes["source"]),
                named.get("title"),
                marks.get("slow"),
                marks.get("not-run"),
            )
        )
        marks = {}
    return found


class Reader:
    """A reader who runs the blocks of a page in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "page"}

    def do(self, block: Block) -> None:
        """Runs a block; errors name its place in the page."""
        try:
            if block.title is not None:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.source, "utf-8")
            elif block.language in RUN:
                getattr(self, f"_{block.language}")(block)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block}: {type(error).__name__}: {error}\n\n{block.source}") from error

    def _python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.source, str(block.page), "exec")
        exec(code, self.namespace)

    def _yaml(self, block: Block) -> None:
        resolve(RunConfig.from_settings({**LEAST, **yaml.safe_load(block.source)}))

    def _sh(self, block: Block) -> None:
        """Runs refcore's commands in this process, where the libraries are loaded, and all others in a shell."""
        commands = [shlex.split(line, comments=True) for line in _lines(block.source)]
        commands = [words for words in commands if words]
        if all(words[0] == "refcore" for words in commands) and not set(block.source) & set("|><;$&"):
            for words in commands:
                _call(words[1:])
            return
        scripts = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        shell = ["bash", "-euo", "pipefail", "-c", block.source]
        done = subprocess.run(shell, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"


def _lines(source: str) -> Iterator[str]:
    """The commands of a block, with lines that end in a backslash joined."""
    yield from source.replace("\\\n", " ").splitlines()


def _call(argv: list[str]) -> None:
    try:
        main(argv)
    except SystemExit as left:
        if left.code:
            raise AssertionError(f"`refcore {shlex.join(argv)}` ended with status {left.code}") from left
