"""`refcore config describe`: every field with its type, range, default and meaning, and examples that are configs."""

from __future__ import annotations

import json

import pytest
import yaml

from refcore.cli import describe
from refcore.config.run import RunConfig
from refcore.config.schedule import KINDS

BASE = {"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}]}


@pytest.mark.fault("4.5")
@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("min_delta", ["early_stop.min_delta", "number, >= 0", "0.0", "counts as an improvement", "patience: 3"]),
        ("hypot", ["root of the sum of squares", "list of number or schedule", "{kind: hypot"]),
        ("piecewise", ["Pieces in order of `until`", "{kind: piecewise"]),
        ("referees.clip.weight", ["referees.N.weight", "number or schedule", "1.0"]),
        ("referees.0.weight", ["referees.N.weight"]),
        ("referees.weight", ["referees.N.weight"]),
        ("views.main.hardest", ["views.N.hardest", "integer or null, >= 1"]),
        ("combine", ["norm_balance", "nash_mtl", "combine.c"]),
        ("optimizer", ["optimizer.betas", "[number, number]", "[0.9, 0.999]", "adamw"]),
        (None, ["seeds", "list of integer >= 0", "early_stop", "warmup_cosine"]),
    ],
)
def test_a_field_is_described_by_any_of_its_names(refcore, monkeypatch, field, told):
    monkeypatch.setenv("COLUMNS", "300")
    said = refcore("config", "describe", *([field] if field else []))
    assert said.status == 0
    for words in told:
        assert words in said.out, words


@pytest.mark.fault("4.5")
def test_an_unknown_field_names_the_nearest(refcore):
    assert 'did you mean "min_delta"?' in refcore("config", "describe", "min_dleta").error
    assert 'did you mean "optimizer.lr"?' in refcore("config", "describe", "optimiser.lr").error


@pytest.mark.fault("4.5")
def test_as_json_every_field_is_there_once_by_its_path(refcore):
    rows = json.loads(refcore("config", "describe", "--json").out)
    alternatives = ("combine", "init")  # one of several mappings, whose fields share names
    paths = [row["path"] for row in rows if row["section"] not in alternatives]
    assert len(paths) == len(set(paths)) > 80
    paths += [row["path"] for row in rows if row["section"] == "init"]
    expected = {"witnesses.N.coarse", "candidates.keep", "init.rounds", "init.strength", "views.N.augment.N.name"}
    assert expected <= set(paths)


@pytest.mark.fault("4.5")
def test_every_field_has_a_type_that_yaml_has_and_a_meaning():
    for part in [*describe.parts(), *describe.schedules()]:
        assert part.about, part.title
        for row in part.rows:
            assert row.meaning, row.path
            assert not {"typing", "Annotated", "class", "None"} & set(row.type.replace("[", " ").split()), row


@pytest.mark.fault("4.5")
@pytest.mark.parametrize("name", describe.EXAMPLES)
def test_an_example_is_a_config(name):
    assert name in RunConfig.model_fields
    RunConfig.from_settings({**BASE, **yaml.safe_load(describe.EXAMPLES[name])})


@pytest.mark.fault("4.5")
def test_every_kind_of_schedule_has_an_example():
    assert set(describe.KIND_EXAMPLES) == set(KINDS)
    for name, text in describe.KIND_EXAMPLES.items():
        config = RunConfig.from_settings({**BASE, "noise": yaml.safe_load(text)})
        assert config.noise.kind == name
