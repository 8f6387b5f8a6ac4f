"""The named pipelines: their files, their table in the docs, and what they say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from refcore.errors import RefcoreError
from refcore_bench.samples import baselines
from refcore_bench.samples.pipelines import Pipeline, remark
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.tasks.prompts import Prompts
from refcore_bench.variants import variant_from_text
from refcore_plugins.models.diffusers_pipeline import call_parameters, pipeline_class

PAGE = Path(__file__).parents[2] / "docs" / "benchmark.md"
NAMES = baselines.names()
PARSED = {"attend-and-excite": ",subjects.parser=grammar"}
"""Baseline -> override, where a package is needed to read prompts."""


def named(name: str, task=PLAYGROUND):
    more = PARSED.get(name)
    return variant_from_text(f"{name}={name}{more}" if more else name, task)


def test_those_of_the_field_are_there():
    assert set(NAMES) == {
        *("sd15", "sd21", "sdxl", "sd-turbo", "sdxl-turbo", "attend-and-excite", "pixart-alpha", "pixart-dmd"),
        *("sd35-medium", "sd35-large", "sd35-large-turbo", "flux-schnell", "sana", "sana-sprint"),
    }


@pytest.mark.parametrize("task", [PLAYGROUND, Prompts()], ids=["playground", "prompts"])
def test_each_is_a_variant_of_its_own_in_every_task(task):
    made = [named(name, task) for name in NAMES]
    assert [one.method for one in made] == ["pipeline"] * len(NAMES)
    assert len({one.hash for one in made}) == len(NAMES)
    assert not any(one.optimised for one in made)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is_and_what_is_unverified(name):
    said, own = baselines.about(name), Pipeline(**baselines.settings_of(name))
    assert said.title
    assert said.paper
    assert said.licence
    assert re.search(r"\d GB", said.needs)
    assert own.model in said.needs
    assert said.pixels == own.height == own.width


@pytest.mark.parametrize("name", [name for name in NAMES if baselines.about(name).source.startswith("defaults of")])
def test_what_is_said_to_be_a_default_of_diffusers_is_one(name):
    own = Pipeline(**baselines.settings_of(name))
    assert own.pipeline in baselines.about(name).source
    taken = call_parameters(pipeline_class(own.pipeline))
    assert own.steps == taken["num_inference_steps"].default
    assert own.guidance == taken["guidance_scale"].default


def test_attend_and_excite_has_the_defaults_of_diffusers_and_says_that_it_is_deprecated():
    own = Pipeline(**baselines.settings_of("attend-and-excite"))
    taken = call_parameters(pipeline_class(own.pipeline))
    for name, value in own.arguments.items():
        default = taken[name].default
        assert value == (list(default) if isinstance(default, tuple) else default)
    assert "deprecated" in baselines.about("attend-and-excite").remarks
    told = remark(own.model_dump())
    assert told is not None
    assert "deprecated in diffusers" in told
    assert remark(baselines.settings_of("sd15")) is None


def test_the_table_of_the_docs_is_made_of_the_files():
    assert baselines.table() in PAGE.read_text("utf-8")


def test_a_file_of_ones_own_is_a_source(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text((Path(baselines.__file__).parent / "sdxl.yaml").read_text("utf-8"))
    mine = variant_from_text(f"mine=diffusers:{file},steps=30")
    assert (mine.settings["model"], mine.settings["steps"]) == ("stabilityai/stable-diffusion-xl-base-1.0", 30)


def test_a_name_that_is_nearly_one_is_told():
    with pytest.raises(RefcoreError, match=r'unknown variant "sdxl-turb".*did you mean "sdxl-turbo"'):
        variant_from_text("sdxl-turb")
