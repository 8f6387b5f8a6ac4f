"""The panel that a command line names, and which of its witnesses are relatives of a variant."""

from __future__ import annotations

import pytest
import yaml

from refcore.errors import RefcoreError
from refcore_bench.relatives import networks, relatives
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.tasks.prompts import Prompts
from refcore_bench.variants import variant_from_text
from refcore_bench.witness_panel import read_panel


def labels(*texts, prompts=()):
    return [entry["label"] for entry in read_panel(texts, prompts)]


def test_a_name_is_the_presets_term_and_equals_what_the_preset_optimises_for():
    assert read_panel(["owlv2", "clip"]) == [PLAYGROUND.referees()[2], PLAYGROUND.referees()[0]]


def test_names_files_presets_and_terms_are_told_apart(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"witnesses": [{"name": "clip", "label": "small", "coarse": 32}]}))
    assert labels(f"clip, {file}", "{name: blip2, label: plain, config: {eps: 0.0}}") == ["clip", "small", "plain"]
    assert labels("playground:owlv2") == ["owlv2"]


def test_a_witness_of_another_preset_is_that_of_its_config():
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")
    (witness,) = read_panel(["natural:witness"])
    assert (witness["label"], witness["coarse"], witness["config"]["weights"]) == ("witness", 96, "lite2")


def test_a_witness_named_twice_is_one_and_two_of_one_label_are_numbered():
    assert labels("clip,clip") == ["clip"]
    assert labels("clip,{name: clip, coarse: 32}") == ["clip", "clip-2"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clp", 'unknown witness "clp" in --panel; known: .*did you mean "clip"'),
        ("playground:owl", 'unknown witness "owl" in --panel playground:owl; known: blip2, clip, owlv2; did you mean'),
        ("plyground:clip", 'unknown preset "plyground".*did you mean "playground"'),
        (" , ", "--panel names nobody; expected referees, such as --panel clip,blip2"),
        ("{name: clip", "--panel {name: clip: the term is not valid YAML"),
        ("{name: clip, modle: 3}", "--panel.modle: unknown field"),
        ("{name: clip, config: {modle: 3}}", "--panel.config.modle: unknown field"),
        ("none.yaml", 'cannot read the config file "none.yaml"'),
    ],
)
def test_a_wrong_witness_is_refused_with_what_was_expected(text, told):
    with pytest.raises(RefcoreError, match=told):
        read_panel([text])


def test_a_file_without_witnesses_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("steps: 3\n")
    with pytest.raises(RefcoreError, match="holds no witnesses; expected a list `witnesses`"):
        read_panel([str(tmp_path / "mine.yaml")])


def test_a_prompt_that_a_witness_cannot_read_is_refused_before_an_image_is_made():
    with pytest.raises(RefcoreError, match=r'--panel: "owlv2" cannot score these prompts: .*"grammar" cannot read'):
        read_panel(["clip,owlv2"], ["a cat"])
    assert labels("clip", prompts=["a cat"]) == ["clip"]


# Relatives

PANEL = read_panel(["clip,blip2,{name: clip, label: coarse, coarse: 32, config: {model: 'playground:clip'}}"])
TASK = Prompts(PANEL)


def related(text):
    """Labels of the panel's relatives of a variant."""
    found = relatives(variant_from_text(text, TASK))
    return [scorer.label for scorer in variant_from_text(text, TASK).scorers if scorer.identity in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sampling-7.5", []),
        ("sds-alone", []),
        ("blip2-alone", ["blip2"]),
        ("clip-alone", ["clip", "coarse"]),  # the same network, whatever it sees
        ("playground", ["clip", "blip2", "coarse"]),
        ("best-of-n", ["clip", "blip2", "coarse"]),  # chooses by them
        ("idle=playground,referees.clip.weight=0", ["blip2"]),
    ],
)
def test_a_witness_is_a_relative_of_a_variant_that_optimises_or_chooses_by_its_network(text, expected):
    assert sorted(related(text)) == sorted(expected)


def test_a_referee_with_another_question_is_of_the_same_network():
    unwanted = "{name: clip, label: blurry, prompt: blurry, wanted: false, config: {model: 'playground:clip'}}"
    assert related(f"a=playground,referees=[{unwanted}]") == ["clip", "coarse"]


def test_two_names_of_the_same_files_are_one_network_and_two_weights_of_a_name_are_two():
    terms = [{"name": "clip", "config": {"model": model}} for model in ("playground:clip", "copy")]
    assert len(networks(terms, {"playground:clip": "0123", "copy": "0123"})) == 1
    tags = [{"name": "clip", "config": {"model": "ViT-B-32", "pretrained": tag}} for tag in ("openai", "laion2b")]
    assert len(networks(tags, {})) == 2
