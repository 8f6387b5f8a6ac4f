"""Pages that mkdocs makes from what is installed: each plugin, all presets, the fields of a config, the command line.

They are not written to the repository, so they cannot go stale: a plugin or preset that ships with refcore has its page
in the next build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.testing import CliRunner

from refcore import registry
from refcore.cli import describe
from refcore.cli.app import app
from refcore.cli.plugins import page
from refcore.config import presets

SHIPPED = "refcore"
"""The distribution whose plugins get pages."""
COMMANDS = ("judges", "metrics", "trackers")
"""Kinds of plugins that are named on the command line, not in a config."""
CHAPTERS = "Background"
"""The section of the navigation that a new page of docs/ joins."""
PLUGINS, PRESETS, COMMANDS, FIELDS = "plugins", "presets.md", "commands.md", "fields.md"
EXAMINED = "results/examination.md"
"""The page with a section for each shipped referee."""
PLAIN = {"COLUMNS": "110", "TERMINAL_WIDTH": "110", "NO_COLOR": "1", "TERM": "dumb"}
"""Environment variables that make help plain text."""
STYLE = """\
.md-grid { max-width: 76rem; }
.md-typeset p, .md-typeset li { max-width: 42rem; }
.md-typeset p:has(> a > img) { max-width: none; }
.md-typeset table:not([class]) code { word-break: normal; overflow-wrap: normal; }
.md-typeset .output { margin: 1em 0; overflow-x: auto; }
"""
"""Room for commands, tables and pictures on a wide screen, readable columns of text, and no name broken in a table."""
_MARKDOWN = str.maketrans({"|": "\\|", "<": "&lt;", "\n": " "})


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the plugins' pages where the navigation says "Plugins", and new chapters after the others."""
    listed = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    for section in config.nav or []:
        for title, entries in section.items():
            if title == CHAPTERS:
                entries += [
                    {_heading(path): path.name}
                    for path in sorted(Path(config.docs_dir).glob("*.md"))
                    if path.name not in listed
                ]
            if isinstance(entries, list):
                section[title] = [
                    {"Plugins": _navigation()} if entry == {"Plugins": f"{PLUGINS}/index.md"} else entry
                    for entry in entries
                ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages and the style sheet that mkdocs.yml names."""
    files.append(File.generated(config, "style.css", content=STYLE))
    for path, text in pages(Path(config.docs_dir)).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keeps a number and its "%" on one line, and lets a reader open a picture in its own size."""
    code = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
    text = [part if code.match(part) else re.sub(r"(\d) %", r"\1&nbsp;%", part) for part in code.split(html)]
    return re.sub(r'<p>(<img [^>]*src="([^"]+)"[^>]*>)</p>', r'<p><a href="\2">\1</a></p>', "".join(text))


def pages(docs: Path) -> dict[str, str]:
    """Path in the site's sources -> Markdown."""
    homes = _homes(docs)
    found = {f"{PLUGINS}/index.md": _index(), PRESETS: _presets(), COMMANDS: _commands(), FIELDS: _fields()}
    for kind, name in _shipped():
        found[_path(kind, name)] = _plugin(kind, name, docs, homes.get(name))
    return found


def _shipped() -> list[tuple[registry.Kind, str]]:
    return [
        (kind, name)
        for kind in registry.KINDS
        for name in registry.names(kind)
        if registry.entry(kind, name).distribution == SHIPPED
    ]


def _path(kind: registry.Kind, name: str) -> str:
    return f"{PLUGINS}/{kind}/{name}.md"


def _navigation() -> list[Any]:
    sections: dict[str, list[Any]] = {}
    for kind, name in _shipped():
        sections.setdefault(kind.capitalize(), []).append({name: _path(kind, name)})
    return [{"All plugins": f"{PLUGINS}/index.md"}, *({title: entries} for title, entries in sections.items())]


def _index() -> str:
    lines = [
        "# Plugins",
        "",
        "The plugins that ship with refcore, as `refcore plugins` lists them. Each page is made from its class.",
    ]
    kinds = dict.fromkeys(kind for kind, _ in _shipped())
    for kind in kinds:
        lines += ["", f"## {kind.capitalize()}", "", "| name | summary |", "| --- | --- |"]
        for other, name in _shipped():
            if other == kind:
                lines.append(f"| [`{name}`]({kind}/{name}.md) | {_cell(registry.entry(kind, name).summary)} |")
    return "\n".join(lines) + "\n"


def _plugin(kind: registry.Kind, name: str, docs: Path, home: str | None) -> str:
    shown = page(kind, name)
    lines = [f"# `{name}`", "", f"*{registry.SINGULAR[kind].capitalize()}.* {shown['summary']}."]
    if shown["description"]:
        lines += ["", shown["description"]]
    if home:
        lines += [
            "",
            f"Equations, sources and measurements: [{_heading(docs / home.partition('#')[0])}](../../{home}).",
        ]
    if kind == "referees":
        lines += ["", f"[What it was examined on](../../{EXAMINED}#{name})."]
    if shown["fields"]:
        lines += ["", "## Settings", "", "| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
        for field in shown["fields"]:
            default = "*required*" if field["default"] == "required" else f"`{_plain(field['default'])}`"
            lines.append(f"| `{field['name']}` | {_cell(field['type'])} | {default} | {_cell(field['description'])} |")
    where, language = ("On the command line", "sh") if kind in COMMANDS else ("In a config", "yaml")
    lines += [
        "",
        f"## {where}",
        "",
        f"```{language}",
        shown["usage"],
        "```",
        "",
        "## Facts",
        "",
        "| fact | value |",
        "| --- | --- |",
    ]
    facts = {"class": f"`{shown['class']}`", **shown["facts"]}
    if shown["conversions"]:
        facts["conversions"] = ", ".join(f"`refcore convert {conversion}`" for conversion in shown["conversions"])
    lines += [f"| {key.replace('_', ' ')} | {_cell(_plain(value))} |" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def _heading(path: Path) -> str:
    return path.read_text("utf-8").partition("\n")[0].lstrip("# ")


def _homes(docs: Path) -> dict[str, str]:
    """Name of a plugin -> the section of a hand-written page with the name in its heading: `referees.md#clip`."""
    found: dict[str, str] = {}
    for path in sorted(docs.glob("*.md")):
        for heading in re.findall(r"^## (.*`.*)$", path.read_text("utf-8"), re.MULTILINE):
            anchor = slugify(heading.replace("`", ""), "-")
            for name in re.findall(r"`([^`]+)`", heading):
                found.setdefault(name, f"{path.name}#{anchor}")
    return found


def _presets() -> str:
    lines = ["# Presets", "", "As `refcore config show --preset NAME` prints them, before defaults are filled in."]
    for name in presets.names():
        shown = presets.get(name)
        default = " (the default)" if name == presets.DEFAULT else ""
        lines += ["", f"## `{name}`{default}", "", "```yaml", shown.text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _fields() -> str:
    lines = [
        "# The fields of a config",
        "",
        "Every field of a run, as `refcore config describe` prints them. `N` stands for an index, a label or a name: "
        "`referees.N.weight` is `referees.0.weight` or `referees.clip.weight` on the command line. Null is the default "
        "of a field that cannot be null itself. The fields under `config` are the plugin's own, on [its page]"
        f"({PLUGINS}/index.md).",
        "",
        "A file may begin with `extends: NAME`, a preset or a YAML file relative to it, over which the rest is laid: "
        "mappings field by field, all else replaced, and a mapping that names another plugin with all its fields.",
    ]
    for part in describe.parts():
        lines += _part(part, f"`{part.path}`" if part.path else "The config", describe.EXAMPLES.get(part.path))
        for row in part.rows:
            if not part.path and row.path in describe.EXAMPLES:
                lines += ["", f"`{row.path}`, for example:", "", "```yaml", describe.EXAMPLES[row.path], "```"]
    lines += ["", "## Schedules", "", "A number that changes over the run. Steps are counted from 0."]
    for part in describe.schedules():
        lines += _part(part, f"`{part.path}`", describe.KIND_EXAMPLES.get(part.path))
    return "\n".join(lines) + "\n"


def _part(part: describe.Part, title: str, example: str | None) -> list[str]:
    """A heading, what it is about, an example, and a table of fields."""
    name = part.title.removeprefix(part.path)
    lines = ["", f"### {title}{name}", "", part.about, ""]
    if example and part.path and "." not in part.path:
        lines += ["```yaml", example, "```", ""]
    lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| `{row.path}` | {_cell(row.type)} | `{_cell(row.default)}` | {_cell(row.meaning)} |" for row in part.rows
    ]


def _commands() -> str:
    statuses = "0 success, 1 failure, 2 wrong usage, 130 interrupted, 143 ended by SIGTERM"
    lines = ["# The command line", "", f"Exit status: {statuses}."]
    for words in _walk(typer.main.get_command(app), ()):
        shown = CliRunner().invoke(app, [*words, "--help"], prog_name="refcore", env=PLAIN)
        assert shown.exit_code == 0, shown.output
        text = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        lines += ["", f"## `{' '.join(['refcore', *words])}`", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def _walk(command: Any, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The words of every command, and of every group that does something by itself."""
    inner = getattr(command, "commands", {})
    own = [] if inner and not command.invoke_without_command else [words]
    return own + [found for name, child in inner.items() for found in _walk(child, (*words, name))]


def _cell(text: object) -> str:
    return str(text).translate(_MARKDOWN)


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "yes", False: "no"}[value]
    return str(value)
