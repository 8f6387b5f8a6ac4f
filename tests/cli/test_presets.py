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


def test_presets_are_grouped_by_what_they_need(refcore):
    listed = {row["name"]: row for row in json.loads(refcore("presets", "--json").out)}
    assert listed["reno"]["year"] == 2024
    assert "stabilityai/sd-turbo" in listed["reno"]["needs"]
    ready, own = refcore("presets").out.split("With models of their own")
    for name, row in listed.items():
        assert (name in ready.split()) == (not row["needs"])
        assert (name in own.split()) == bool(row["needs"])


def test_every_published_system_says_its_paper_its_year_and_its_models():
    for name in presets.names():
        about = presets.get(name).about
        assert (about.year is None) == (not about.paper), name
        assert about.time or about.needs, name
        if name.startswith("playground"):
            assert not about.needs, name
