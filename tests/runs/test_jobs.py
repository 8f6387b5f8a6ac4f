"""A job's curves stay small, its time is that of its steps, and its sliders reach beyond its weights."""

from __future__ import annotations

from refcore.config.run import RunConfig
from refcore.runs.jobs import MOST_POINTS, Job

CONFIG = RunConfig.from_settings({"canvas": {"name": "pixel"}, "referees": [], "priors": [{"name": "tv"}]})


def test_curves_of_a_long_run_stay_small_and_reach_its_last_steps() -> None:
    job = Job(1, CONFIG)
    for step in range(1, 5001):
        job.add(step, {"tv": float(step)}, {"tv": 1.0})
    points = job.curves["tv"]
    assert len(points) <= MOST_POINTS
    assert points[-1][0] > 4900
    assert all(step == value for step, value in points)


def test_the_time_of_a_job_is_that_of_its_steps() -> None:
    job = Job(1, CONFIG)
    for step in (1, 2):
        job.add(step, {}, {}, 1.5)
    assert (job.seen().step, job.seen().seconds) == (2, 3.0)


def test_a_run_that_is_to_stop_does_not_pause_any_more() -> None:
    job = Job(1, CONFIG)
    job.pause()
    assert job.pausing
    job.stop()
    assert not job.pausing
    assert job.wants() == ({}, True)
