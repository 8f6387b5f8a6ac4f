"""`refcore presets`: the presets of refcore and of installed packages."""

from __future__ import annotations

import json

from refcore import registry
from refcore.config import presets


def test_presets_are_listed_with_their_summaries(refcore):
    listed = json.loads(refcore("presets", "--json").out)
    assert [p["name"] for p in listed] == presets.names()
    assert [p["name"] for p in listed if p["default"]] == ["playground"]


def test_presets_are_listed_with_their_distribution_and_the_error_of_a_broken_one(refcore, tmp_path, monkeypatch):
    source = tmp_path / "poster.yaml"
    source.write_text("# A poster.\nsteps: 3\n")
    entry = registry.Entry("presets", "poster", source, "", "refcore_poster", "1.2.3")
    gone = registry.Entry("presets", "gone", tmp_path / "gone.yaml", "", "refcore_poster", "1.2.3")
    monkeypatch.setattr(presets.registry, "presets", lambda: {"poster": [entry], "gone": [gone]})
    listed = {row["name"]: row for row in json.loads(refcore("presets", "--json").out)}
    assert (listed["poster"]["distribution"], listed["poster"]["version"]) == ("refcore_poster", "1.2.3")
    assert listed["poster"]["summary"] == "A poster."
    assert "No such file" in listed["gone"]["error"]
    assert listed["playground"]["distribution"] == "refcore"
    assert "refcore_poster" in refcore("presets").out
