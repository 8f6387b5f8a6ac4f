"""A benchmark on a Ray cluster of two machines, one of which is killed: the table is the one of a serial run."""

from __future__ import annotations

import contextlib
import os
import time

import psutil
import pytest
import torch

from refcore.engine.models import Models
from refcore.errors import RefcoreError
from refcore_bench import running
from refcore_bench.executors.choice import chosen
from refcore_bench.executors.job import Job
from refcore_bench.executors.resources import Resources, share_of_gpu, wants_gpu
from refcore_bench.storing.results import Results
from refcore_bench.tasks.playground_prompts import TUNING_SEED, draw
from refcore_bench.variants import variant_from_text

STORE = 100 * 2**20
MEASURED = ("seconds", "load_seconds")
"""Columns that say how long something took."""
SETTINGS = {
    "worker_niceness": 0,  # by default its processes let all others go first
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,  # a machine with more to do than cores is not dead; a killed one refuses at once
    "health_check_failure_threshold": 2,
}
STARTING = 300
"""Most seconds that a worker may take to start, or to end."""


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one machine with one CPU; a test may add others."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE, "_system_config": SETTINGS}
    started = Cluster(initialize_head=True, head_node_args=head)
    yield started
    ray.shutdown()
    started.shutdown()


def kill(node):
    """Kills a machine: the processes of its jobs, and Ray's own."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [*raylet.children(recursive=True), raylet]:
        process.kill()


@pytest.mark.slow
def test_a_killed_machine_costs_its_batch_and_the_table_ends_the_same(cluster, tmp_path):
    variants = [
        variant_from_text("plain=sampling-7.5,steps=10"),
        variant_from_text("tiny=playground,steps=4,init=null,candidates={count: 1}"),
    ]
    prompts = draw(5, TUNING_SEED)
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    told, first_told, killed_at = [], [], []

    def progress(line):
        told.append(line)
        if "images" not in line or killed_at:
            return
        if not first_told:  # by the other worker perhaps, before this one has started: it then gets a batch, too
            first_told.append(line)
            wait_for(lambda: _workers(second.all_processes, ("", ".call")))
        elif _workers(second.all_processes, (".call",)):
            killed_at.append(len(told))
            kill(second)

    executor = chosen(1, cluster.address, [variant.settings for variant in variants], 1, [], progress)
    by_ray = running.run(
        str(tmp_path / "ray"), variants, prompts, TUNING_SEED, batch=1, progress=progress, executor=executor
    )
    assert any("2 workers, each with 1 CPU, on 2 machines" in line for line in told)
    assert killed_at, told
    assert sum("was killed" in line for line in told) == 1, told
    torch.set_num_threads(1)
    serial = running.run(tmp_path / "serial", variants, prompts, TUNING_SEED, batch=1)
    assert by_ray.rows().drop(MEASURED).equals(serial.rows().drop(MEASURED))
    assert by_ray.rows(images=True)["image"].equals(serial.rows(images=True)["image"])


@pytest.mark.slow
def test_a_cluster_refuses_what_cannot_work_and_ends_its_workers_when_it_is_interrupted(cluster, tmp_path):
    variant = variant_from_text("plain=sampling-7.5,steps=2")
    prompts = draw(4, TUNING_SEED)

    def interrupted(line):
        if "images" in line:
            raise KeyboardInterrupt

    executor = chosen(1, cluster.address, [variant.settings], 1, [], lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        running.run(tmp_path, [variant], prompts, TUNING_SEED, batch=1, progress=interrupted, executor=executor)
    wait_for(lambda: not _workers(cluster.head_node.all_processes))
    assert 1 <= len(Results(tmp_path).rows()) < 4

    hidden = running.sight_of(Results(tmp_path))
    (tmp_path / "prompts.json").write_text("{}")
    with pytest.raises(RefcoreError, match=r'machine ".*": the results folder ".*" is not there'):
        list(executor.run([hidden], hidden))


@pytest.mark.slow
def test_workers_share_a_gpu_and_hold_their_models(cluster, monkeypatch):
    """A machine that says it has a GPU: what Ray hands out are names and fractions."""
    cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=STORE)
    told = []
    executor = chosen(1, cluster.address, [], 1, [], told.append)
    monkeypatch.setattr(executor, "_resources", lambda: Resources(gpus=0.5))
    jobs = [Job(f"{i}", isinstance, (Models,)) for i in range(3)]
    assert [outcome.value for _, outcome in executor.run(iter(jobs))] == [True] * 3
    assert told == ["Ray: 2 workers, each with 1 CPU, 0.5 of a GPU, on a machine"]


def _workers(processes, doing=None):
    """The processes of a machine that do a benchmark's jobs, or of them those that do this: "" is nothing."""
    found = []
    for process in psutil.Process(processes["raylet"][0].process.pid).children():
        with contextlib.suppress(psutil.Error, IndexError):  # has ended meanwhile
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            title = process.cmdline()[0]
            if title.startswith("ray::_Worker") and (doing is None or title.removeprefix("ray::_Worker") in doing):
                found.append(process)
    return found


def wait_for(condition):
    deadline = time.monotonic() + STARTING
    while not condition():
        assert time.monotonic() < deadline, f"not within {STARTING} s"
        time.sleep(0.1)


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(RefcoreError, match=r"no cluster answers .*ray start --head"):
        list(chosen(1, "127.0.0.1:1", [], 1, [], print).run([]))


def test_ray_and_workers_are_two_ways():
    with pytest.raises(RefcoreError, match="--workers 2 and --ray auto were given"):
        chosen(2, "auto", [], 1, [], print)


def test_as_many_runs_share_a_gpu_as_fit_and_one_of_unknown_size_has_it_alone():
    gb = 10**9
    assert share_of_gpu(4 * gb, 80 * gb) == 0.0909  # eleven
    assert share_of_gpu(40 * gb, 80 * gb) == share_of_gpu(200 * gb, 80 * gb) == 1
    assert share_of_gpu(None, 80 * gb) == share_of_gpu(gb, None) == 1
    assert share_of_gpu(1, 80 * gb) == 0.0625
    third = Resources(gpus=share_of_gpu(4 * gb, 24 * gb))
    assert third.fitting({"CPU": 16, "GPU": 2}) == 6
    assert third.fitting({"CPU": 4, "GPU": 2}) == 4
    assert third.fitting({"CPU": 4}) == 0
    assert Resources(gpus=1).fitting({"CPU": 8, "GPU": 2}) == 2
    assert Resources().fitting({"CPU": 3}) == 3


@pytest.mark.parametrize("run", [{"device": "cuda:1"}, {"device": "auto", "referees": [{"device": "cuda:3"}]}])
def test_a_run_on_another_gpu_than_a_workers_own_is_refused(run):
    with pytest.raises(RefcoreError, match=r'device is "cuda:[13]", but with --ray each worker sees one GPU'):
        chosen(1, "auto", [None, {"device": "cuda:0"}, run], 1, [], print)


def test_runs_on_the_cpu_ask_for_no_gpu():
    assert wants_gpu([{"device": "cpu"}, {"device": "auto"}])
    assert wants_gpu([{"device": "cuda:0"}])
    assert wants_gpu([None])
    assert not wants_gpu([{"device": "cpu"}])
