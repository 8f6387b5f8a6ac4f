"""The task on own prompts: no verdict, a panel's scores, the order and the panel that a folder keeps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from refcore.cli import main
from refcore.errors import RefcoreError
from refcore_bench import making, running, table
from refcore_bench.evaluations import KINDS
from refcore_bench.showing import tables
from refcore_bench.showing.gallery import write_gallery
from refcore_bench.showing.grid import write_grid
from refcore_bench.showing.plot import write_plot
from refcore_bench.showing.summary import summarise
from refcore_bench.storing.results import Results
from refcore_bench.tasks.prompts import OWN, Prompts, listed
from refcore_bench.variants import variant_from_text
from refcore_bench.witness_panel import read_panel

PROMPTS = listed(["a red circle", "two blue squares"])
TASK = Prompts(read_panel(["clip,blip2"]))
SAID = {  # variant -> prompt -> what clip and blip2 say
    "drawn": {"a red circle": (0.5, 0.5), "two blue squares": (0.4, 0.9)},
    "better": {"a red circle": (0.6, 0.7), "two blue squares": (0.5, 0.8)},
    "blip2-alone": {"a red circle": (0.1, 0.2), "two blue squares": (0.2, 1.0)},
}


def variant(text):
    return variant_from_text(text, TASK)


DRAWN, BETTER, ALONE = variant("drawn=sampling-7.5"), variant("better=sampling-3"), variant("blip2-alone")


@pytest.fixture
def said(monkeypatch):
    """Every batch is a grey picture, of which the panel says what `SAID` has; the list of (variant, prompt) made."""
    made = []

    def make(variant, prompts, seed, budget=None, models=None):
        made.extend((variant.name, prompt) for prompt in prompts)
        scores = {}
        for scorer in variant.scorers:
            place = {"clip": 0, "blip2": 1}[scorer.term["name"]]
            scores[scorer.label] = [SAID[variant.name][prompt][place] for prompt in prompts]
        grey = [np.full((8, 8, 3), 128, np.uint8)] * len(prompts)
        return making.Made(grey, scores, 2, 0.5, 0.1, dict.fromkeys(KINDS, 1.0))

    monkeypatch.setattr(running.making, "make", make)
    return made


def run(path, chosen=(DRAWN, BETTER, ALONE), prompts=PROMPTS, task=TASK):
    return running.run(path, chosen, prompts, OWN, batch=1, task=task)


def test_no_image_has_a_verdict_and_no_table_a_rate_of_them(said, tmp_path):
    results = run(tmp_path)
    assert results.rows()["verdict"].to_list() == [None] * 6
    assert results.task.name == "prompts"
    summary = summarise(results)
    for one in summary["variants"]:
        assert not {"accuracy", "hack_rate", "panel_hack_rate", "measures"} & set(one)
    text = table.markdown(tables.tables(summary))
    assert not any(word in text for word in ("hack", "whole prompts", "Accuracy", "facts"))


def test_means_and_differences_are_those_of_the_scores(said, tmp_path):
    summary = summarise(run(tmp_path))
    drawn, better, alone = summary["variants"]
    assert (summary["panel"], summary["against"]) == (["clip", "blip2"], "drawn")
    assert drawn["scores"]["clip"]["value"] == pytest.approx(0.45)
    assert (drawn["scores"]["blip2"]["low"], drawn["scores"]["blip2"]["high"]) == pytest.approx((0.5, 0.9))
    assert drawn["difference"] is None
    found = better["difference"]
    assert found["scores"]["clip"]["value"] == pytest.approx(0.1)
    assert found["scores"]["blip2"]["value"] == pytest.approx(0.05)
    assert [found[field]["value"] for field in ("joint_domination", "joint_collapse", "disagreement")] == [0.5, 0, 0.5]
    found = alone["difference"]
    assert [found[field]["value"] for field in ("joint_domination", "joint_collapse", "disagreement")] == [0, 0.5, 0.5]


def test_a_witness_that_a_variant_optimises_for_is_marked_in_its_row_alone(said, tmp_path):
    summary = summarise(run(tmp_path))
    assert [one["relatives"] for one in summary["variants"]] == [[], [], ["blip2"]]
    scores, moves = tables.tables(summary)[:2]
    assert [row[scores.columns.index("blip2")].endswith("*") for row in scores.rows] == [False, False, True]
    assert "a relative is no witness" in scores.note
    assert [row[moves.columns.index("blip2")].endswith("*") for row in moves.rows] == [False, True]
    assert not any(row[moves.columns.index("clip")].endswith("*") for row in moves.rows)


def test_without_relatives_no_mark_is_explained(said, tmp_path):
    scores, moves = tables.tables(summarise(run(tmp_path, [DRAWN, BETTER])))[:2]
    assert "*" not in scores.note + moves.note


def test_variants_keep_the_order_of_the_command_line_and_later_ones_follow(said, tmp_path):
    run(tmp_path, [BETTER, DRAWN])
    results = run(tmp_path, [ALONE, DRAWN])
    assert list(results.variants()) == ["better", "drawn", "blip2-alone"]
    assert summarise(results)["against"] == "better"
    assert summarise(results, "drawn")["against"] == "drawn"


def test_a_folder_goes_on_with_more_prompts_and_makes_nothing_twice(said, tmp_path):
    run(tmp_path, [DRAWN], PROMPTS[:1])
    run(tmp_path, [DRAWN, BETTER], PROMPTS)
    assert len(said) == len(set(said)) == 4


def test_a_prompt_that_a_file_has_twice_is_one():
    assert [one.prompt for one in listed(["b", "a", "b"])] == ["b", "a"]


def test_another_panel_never_shares_a_folder(said, tmp_path):
    run(tmp_path, [DRAWN])
    other = Prompts(read_panel(["clip"]))
    with pytest.raises(
        RefcoreError, match="scores by the panel clip, blip2, and this one is clip; choose another --out"
    ):
        run(tmp_path, [variant_from_text("drawn=sampling-7.5", other)], task=other)
    other = Prompts(read_panel(["clip,{name: blip2, coarse: 32}"]))
    with pytest.raises(RefcoreError, match="is clip, blip2, with other settings or weights"):
        run(tmp_path, [variant_from_text("drawn=sampling-7.5", other)], task=other)


def test_the_same_panel_in_another_order_is_the_same(said, tmp_path):
    run(tmp_path, [DRAWN])
    other = Prompts(read_panel(["blip2,clip"]))
    results = run(tmp_path, [variant_from_text("better=sampling-3", other)], task=other)
    assert list(results.panel()) == ["clip", "blip2"]


def test_best_of_n_chooses_by_the_presets_referees_and_not_by_the_panel():
    best = variant_from_text("best-of-n", Prompts(read_panel(["{name: clip, label: far, coarse: 32}"])))
    assert [scorer.label for scorer in best.optimised] == ["clip", "blip2", "owlv2"]
    assert [scorer.label for scorer in best.scorers if scorer.panel] == ["far"]


def test_gallery_grid_plot_and_sheets_need_no_verdict(said, tmp_path):
    results = run(tmp_path / "results")
    summary = summarise(results)
    write_gallery(results, summary, tmp_path / "gallery.html")
    text = (tmp_path / "gallery.html").read_text("utf-8")
    assert text.count('data-verdict="none"') == 6
    assert 'select name="verdict"' not in text
    assert 'class="hack"' not in text
    write_grid(results, tmp_path / "grid.png")
    write_plot(summary, tmp_path / "plot.svg")
    assert "mean score by blip2" in (tmp_path / "plot.svg").read_text("utf-8")
    assert (tmp_path / "results" / "sheets" / "drawn.png").is_file()


def refcore(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *map(str, words)])
    return ended.value.code, *capsys.readouterr()


def test_the_file_of_prompts_may_be_of_any_encoding_and_have_comments(said, tmp_path, capsys):
    (tmp_path / "mine.txt").write_bytes("# mine\r\na red circle\r\n\r\ntwo blue squares\r\n".encode("utf-16"))
    command = ["prompts", "--out", tmp_path / "out", "--prompts-file", tmp_path / "mine.txt", "--panel", "clip,blip2"]
    status, told, _ = refcore(capsys, *command, "--variant", "drawn=sampling-7.5", "--variant", "better=sampling-3")
    assert (status, len(said)) == (0, 4)
    assert "Scores on own prompts" in told
    status, told, _ = refcore(capsys, "show", tmp_path / "out", "--json")
    assert json.loads(told)["panel"] == ["clip", "blip2"]
    assert Results.existing(tmp_path / "out").source == OWN


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--panel", "clp"], 'unknown witness "clp" in --panel'),
        (["--panel", "clip", "--seeds", "x"], '--seeds "x" is not a list of seeds'),
        (["--panel", "clip", "--variant", "tinny"], 'unknown variant "tinny"'),
    ],
)
def test_what_is_wrong_is_one_line_and_makes_no_folder(tmp_path, capsys, words, told):
    (tmp_path / "mine.txt").write_text("a red circle\n")
    status, _, err = refcore(
        capsys, "prompts", "--out", tmp_path / "out", "--prompts-file", tmp_path / "mine.txt", *words
    )
    assert (status, err.count("\n")) == (1, 1)
    assert told in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_runs_on_the_embedded_checkpoints_and_goes_on(tmp_path, capsys):
    """By two processes; then the same command has nothing left to do."""
    (tmp_path / "mine.txt").write_text("a red circle\ntwo blue squares\n")
    tiny = "steps=2,init=null,candidates={count: 1}"
    command = ["prompts", "--out", tmp_path / "out", "--prompts-file", tmp_path / "mine.txt", "--panel", "clip,blip2"]
    command += ["--variant", f"tiny=clip-alone,{tiny}", "--variant", "best=best-of-n,steps=2,count=2", "--workers", 2]
    status, told, err = refcore(capsys, *command)
    assert (status, "best: 2 of 2 images" in err) == (0, True)
    assert "joint domination" in refcore(capsys, "show", tmp_path / "out")[1]
    assert "evaluations/image" in told
    assert refcore(capsys, *command)[::2] == (0, "")
