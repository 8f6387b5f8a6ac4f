"""`refcore smoothness CONFIG`: a preset or a file, and the mistakes that a command line can have."""

from __future__ import annotations

import json

import pytest


def test_a_config_file_is_probed_and_written(refcore, config_file, tmp_path):
    out = tmp_path / "smoothness.json"
    told = refcore(
        "smoothness", config_file, "--prompt", "red", "--views", "0,2", "--steps", "0,3", "--json", "--out", out
    )
    assert told.status == 0, told.err
    found = json.loads(told.out)
    assert json.loads(out.read_text()) == found
    assert [(p["step"], p["views"]) for p in found["points"]] == [(0, 0), (3, 0), (0, 2), (3, 2)]
    assert found["points"][0]["dimension"] == 3 * 16 * 16
    assert "torch" in found["versions"]


def test_the_table_has_a_row_for_each_setting(refcore, config_file):
    told = refcore(
        "smoothness", config_file, "--prompt", "red", "--prompt", "blue", "--views", "config,1", "--at", "image"
    )
    assert told.status == 0, told.err
    assert "at the image (768 numbers), 2 samples (medians)" in told.out
    assert len([line for line in told.out.splitlines() if line.split()[1:2] in (["config"], ["1"])]) == 4


def test_a_probe_is_of_a_referee_and_smoothness_of_a_run(refcore):
    assert "what a view costs" in " ".join(refcore("probe", "--help").out.split())
    assert "CONFIG" in refcore("smoothness", "--help").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["playgrund"], 'unknown preset or config file "playgrund".*did you mean "playground"'),
        (["playground"], "the config has no prompts; give one with --prompt"),
        (["playground", "--prompt", "a", "--views", "1,x"], '--views is "1,x": "x" is not a number.*or "config"'),
        (["playground", "--prompt", "a", "--at", "latent"], '--at is "latent"; expected params or image'),
        (["playground", "--prompt", "a", "--steps", "99"], "step 99 is outside the run; expected 0 to"),
    ],
)
def test_mistakes_are_told_in_a_line(refcore, arguments, told):
    import re

    assert re.search(told, refcore("smoothness", *arguments).error)
