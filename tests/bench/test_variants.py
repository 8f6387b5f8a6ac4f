"""Variants and baselines: each differs from the preset in what its name says, and in nothing else."""

from __future__ import annotations

import shutil

import pytest

from refcore import checkpoints
from refcore.checkpoints import digest
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml, override
from refcore.errors import RefcoreError
from refcore_bench import variants
from refcore_bench.labels import ORACLE
from refcore_bench.tasks import playground_baselines
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.variants import variant_from_text

PRESET = variant_from_text("playground")


def changed(variant):
    """Top-level fields of an inversion's settings that are not the preset's."""
    return {field for field, value in variant.settings.items() if value != PRESET.settings[field]}


def test_every_baseline_is_there_and_is_a_variant_of_its_own():
    made = [variant_from_text(name) for name in playground_baselines.names()]
    assert [variant.name for variant in made] == playground_baselines.names()
    assert len({variant.hash for variant in made}) == len(made)
    assert {"sampling-3", "sampling-7.5", "sampling-30", "turbo", "best-of-n", "sds-alone", "no-prior", "pixels"} <= {
        variant.name for variant in made
    }


def test_quick_is_the_preset_beside_two_of_its_baselines():
    assert PLAYGROUND.quick()[:2] == ["playground", "sampling-7.5"]
    assert len(set(PLAYGROUND.quick()) & set(playground_baselines.names())) == 3


def test_one_referee_alone_keeps_everything_else():
    labels = RunConfig.from_settings(presets.get("playground").settings).referee_labels
    for i, label in enumerate(labels):
        alone = variant_from_text(f"{label}-alone")
        assert changed(alone) == {"referees"}
        (kept,) = alone.settings["referees"]
        assert {**kept, "label": None} == {**PRESET.settings["referees"][i], "label": None}
        assert [scorer.label for scorer in alone.optimised] == [label]


def test_sds_alone_has_no_referee_and_the_presets_sds():
    alone = variant_from_text("sds-alone")
    assert alone.settings["referees"] == []
    assert alone.settings["priors"] == [p for p in PRESET.settings["priors"] if p["name"] == "sds"]
    assert changed(alone) <= {"referees", "priors", "combine", "candidates", "early_stop", "output", "init"}
    assert not alone.settings["init"].get("rounds")  # nobody is there to choose
    assert not alone.optimised


def test_no_prior_keeps_the_referees():
    without = variant_from_text("no-prior")
    assert without.settings["priors"] == []
    assert without.settings["referees"] == PRESET.settings["referees"]
    assert changed(without) <= {"priors", "combine", "init"}


def test_pixels_change_the_canvas_alone():
    on_pixels = variant_from_text("pixels")
    assert on_pixels.settings["canvas"]["name"] == "pixel"
    assert on_pixels.settings["size"] == 64
    assert changed(on_pixels) <= {"canvas", "size", "init"}


def test_samplings_differ_in_guidance_alone():
    for scale in (3.0, 7.5, 30.0):
        variant = variant_from_text(f"sampling-{scale:g}")
        assert variant.method == "sampling"
        assert (variant.settings["guidance"], variant.settings["steps"], variant.settings["choose"]) == (
            scale,
            50,
            False,
        )
        assert not variant.optimised


def test_best_of_n_ranks_by_the_presets_referees_and_may_spend_what_the_preset_spends():
    best = variant_from_text("best-of-n")
    assert {scorer.identity for scorer in best.optimised} == {scorer.identity for scorer in PRESET.optimised}
    assert best.settings["budget"] == PRESET.settings
    start = PRESET.settings["init"]
    assert (best.settings["steps"], best.settings["guidance"]) == (start["steps"], start["guidance"])
    assert variant_from_text("best-of-n=best-of-n,budget.steps=77").settings["budget"]["steps"] == 77


def test_baselines_follow_the_preset_when_it_changes(monkeypatch, tmp_path):
    settings = override(
        presets.get("playground").settings,
        ["steps=77", "referees.2={name: clip, label: third, config: {model: 'playground:clip'}}"],
    )
    monkeypatch.setattr(variants.presets, "get", lambda name: presets.Preset(name, dump_yaml(settings)))
    assert "third-alone" in playground_baselines.names()
    assert variant_from_text("clip-alone").settings["steps"] == 77
    assert variant_from_text("best-of-n").settings["budget"]["steps"] == 77


def test_a_start_from_a_sample_goes_where_there_is_nothing_to_sample():
    settings = override(presets.get("playground").settings, ["init=sample"])
    made = playground_baselines.inversions(settings)
    assert "init" not in made["no-prior"](settings)
    assert "init" not in made["pixels"](settings)
    assert made["sds-alone"](settings)["init"] == "sample"


def test_overrides_reach_presets_baselines_and_files(tmp_path):
    assert variant_from_text("a=playground,steps=77,ema.restarts=[1, 2]").settings["ema"]["restarts"] == [1, 2]
    assert variant_from_text("a=sds-alone,steps=77").settings["steps"] == 77
    assert variant_from_text("a=sampling-3,steps=5").settings["steps"] == 5
    file = tmp_path / "mine.yaml"
    file.write_text(presets.get("playground").text)
    assert variant_from_text(f"a={file},steps=77").settings["steps"] == 77


def test_the_hash_is_of_what_is_done_and_not_of_the_name():
    assert variant_from_text("other=playground").hash == PRESET.hash
    assert variant_from_text("other=playground,steps=77").hash != PRESET.hash


def test_the_hash_is_of_the_weights_too(monkeypatch, tmp_path):
    before = variant_from_text("clip-alone")
    shutil.copytree(checkpoints.zoo(), tmp_path / "zoo")
    (tmp_path / "zoo" / checkpoints.HASHES).unlink()  # as in another release, whose weights are others
    (weights,) = (tmp_path / "zoo" / "clip").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(checkpoints, "zoo", lambda: tmp_path / "zoo")
    after = variant_from_text("clip-alone")
    assert after.checkpoints["playground:clip"] != before.checkpoints["playground:clip"]
    assert after.checkpoints["playground:blip2"] == before.checkpoints["playground:blip2"]
    assert after.hash != before.hash
    assert "checkpoints.playground:clip" in after.difference(before)


def test_a_checkpoints_hash_sees_names_and_contents(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x").write_text("1")
    first = digest(folder)
    (folder / "x").rename(folder / "y")
    assert digest(folder) != first


def test_a_variant_read_back_is_the_same():
    for name in ("playground", "best-of-n"):
        variant = variant_from_text(name)
        again = variants.Variant.from_dict(variant.to_dict())
        assert (again, again.hash) == (variant, variant.hash)


def test_a_referee_of_ones_own_is_scored_beside_the_panel():
    text = "mine=playground,referees.0.prompt=a drawing of {prompt}"
    mine = variant_from_text(text)
    assert sum(scorer.panel for scorer in mine.scorers) == len(PLAYGROUND.panel())
    assert {scorer.label for scorer in mine.scorers} == {"clip", "blip2", "owlv2", "panel-clip"}
    assert [scorer.label for scorer in mine.optimised] == ["clip", "blip2", "owlv2"]


def test_what_must_not_be_seen_is_not_what_accepts():
    unwanted = "{name: clip, label: blurry, prompt: blurry, wanted: false, config: {model: 'playground:clip'}}"
    mine = variant_from_text("mine=playground,referees.2=" + unwanted)
    assert "blurry" not in {scorer.label for scorer in mine.scorers}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("playgrund", 'unknown variant "playgrund"; known: .*did you mean "playground"'),
        ("playground,steps=2", "is not a valid name"),
        ("a=playground,stepz=2", "stepz: unknown field"),
        ("a=sampling-3,budget.steps=2", "only a variant that chooses among samples has a field budget"),
        ("a=sampling-3,steps=0", "steps"),
        ("a=none.yaml", 'cannot read the config file "none.yaml"'),
    ],
)
def test_what_is_wrong_is_told(text, told):
    with pytest.raises(RefcoreError, match=told):
        variant_from_text(text)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("playground", [ORACLE]),
        ("owlv2-alone", [ORACLE]),
        ("best-of-n", [ORACLE]),
        ("sampling-3", []),
        ("blip2-alone", []),
    ],
)
def test_a_variant_is_labelled_by_what_makes_or_chooses_its_images(name, told):
    """Not by what only scores them: the panel, which every variant has, asks an oracle."""
    variant = variant_from_text(name)
    assert any("grammar" in str(scorer.term) for scorer in variant.scorers)
    assert variant.labels == told
