"""`refcore plugins`, its pages, and folders of plugin files."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from textwrap import dedent

import pytest

from refcore import registry
from refcore.folder import LOCAL_FOLDER

SHADE = '''
    """A plugin file."""
    from pydantic import Field
    from refcore.contracts.canvas import Canvas
    from refcore.plugin import PluginConfig

    class GreyShade(Canvas):
        """One grey.

        For tests of folders.
        """

        class Config(PluginConfig):
            level: float = Field(0.5, ge=0, le=1, description="Of the grey.")

        def load(self, device, dtype, size=None):
            self.device, self.size = device, size or (8, 8)

        def init(self, rng):
            return {"grey": self.config.level + 0 * rng.normal(1, 1, 1)}

        def decode(self, params, at):
            return params["grey"].clamp(0, 1).expand(-1, 3, *self.size)
'''


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    (path / "shade.py").write_text(dedent(SHADE))
    yield path
    if "grey_shade" in registry.names("canvases"):
        registry.unregister("canvases", "grey_shade")


def test_the_list_has_name_kind_version_distribution_and_summary(refcore):
    result = refcore("plugins")
    assert result.out.split("\n")[0].split() == ["name", "kind", "version", "distribution", "summary"]
    row = rf"^clip +referee +{re.escape(version('refcore'))} +refcore +CLIP similarity"
    assert re.search(row, result.out, re.MULTILINE)


def test_a_page_describes_a_plugin_and_its_usage(refcore):
    result = refcore("plugins", "show", "clip").out
    for part in (
        f"clip  referee, from refcore {version('refcore')}",
        "score unit",
        "cosine or",
        "absent_below",
        "- name: clip",
    ):
        assert part in result, part
    page = json.loads(refcore("plugins", "show", "blip2", "--json").out)
    assert page["conversions"] == ["blip2-itg"]
    assert page["class"] == "refcore_plugins.referees.blip2.referee:Blip2"
    fields = {field["name"]: field for field in page["fields"]}
    assert (fields["itm"]["type"], fields["itm"]["default"]) == ("float, >= 0", 1.0)
    assert (fields["itg_head"]["type"], fields["itg_head"]["default"]) == ("str or null", None)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_shipped_plugin_has_a_page_with_described_settings(kind):
    from refcore.cli.plugins import page

    for name in registry.names(kind):
        if registry.entry(kind, name).distribution == "refcore":
            found = page(kind, name)
            assert found["summary"], name
            assert found["description"], name
            assert all(field["description"] for field in found["fields"]), name
            assert not [field["type"] for field in found["fields"] if "Annotated" in field["type"]], name


def test_an_unknown_page_names_the_nearest_and_a_broken_one_its_error(refcore):
    assert 'unknown plugin "clp"' in refcore("plugins", "show", "clp").error
    registry.register("priors", "broken", "refcore_nonesuch.module:Prior", "Broken")
    try:
        assert "No module named 'refcore_nonesuch'" in refcore("plugins", "show", "broken").error
    finally:
        registry.unregister("priors", "broken")


def test_a_folder_is_read_when_it_is_named(refcore, folder):
    rows = {row["name"]: row for row in json.loads(refcore("plugins", "--plugins-dir", folder, "--json").out)}
    assert rows["grey_shade"]["distribution"] == "mine/shade.py"
    assert "GreyShade" in refcore("plugins", "show", "grey_shade", "--plugins-dir", folder).out


def test_a_run_uses_the_plugins_of_a_folder(refcore, folder, config_file):
    result = refcore(
        "invert", "red", "--config", config_file, "--plugins-dir", folder, "--set", "canvas.name=grey_shade"
    )
    assert result.status == 0, result.err


def test_a_missing_folder_is_refused(refcore, tmp_path):
    assert "does not exist" in refcore("plugins", "--plugins-dir", tmp_path / "none").error


def test_the_local_folder_is_read_only_on_request(refcore_process, tmp_path):
    local = tmp_path / LOCAL_FOLDER
    local.mkdir()
    (local / "shade.py").write_text(dedent(SHADE))
    assert "grey_shade" not in refcore_process("plugins").out
    assert "grey_shade" in refcore_process("plugins", "--local-plugins").out


def test_the_local_folder_must_exist(refcore):
    assert f'there is no folder "{LOCAL_FOLDER}" here' in refcore("plugins", "--local-plugins").error


def test_listing_plugins_and_presets_imports_none(refcore_process):
    for command in ("plugins", "presets"):
        result = refcore_process(
            command,
            before="""
            import atexit, sys
            shipped = lambda m: m.startswith("refcore_plugins.") and m != "refcore_plugins.registration"
            atexit.register(lambda: print(*filter(shipped, sys.modules), file=sys.stderr))
            """,
        )
        assert (result.status, result.err.strip()) == (0, "")
