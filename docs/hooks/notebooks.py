"""Pages of the site from the notebooks of docs/, as they were executed: Markdown, code and outputs, and nothing else.

A page is plain Markdown with HTML, so it has the site's colours by day and by night, and loads nothing from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SUFFIX = ".ipynb"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each notebook, beside the notebook itself, which readers can download."""
    for file in list(files):
        if file.src_uri.endswith(SUFFIX):
            source = Path(str(file.abs_src_path))
            files.append(
                File.generated(config, file.src_uri.removesuffix(SUFFIX) + ".md", content=page(source.name, source))
            )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to a notebook, which other readers of the Markdown follow to the file, to its page."""
    if (files.get_file_from_path(page.file.src_uri.removesuffix(".md") + SUFFIX)) is not None:
        return markdown
    return re.sub(rf"(\]\([\w./-]+){re.escape(SUFFIX)}([#)])", r"\1.md\2", markdown)


def page(name: str, path: Path) -> str:
    """A notebook as Markdown; its title is followed by a link to the file."""
    notebook = json.loads(path.read_text("utf-8"))
    title, *rest = [part for cell in notebook["cells"] for part in _cell(cell)]
    heading, _, text = title.partition("\n")
    link = f"*This page is a notebook with its outputs: [download it]({name}).*"
    return "\n\n".join([heading, link, text.strip(), *rest]) + "\n"


def _cell(cell: Mapping[str, Any]) -> list[str]:
    source = _text(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [f"```python\n{source}\n```", *(_output(output, cell["metadata"]) for output in cell["outputs"])]


def _output(output: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """What a cell printed or showed, in the richest form that needs no script."""
    if output["output_type"] == "stream":
        return f"```text\n{_text(output['text']).rstrip()}\n```"
    data = output["data"]
    if "text/html" in data:
        inside = " ".join(_text(data["text/html"]).split("\n"))
    elif "image/png" in data:
        told = escape(metadata["alt"], quote=True)
        inside = f'<img alt="{told}" src="data:image/png;base64,{_text(data["image/png"]).strip()}">'
    else:
        return f"```text\n{_text(data['text/plain']).rstrip()}\n```"
    return f'<div class="output">{inside}</div>'


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
