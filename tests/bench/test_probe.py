"""`refcore probe referee`, on the playground: agreement, gradient and cost, on referees with known answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

import refcore
from refcore import images, registry
from refcore.cli import main
from refcore_bench.examinations import probe
from refcore_bench.examinations.probe import Agreement, auc, auc_interval, hard_negatives, prompts_with_scenes
from refcore_playground.judge import judge
from refcore_playground.render import render_levels

FAST = [
    "--scenes",
    "4",
    "--prompts",
    "2",
    "--set",
    "canvas={name: pixel}",
    "--set",
    "size=64",
    "--set",
    "steps=2",
    "--set",
    "views.main.count=1",
]


@pytest.fixture
def probed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(probe, "COSTED", 1)

    def call(*argv: str) -> Any:
        with pytest.raises(SystemExit) as left:
            main(["probe", "referee", *argv])
        printed = capsys.readouterr()
        assert not left.value.code, printed.err
        return printed.out

    return call


def register(name: str, function: Any) -> None:
    registry.register("referees", name, refcore.referee(input_size=64, name=name)(function))


def knows_the_truth(views: Tensor, prompts: list[str]) -> Tensor:
    """The judge itself: 0 where it says yes; and a slope that says nothing."""
    wrong = [not judge(images.levels(v), p).verdict for v, p in zip(views, prompts, strict=True)]
    return torch.tensor(wrong, dtype=torch.float32) + 0 * views.mean((1, 2, 3))


def test_a_referee_that_knows_the_truth_agrees_with_it_and_one_that_does_not_is_at_chance(probed: Any) -> None:
    register("oracle", knows_the_truth)
    register("blind", lambda views: 0 * views.mean((1, 2, 3)))
    oracle, blind = (json.loads(probed(name, *FAST, "--json")) for name in ("oracle", "blind"))
    assert oracle["agreement"]["all"]["auc"] > 0.97
    assert oracle["agreement"]["relation"]["preferred"] > 0.8
    assert all(kind["auc"] == kind["preferred"] == 0.5 for kind in blind["agreement"].values())
    assert oracle["ascent"]["satisfied"]["value"] == 0
    assert [made["loss_of_true_scene"] for made in oracle["ascent"]["attempts"]] == [0, 0]
    assert oracle["ascent"]["fooled"]["value"] == 0


def test_the_embedded_clip_knows_colours_and_its_page_has_three_parts(probed: Any) -> None:
    told = json.loads(probed("clip", *FAST, "--scenes", "12", "--json"))
    assert told["agreement"]["colour"]["auc"] > 0.8
    assert told["agreement"]["all"]["scenes"] == 9 * 12
    assert 0 < told["cost"]["forward"] < 5
    assert told["cost"]["megabytes"] > 0
    ascent = told["ascent"]
    assert ascent["steps"] == 2
    assert all(made["loss_last"] < made["loss_first"] for made in ascent["attempts"])


def test_a_referee_is_fooled_where_its_loss_is_below_a_true_scenes_and_the_judge_says_no(probed: Any) -> None:
    register("darkness", lambda views: views.mean((1, 2, 3)))
    told = json.loads(probed("darkness", *FAST, "--set", "optimizer.lr=3", "--json"))
    assert told["ascent"]["fooled"]["value"] == 1


def test_the_page_is_printed_and_pictures_are_kept(probed: Any, tmp_path: Any) -> None:
    register("blind", lambda views: 0 * views.mean((1, 2, 3)))
    page = probed("blind", *FAST, "--out", str(tmp_path / "made"))
    for part in (
        "Agreement with the truth",
        "ROC AUC",
        "the judge says yes",
        "0% to 66% of 2 prompts",
        "Cost of a view",
    ):
        assert part in page, part
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["image_0.png", "image_1.png"]
    assert "| wrong fact | ROC AUC |" in probed("blind", *FAST, "--markdown")


def test_a_probe_is_of_one_referee(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, told in (
        (["clip", "--set", "priors=[{name: tv}]"], "a probe has one referee and no prior"),
        (["clip", "--set", "referees.0.wanted=false"], "leave it true"),
        (["clp"], 'unknown referee "clp"'),
    ):
        with pytest.raises(SystemExit):
            main(["probe", "referee", *argv])
        assert told in capsys.readouterr().err


def test_negatives_are_false_of_their_scenes_and_the_captions_true() -> None:
    drawn = hard_negatives(3, seed=1)
    assert set(drawn) == {"colour", "shape", "texture", "size", "relation", "count", "swap", "drop", "add"}
    pairs = [pair for found in drawn.values() for pair in found]
    assert sum(judge(render_levels(pair.scene), pair.caption).verdict for pair in pairs) >= len(pairs) - 1
    assert not any(judge(render_levels(pair.scene), pair.wrong).verdict for pair in pairs)
    assert all(judge(render_levels(scene), prompt).verdict for prompt, scene in prompts_with_scenes(3, seed=1))


def test_the_area_is_that_of_scikit_learn_and_its_interval_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    right, wrong = (torch.randint(0, 9, (30,), generator=generator).float().tolist() for _ in range(2))
    labels = [1] * 30 + [0] * 30
    assert auc(right, wrong) == pytest.approx(roc_auc_score(labels, [-loss for loss in right + wrong]))
    # The worked example of Hanley and McNeil: area 0.893 from 58 and 51 has a standard error of about 0.032.
    assert auc_interval(0.893, 54) / 1.96 == pytest.approx(0.032, abs=0.002)


def test_the_preference_compares_captions_of_the_same_scene_alone() -> None:
    found = Agreement.of(right=[0.1, 5.0, 2.0, 3.0], wrong=[0.2, 6.0, 2.0, 1.0])
    assert (found.preferred, found.scenes) == (0.625, 4)
    assert found.auc < found.preferred
