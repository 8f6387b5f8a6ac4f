"""The executor of this machine: jobs as they finish, a killed worker that costs its job alone, warm models."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from refcore.errors import NonFiniteError, RefcoreError
from refcore_bench.executors.job import TRIES, Job
from refcore_bench.executors.local import Local
from refcore_bench.executors.waiting import Waiting


def doubled(models, number):
    return 2 * number


def process(models, seconds=0.0):
    time.sleep(seconds)
    return os.getpid()


def broken(models):
    raise RefcoreError("this one is broken")


def not_a_number(models):
    raise NonFiniteError(3, {"clip": "float16"})


def killed_once(models, marker):
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "made"


def killed_always(models):
    os.kill(os.getpid(), signal.SIGKILL)


def unsendable(models):
    return lambda: None


def named(name, function, *arguments, group=""):
    return Job(name, function, arguments, group)


def test_alone_jobs_run_here_one_after_another():
    jobs = [named(str(i), doubled, i) for i in range(3)] + [named("pid", process)]
    found = list(Local(1).run(jobs))
    assert [job for job, _ in found] == jobs
    assert [outcome.value for _, outcome in found] == [0, 2, 4, os.getpid()]


def test_an_error_is_an_outcome_and_the_others_go_on():
    found = list(Local(1).run([named("a", broken), named("b", doubled, 1)]))
    assert "this one is broken" in str(found[0][1].error)
    assert not found[0][1].lost
    assert found[1][1].value == 2


def test_jobs_are_taken_when_a_worker_is_free_for_them():
    seen = []

    def decided_late():
        yield named("first", doubled, 1)
        yield named("second", doubled, seen[0])

    for _, outcome in Local(1).run(decided_late()):
        seen.append(outcome.value)
    assert seen == [2, 4]


def test_a_worker_prefers_jobs_whose_models_it_has_among_the_next_ones():
    waiting = Waiting([named(name, doubled, group=name[0]) for name in ("a1", "b1", "a2", "b2", "c1", "a3")], ahead=3)
    assert [waiting.take(group).name for group in (None, "a", "a", "b", "b")] == ["a1", "a2", "b1", "b2", "c1"]
    assert [waiting.take(None).name, waiting.take(None)] == ["a3", None]


def test_a_job_is_given_up_after_some_deaths_and_is_the_next_one_until_then():
    waiting = Waiting([named("a", doubled), named("b", doubled)], ahead=1)
    for _ in range(TRIES - 1):
        job = waiting.take()
        assert (job.name, waiting.died(job)) == ("a", None)
    lost = waiting.died(waiting.take())
    assert lost.lost
    assert f"{TRIES} times during a" in str(lost.error)
    assert waiting.take().name == "b"


@pytest.mark.slow
def test_a_killed_worker_costs_its_job_alone(tmp_path):
    told = []
    jobs = [named(f"job {i}", doubled, i) for i in range(4)]
    jobs[1:1] = [named("once", killed_once, str(tmp_path / "killed")), named("always", killed_always)]
    found = {job.name: outcome for job, outcome in Local(2, progress=told.append).run(jobs)}
    assert [found[f"job {i}"].value for i in range(4)] == [0, 2, 4, 6]
    assert (found["once"].value, found["once"].attempts) == ("made", 2)
    assert found["always"].lost
    assert sum("killed during always" in line for line in told) == TRIES - 1


@pytest.mark.slow
def test_errors_of_workers_arrive_whatever_their_constructors_take():
    found = {job.name: outcome.error for job, outcome in Local(2).run([named("a", not_a_number), named("b", broken)])}
    assert isinstance(found["a"], RefcoreError)
    assert "step 3" in str(found["a"])
    assert "not_a_number" in found["a"].__notes__[0]
    assert type(found["b"]) is RefcoreError


@pytest.mark.slow
def test_what_cannot_be_sent_is_an_error_of_its_job_and_the_others_go_on():
    jobs = [named("value", unsendable), named("argument", doubled, lambda: None), named("whole", doubled, 1)]
    found = {job.name: outcome for job, outcome in Local(2).run(jobs)}
    assert "value: " in str(found["value"].error)
    assert "argument: " in str(found["argument"].error)
    assert isinstance(found["argument"].error, RefcoreError)
    assert found["whole"].value == 2
