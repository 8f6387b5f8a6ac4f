"""`refcore smoothness CONFIG`: with a preset or a file, and with mistakes on the command line."""

from __future__ import annotations

import json

import pytest


def test_a_config_file_is_measured_and_the_result_written(refcore, config_file, tmp_path):
    out = tmp_path / "smoothness.json"
    result = refcore(
        "smoothness", config_file, "--prompt", "red", "--views", "0,2", "--steps", "0,3", "--json", "--out", out
    )
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert json.loads(out.read_text()) == found
    assert [(p["step"], p["views"]) for p in found["points"]] == [(0, 0), (3, 0), (0, 2), (3, 2)]
    assert found["points"][0]["dimension"] == 3 * 16 * 16
    assert "torch" in found["versions"]


def test_the_table_has_a_row_for_each_setting(refcore, config_file):
    result = refcore(
        "smoothness", config_file, "--prompt", "red", "--prompt", "blue", "--views", "config,1", "--at", "image"
    )
    assert result.status == 0, result.err
    assert "at the image (768 numbers), 2 samples (medians)" in result.out
    assert len([line for line in result.out.splitlines() if line.split()[1:2] in (["config"], ["1"])]) == 4


def test_a_probe_is_of_a_referee_and_smoothness_of_a_run(refcore):
    assert "the cost of a view" in " ".join(refcore("probe", "referee", "--help").out.split())
    assert "CONFIG" in refcore("smoothness", "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["playgrund"], 'unknown preset or config file "playgrund".*did you mean "playground"'),
        (["playground"], "the config has no prompts; give one with --prompt"),
        (["playground", "--prompt", "a", "--views", "1,x"], '--views is "1,x": "x" is not a number.*or "config"'),
        (["playground", "--prompt", "a", "--at", "latent"], '--at is "latent"; expected params or image'),
        (["playground", "--prompt", "a", "--steps", "99"], "step 99 is outside the run; expected 0 to"),
    ],
)
def test_mistakes_are_reported_in_one_line(refcore, arguments, message):
    import re

    assert re.search(message, refcore("smoothness", *arguments).error)
