"""The documentation site builds strictly, and has a page for every plugin that ships, with all of its settings."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from refcore import registry
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.schedule import KINDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks_pages", ROOT / "docs" / "hooks" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(hook: ModuleType) -> dict[str, str]:
    return hook.pages(ROOT / "docs")


def test_every_shipped_plugin_has_a_page_with_all_of_its_settings(pages: dict[str, str]) -> None:
    shipped = [row for row in registry.rows() if row.distribution == "refcore" and row.kind in registry.KINDS]
    assert len(shipped) > 30
    for row in shipped:
        text = pages[f"plugins/{row.kind}/{row.name}.md"]
        fields = registry.get(row.kind, row.name).Config.model_fields
        assert re.findall(r"^\| `(\w+)` \| .* \| .* \| ", text, re.MULTILINE) == list(fields), row.name
        for info in fields.values():
            assert (info.description or "").replace("|", "\\|").replace("<", "&lt;") in text
        assert f"]({row.kind}/{row.name}.md)" in pages["plugins/index.md"]


def test_a_plugin_leads_to_the_section_about_it(pages: dict[str, str]) -> None:
    assert "](../../referees.md#clip)" in pages["plugins/referees/clip.md"]
    assert "](../../priors.md#csd-nfsd-sdi-vsd)" in pages["plugins/priors/nfsd.md"]


def test_a_referee_leads_to_what_it_was_examined_on(pages: dict[str, str]) -> None:
    examined = (ROOT / "docs" / "results" / "examination.md").read_text("utf-8")
    referees = [path for path in pages if path.startswith("plugins/referees/")]
    assert len(referees) >= 15
    for path in referees:
        name = Path(path).stem
        assert f"](../../results/examination.md#{name})" in pages[path]
        assert f"\n## `{name}`\n" in examined


def test_presets_and_commands_are_all_there(pages: dict[str, str]) -> None:
    for name in presets.names():
        assert presets.get(name).text.strip() in pages["presets.md"]
    for command in ("invert", "config show", "probe referee", "bench playground", "plugins show"):
        assert f"\n## `refcore {command}`\n" in pages["commands.md"], command
    assert "--prompts-seed" in pages["commands.md"]


@pytest.mark.fault("4.5")
def test_every_field_of_a_config_stands_on_a_page_with_every_kind_of_schedule(pages: dict[str, str]) -> None:
    text = pages["fields.md"]
    for field in ("early_stop.min_delta", "referees.N.satisfied_at.width", "combine.iterations", "piecewise.pieces"):
        assert f"| `{field}` |" in text
    for kind in KINDS:
        assert f"### `{kind}`\n" in text
        assert f"{{kind: {kind}" in text
    for name in RunConfig.model_fields:
        assert f"| `{name}` |" in text


def test_docs_holds_pages_notebooks_pictures_and_hooks_only() -> None:
    """mkdocs publishes every other file as it is."""
    others = [
        path.relative_to(ROOT / "docs")
        for path in (ROOT / "docs").rglob("*")
        if path.is_file() and path.suffix not in {".md", ".ipynb", ".png", ".jpg"} and "__pycache__" not in path.parts
    ]
    assert sorted(others) == [Path("hooks/notebooks.py"), Path("hooks/pages.py")]


def test_a_number_keeps_its_percent_sign_except_in_code(hook: ModuleType) -> None:
    html = "<p>24 % and 5 points</p><pre>24 % 5</pre><td>0 %</td>"
    assert hook.on_page_content(html, None, None, None) == (
        "<p>24&nbsp;% and 5 points</p><pre>24 % 5</pre><td>0&nbsp;%</td>"
    )


def test_a_picture_opens_in_its_own_size(hook: ModuleType) -> None:
    picture = '<img alt="a" src="images/a.png" />'
    assert hook.on_page_content(f"<p>{picture}</p>", None, None, None) == f'<p><a href="images/a.png">{picture}</a></p>'


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path, pages: dict[str, str]) -> None:
    """mkdocs checks links and anchors of every page. With `--quiet` it would neither print nor count its warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    for path in pages:
        assert (tmp_path / path.replace("index.md", "").removesuffix(".md") / "index.html").is_file(), path
    assert "Register" in (tmp_path / "api" / "index.html").read_text()
    guide = (tmp_path / "guides" / "notebook" / "index.html").read_text()
    assert 'href="../../notebooks/first-inversion/"' in guide
    loaded = re.compile(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//""")
    notebook = (tmp_path / "notebooks" / "first-inversion" / "index.html").read_text()
    assert not loaded.search(notebook)
    assert "The run is finished" in notebook
