"""The session behind the page: runs one after another, steered, paused and stopped while they go on, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from refcore.config.run import RunConfig
from refcore.errors import RefcoreError
from refcore.runs.jobs import Job
from refcore.runs.stored import read_run
from refcore.ui.limits import Limits
from refcore.ui.session import Session

STEPS = 200


def config(**fields: Any) -> RunConfig:
    """A run that needs no model; its steps take about a millisecond."""
    return RunConfig.from_settings(
        {
            "prompts": ["a grey wall"],
            "canvas": {"name": "pixel"},
            "size": 16,
            "referees": [],
            "priors": [{"name": "tv"}, {"name": "l2", "weight": 2.0}],
            "combine": {"name": "sum"},
            "steps": STEPS,
            **fields,
        }
    )


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path / "runs", Limits(waiting=2, samples=4, side=64, steps=1_000_000))
    yield made
    made.close()


def wait(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def begun(session: Session, **fields: Any) -> Job:
    """A run too long to end by itself, after its first steps."""
    job = session.submit(config(steps=500_000, **fields))
    wait(lambda: job.step > 3)
    return job


def test_a_run_is_watched_to_its_end_and_kept(session: Session) -> None:
    job = session.submit(config())
    wait(lambda: job.over)
    seen = job.seen()
    assert (seen.state, seen.step, seen.error) == ("finished", STEPS, "")
    assert seen.pictures[0].startswith(b"\x89PNG")
    assert set(seen.curves) == {"tv", "l2"}
    assert seen.folder is not None
    assert seen.folder.parent == session.runs
    assert read_run(seen.folder).samples[0]["prompt"] == "a grey wall"


def test_a_weight_moved_while_it_runs_is_in_the_history_and_in_the_config(session: Session) -> None:
    job = begun(session)
    job.steer("l2", 7.5)
    wait(lambda: job.seen().weights.get("l2") == 7.5)
    assert job.seen().weights["tv"] == 1.0
    job.stop()
    wait(lambda: job.over)
    assert job.seen().folder is not None
    pieces = job.config.priors[1].weight.pieces  # type: ignore[union-attr]
    assert [piece.value for piece in pieces] == [2.0, 7.5]


def test_a_weight_set_before_it_begins_holds_from_the_first_step(session: Session) -> None:
    first = begun(session)
    second = session.submit(config(steps=3))
    second.steer("tv", 3.0)
    first.stop()
    wait(lambda: second.over)
    assert second.config.priors[0].weight == 3.0


def test_a_paused_run_takes_no_step_until_it_is_resumed(session: Session) -> None:
    job = begun(session)
    job.pause()
    wait(lambda: job.state == "paused")
    there = job.step
    time.sleep(0.2)
    assert job.step == there
    job.resume()
    wait(lambda: job.step > there)
    assert job.state == "running"


def test_a_stopped_run_keeps_what_it_has_made_and_the_next_one_begins(session: Session) -> None:
    job, following = begun(session), session.submit(config())
    assert following.state == "waiting"
    job.pause()
    wait(lambda: job.state == "paused")
    job.stop()
    wait(lambda: following.over)
    assert job.state == "stopped"
    assert job.folder is not None
    assert (job.folder / "image_0.png").is_file()
    assert following.state == "finished"


def test_a_run_that_is_stopped_while_it_waits_never_begins(session: Session) -> None:
    first, second = begun(session), session.submit(config())
    second.stop()
    first.stop()
    third = session.submit(config(steps=3))
    wait(lambda: third.over)
    assert (second.state, second.step, second.folder) == ("stopped", 0, None)


def test_the_queue_and_the_run_are_bounded(session: Session) -> None:
    begun(session)
    for _ in range(2):
        session.submit(config())
    with pytest.raises(RefcoreError, match="2 runs are waiting, which is the most"):
        session.submit(config())
    with pytest.raises(RefcoreError, match="5 images; this page takes at most 4"):
        session.submit(config(seeds=[0, 1, 2, 3, 4]))
    with pytest.raises(RefcoreError, match="size is 128 px; this page takes at most 64"):
        session.submit(config(size=128))
    with pytest.raises(RefcoreError, match="the prompt is empty"):
        session.submit(config(prompts=[]))


def test_a_run_ends_at_its_longest_time(tmp_path: Path) -> None:
    session = Session(tmp_path, Limits(seconds=0.2, steps=1_000_000))
    job = session.submit(config(steps=500_000))
    wait(lambda: job.over)
    assert job.state == "stopped"
    assert "0.2 s, the longest time" in job.error
    session.close()


def test_a_failure_is_a_sentence_and_the_next_run_begins(session: Session) -> None:
    job = session.submit(config(priors=[{"name": "no-such-prior"}]))
    wait(lambda: job.over)
    assert job.state == "failed"
    assert 'unknown prior "no-such-prior"' in job.error
    assert "Traceback" not in job.error
    after = session.submit(config(steps=3))
    wait(lambda: after.over)
    assert after.state == "finished"
