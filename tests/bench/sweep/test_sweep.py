"""`refcore sweep` on the embedded playground: grid, search, pruning, resuming, and the best config."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import polars
import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

import refcore
from refcore import images
from refcore.errors import RefcoreError
from refcore_bench.commands import sweep as sweeping
from refcore_bench.commands.sweep import sweep as command
from refcore_bench.executors.local import Local
from refcore_bench.showing.summary import summarise
from refcore_bench.storing.results import Results
from refcore_bench.sweep import losses, search
from refcore_bench.sweep.axes import Range, Values
from refcore_bench.sweep.plan import Sweep, base_settings
from refcore_bench.sweep.towards import Towards, towards
from refcore_bench.tasks.prompts import OWN, Prompts, listed

optuna = pytest.importorskip("optuna", reason="optuna is not installed")
TINY = ["--set", "steps=4", "--set", "init=null", "--set", "candidates={count: 1}"]
PROMPTS = ["a red circle", "two blue squares"]


@pytest.fixture
def app():
    """The command alone: an entry point would take an installation."""
    found = Typer()
    found.command("sweep")(command)
    return found


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("\n".join(PROMPTS))
    return tmp_path


def swept(app, *words):
    """What the command printed."""
    ended = CliRunner().invoke(app, [str(word) for word in words])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.mark.slow
def test_a_grid_is_a_benchmark_of_its_points_and_its_best_config_makes_the_same_images(app, here):
    words = ["playground", "--grid", "referees.clip.weight=0.5,2", "--grid", "optimizer.lr=0.02,0.1", "--batch", 2]
    words += ["--prompts-file", "mine.txt", "--panel", "owlv2", "--towards", "owlv2", "--out", "first", "--json", *TINY]
    told = swept(app, *words)
    found = json.loads(told[told.index("{") :])
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 4
    values = [trial["value"] for trial in found["trials"]]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4
    results = Results.existing("first")
    rows = results.rows(images=True)
    assert len(rows) == 4 * 2
    best = found["trials"][0]
    own = rows.filter(polars.col("variant") == best["name"])
    scored = [score["score"] for scores in own["scores"] for score in scores if score["referee"] == "owlv2"]
    assert best["value"] == pytest.approx(np.mean(scored))
    assert summarise(results)["variants"][0]["variant"] == "weight-0.5+lr-0.02"

    before = {path: path.stat().st_mtime_ns for path in here.glob("first/parts/*/*.parquet")}
    swept(app, *words)
    assert {path: path.stat().st_mtime_ns for path in here.glob("first/parts/*/*.parquet")} == before

    assert yaml.safe_load((here / "first/best.yaml").read_text())["optimizer"]["lr"] == float(
        best["point"]["optimizer.lr"]
    )
    made = refcore.invert(PROMPTS, config="first/best.yaml", seeds=0)
    for image, png in zip(made.images, own["image"], strict=True):
        assert (images.levels(image) == np.asarray(images.picture(png))).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("error:The reported value")
def test_a_search_goes_on_where_it_was_and_is_that_of_an_uninterrupted_one(app, here):
    words = [
        "playground",
        "--search",
        "optuna",
        "--range",
        "optimizer.lr=0.001..0.3,log",
        "--grid",
        "ema.decay=0.5,0.9",
    ]
    words += ["--task", "playground", "--count", 1, "--towards", "loss", "--no-prune", *TINY]
    swept(app, *words, "--trials", 4, "--out", "whole")
    told = swept(app, *words, "--trials", 2, "--out", "parted")
    assert re.search(r"trial-000\d", told)
    _forget_the_end(here / "parted/study.journal")
    swept(app, *words, "--trials", 4, "--out", "parted")
    whole, parted = (json.loads((here / name / "sweep.json").read_text()) for name in ("whole", "parted"))
    assert whole == parted
    assert len(whole["trials"]) == 4
    assert len({trial["point"]["optimizer.lr"] for trial in whole["trials"]}) == 4
    assert whole["trials"][0]["value"] == min(trial["value"] for trial in whole["trials"])
    rows = [Results.existing(name).rows().drop("seconds", "load_seconds") for name in ("whole", "parted")]
    assert rows[0].equals(rows[1])
    assert set(rows[0]["verdict"]) <= {True, False}
    with pytest.raises(RefcoreError, match="another --grid or --range"):
        swept(app, *words, "--trials", 5, "--out", "parted", "--grid", "optimizer.name=adam,sgd")


def _forget_the_end(journal):
    """As if the sweep had been killed before it heard of the last trial."""
    lines = journal.read_bytes().splitlines(keepends=True)
    ended = max(i for i, line in enumerate(lines) if b'"state"' in line and b'"values"' in line)
    journal.write_bytes(b"".join(lines[:ended]))


@pytest.mark.slow
def test_a_trial_that_is_worse_than_most_stops_early_and_leaves_no_images(here):
    """Learning rates of almost nothing: after good ones, they are pruned before their end."""
    settings = {**base_settings("playground"), "steps": 10, "init": None, "candidates": {"count": 1}}
    told = []
    task = Prompts([])
    planned = Sweep(
        out="pruned", settings=settings, axes=[Range("optimizer.lr", 0.0001, 0.3)], task=task,
        prompts=listed(PROMPTS[:1]), source=OWN, seeds=[0, 1], towards=Towards("loss"),
        executor=Local(1), progress=told.append,
    )  # fmt: skip
    study = optuna.create_study(
        study_name="sweep",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("study.journal")),
    )
    for rate in (0.05, 0.06, 0.07, 0.08, 0.09, 0.0001):
        study.enqueue_trial({"optimizer.lr": rate})
    (here / "pruned").mkdir()
    (here / "study.journal").rename(here / "pruned/study.journal")
    (here / "study.journal.lock").unlink(missing_ok=True)
    trials = search.run(planned, 6)
    assert [trial.state for trial in trials] == ["complete"] * 5 + ["pruned"]
    assert [len(trial.losses) for trial in trials[:5]] == [2 * losses.MARKS] * 5
    assert 0 < len(trials[5].losses) < 2 * losses.MARKS
    assert trials[5].value is None
    assert any("trial-0005 is pruned after" in line for line in told)
    rows = Results("pruned").rows()
    assert set(rows["variant"]) == {trial.name for trial in trials[:5]}
    best = min(trials[:5], key=lambda trial: trial.value)
    assert f"{best.name}: mean loss" in (here / "pruned/best.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["playground"], "nothing varies"),
        (["playground", "--grid", "steps=1,2"], "either --prompts-file FILE or --task playground"),
        (["playground", "--grid", "steps=1,2", "--task", "playground", "--prompts-file", "mine.txt"], "either"),
        (["playground", "--range", "steps=1..2", "--task", "playground"], "--range was given without --search optuna"),
        (["playground", "--grid", "steps=1,2", "--trials", 3, "--task", "playground"], "--trials was given without"),
        (["playgruond", "--grid", "steps=1,2", "--task", "playground"], 'did you mean "playground"'),
        (["playground", "--grid", "steps=1,2", "--task", "playgruond"], 'did you mean "playground"'),
        (["playground", "--grid", "steps=1,2", "--search", "optun", "--task", "playground"], 'did you mean "optuna"'),
        (["playground", "--grid", "steps=1,2", "--task", "playground", "--towards", "lost"], 'did you mean "loss"'),
        (["playground", "--grid", "steps=1,2", "--prompts-file", "mine.txt", "--towards", "verdict"], "verdict"),
        (["playground", "--grid", "steps=1,0", "--task", "playground"], "steps=0: "),
        (["playground", "--grid", "stpes=1,2", "--task", "playground"], 'did you mean "steps"'),
        (["playground", "--grid", "steps=1,2", "--task", "playground", "--panel", "clip"], "a panel of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_before_anything_is_made(app, here, words, told):
    with pytest.raises(RefcoreError, match=re.escape(told)):
        swept(app, *words, "--out", "none")
    assert not (here / "none/parts").exists()


@pytest.mark.parametrize("axis", ["optimizer.lrr=0.1..0.2", "optimizer.lr=0.1..1e30"])
def test_a_range_that_the_config_does_not_take_leaves_no_study_behind(app, here, axis):
    """With a study in it, the folder would be one of a search with another range."""
    words = ["playground", "--search", "optuna", "--range", axis, "--task", "playground", "--out", "none"]
    with pytest.raises(RefcoreError, match=r"optimizer\.lr"):
        swept(app, *words)
    assert not (here / "none").exists()


def planned(out, *axes, told=lambda line: None):
    """A sweep of one image a trial, of one step."""
    settings = {**base_settings("playground"), "steps": 1, "init": None, "candidates": {"count": 1}}
    return Sweep(
        out=out, settings=settings, axes=axes, task=Prompts([]), prompts=listed(PROMPTS[:1]), source=OWN, seeds=[0],
        towards=Towards("loss"), executor=Local(1), progress=told,
    )  # fmt: skip


@pytest.fixture
def undone(monkeypatch):
    """Trials that fail at once, as for want of a checkpoint."""

    def fail(*args):
        raise RefcoreError("no such checkpoint")

    monkeypatch.setattr(search, "try_variant", fail)


def test_a_journal_whose_last_line_was_cut_off_goes_on(here, undone):
    axis = Range("optimizer.lr", 0.01, 0.1)
    first = search.run(planned("cut", axis), 1)
    journal = here / "cut/study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_')
    assert search.run(planned("cut", axis), 1) == first
    assert journal.read_bytes().startswith(whole)
    assert search.run(planned("cut", axis), 2)[:1] == first


@pytest.mark.parametrize("line", [b"x\n", b"\n", b"3\n", b'{"a": 1}\n', b'{"op_code": 99}\n'])
def test_a_damaged_journal_is_told_in_a_sentence(here, line):
    (here / "broken").mkdir()
    (here / "broken/study.journal").write_bytes(line)
    with pytest.raises(RefcoreError, match=r'study\.journal of "broken" is damaged: .*; restore it'):
        search.run(planned("broken", Range("optimizer.lr", 0.01, 0.1)), 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"axes": [Range("optimizer.lr", 0.01, 0.2)]},
            "--grid or --range: optimizer.lr=0.01..0.1, now optimizer.lr=0.01..0.2",
        ),
        ({"seeds": [0, 1]}, "--seeds: 0, now 0, 1"),
        ({"towards": Towards("clip")}, "--towards: loss, now clip"),
        ({"prompts": listed(PROMPTS)}, "prompts; go on with the same command, or choose another --out"),
        ({"settings": base_settings("playground")}, "config (CONFIG and --set); go on with the same command"),
    ],
)  # fmt: skip
def test_a_search_goes_on_as_it_began(here, undone, change, told):
    first = planned("begun", Range("optimizer.lr", 0.01, 0.1))
    search.run(first, 1)
    with pytest.raises(RefcoreError, match=re.escape(f"holds a search with another {told}")):
        search.run(replace(first, **change), 2)


def test_values_that_are_only_valid_apart_are_a_failed_trial(here, undone):
    told = []
    varied = [Values("optimizer.momentum", ("0.9", "0")), Values("optimizer.nesterov", ("false", "true"))]
    trials = search.run(planned("apart", *varied, told=told.append), 8)
    assert [trial.state for trial in trials] == ["failed"] * 8
    assert len(told) == 8
    assert any("nesterov is true, but momentum is 0" in line for line in told)


def test_trials_of_other_checkpoints_are_of_another_group(here, undone):
    """A worker lets go of the models of other groups where memory is short."""
    seen = []

    class Watched(Local):
        def run(self, jobs, check=None):
            def watched():
                for job in jobs:
                    seen.append(job.group)
                    yield job

            return super().run(watched(), check)

    varied = Values("referees.clip.config.model", ("playground:clip", "playground:blip2"))
    sweep = planned("groups", varied)
    search.run(replace(sweep, executor=Watched(1)), 8)
    assert len(set(seen)) == 2


def test_on_a_cluster_the_largest_runs_of_a_sweep_are_counted():
    settings = {**base_settings("playground"), "candidates": {"count": 1}, "init": None}
    varied = [
        Values("candidates.count", ("4", "16", "8")),
        Range("optimizer.lr", 0.01, 0.1),
        Values("dtype", ("float32", "bfloat16")),
    ]
    found = sweeping._runs(settings, varied)
    assert [(run["candidates"]["count"], run["dtype"]) for run in found] == [(16, "float32"), (16, "bfloat16")]
    assert sweeping._runs(settings, [Range("stpes", 1, 2)]) == [None]


def test_without_a_complete_trial_there_is_no_best_config(app, here, undone):
    words = ["playground", "--search", "optuna", "--trials", 2, "--range", "optimizer.lr=0.1..0.2", "--out", "failed"]
    with pytest.raises(RefcoreError, match=r"none of 2 trials is complete, so there is no best\.yaml"):
        swept(app, *words, "--prompts-file", "mine.txt", *TINY)
    assert not (here / "failed/best.yaml").exists()


def test_losses_are_noted_evenly_and_the_last_one_stands_for_what_was_not_run():
    noted = []
    watching = losses.Losses(lambda mark, loss: noted.append((mark, loss)))
    watching._referees, watching._steps = ["a", "b"], 4
    for step, loss in enumerate((4.0, 3.0, 2.0)):
        watching.on_step(None, {"step": step, "losses": {"a": [loss], "b": [0.0], "tv": [100.0]}, "active": [True]})
    assert watching.marks == [2.0] * 2 + [1.5] * 3 + [1.0] * 2
    found = watching.of(3)
    assert found.marks == [*watching.marks[:7], 1.0, 1.0, 1.0]
    assert [mark for mark, _ in noted] == list(range(losses.MARKS))
    other = losses.BatchLosses(1, [], 5.0)
    assert losses.mean([found, other]) == 2.0


def test_a_verdict_is_what_is_best_where_a_judge_gives_one():
    from refcore_bench.tasks.playground import PLAYGROUND

    assert towards(None, PLAYGROUND) == Towards("verdict")
    assert towards(None, Prompts([])) == Towards("loss")
    assert towards("clip", PLAYGROUND).upwards
    assert not towards("loss", PLAYGROUND).upwards
    with pytest.raises(RefcoreError, match="verdict"):
        towards("verdict", Prompts([]))


@pytest.mark.slow
def test_the_study_goes_along_with_results_at_a_url_and_workers_share_its_trials(here):
    settings = {**base_settings("playground"), "steps": 1, "init": None, "candidates": {"count": 1}}

    def planned(out, workers):
        return Sweep(
            out=out, settings=settings, axes=[Range("optimizer.lr", 0.001, 0.3, log=True)], task=Prompts([]),
            prompts=listed(PROMPTS[:1]), source=OWN, seeds=[0], towards=Towards("loss"), executor=Local(workers),
        )  # fmt: skip

    first = search.run(planned("memory://searched", 1), 2)
    more = search.run(planned("memory://searched", 1), 3)
    assert more[:2] == first
    assert len(more) == 3
    assert Results("memory://searched").storage.read_text("best.yaml").startswith("# The best of 3 trials")
    by_two = search.run(planned("here", 2), 3)
    assert [trial.state for trial in by_two] == ["complete"] * 3
    assert by_two[0] == first[0]
