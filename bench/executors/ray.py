"""Jobs on the machines of a Ray cluster: actors that keep models loaded, each given one job at a time.

Ray starts processes, moves jobs and notices deaths. What becomes of a job whose worker died is decided here and not by
Ray's own retries, which would wait for the dead worker's machine: the job goes to whichever worker is free next.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from refcore import registry
from refcore.engine import memory
from refcore.engine.models import Models
from refcore.errors import RefcoreError, described
from refcore.runs.rundir import versions
from refcore_bench.executors.job import TRIES, Job, Outcome, Outcomes, called, portable
from refcore_bench.executors.resources import Resources, least_bytes, refuse_other_gpus, share_of_gpu, wants_gpu
from refcore_bench.executors.waiting import Waiting, in_sight
from refcore_bench.executors.warm import Warm
from refcore_bench.extras import need

Progress = Callable[[str], None]
POLL_SECONDS = 2.0
"""Time between two looks at which machines there are."""
KNOCK_SECONDS = 10.0
"""Longest time to wait for a cluster to answer."""
PATIENCE_SECONDS = 600.0
"""Longest time without any worker, while machines come or processes start."""
PROBE_SECONDS = 60.0
"""Longest time to wait for the size of a GPU; one that is busy counts as unknown."""
COMPARED = ("refcore", "torch")
"""Packages whose versions must be the same everywhere: others have other last bits, or another definition of a job."""


class Ray:
    """An `Executor` on a Ray cluster. Machines may join and leave while it runs."""

    def __init__(
        self,
        address: str = "auto",
        runs: Sequence[Mapping[str, Any] | None] = (),
        images: int = 1,
        plugin_folders: Sequence[Path] = (),
        progress: Progress = lambda line: None,
    ) -> None:
        """
        Args:
            address: of the cluster, as for `ray.init`; "auto" is the one that this machine belongs to.
            runs: settings of the runs that the jobs make, None for what is no run; they decide how many share a GPU.
            images: made side by side.
            plugin_folders: folders of plugin files for the workers, at the same path on every machine.
            progress: progress callback; receives a line about the workers, and where one dies.

        Raises:
            RefcoreError: Ray is not installed; a run names a GPU beyond the first.
        """
        refuse_other_gpus(runs)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics of the cluster to its makers
        self._ray = need("ray", "ray")
        self._address, self._runs, self._images = address, runs, images
        self._plugin_folders = [folder.absolute() for folder in plugin_folders]
        self._progress = progress

    def run(self, jobs: Iterable[Job], check: Job | None = None) -> Outcomes:
        """(job, outcome) of each job as it finishes; see `Executor.run`.

        Raises:
            RefcoreError: no cluster, no room on it for a worker, other versions on a machine, a worker that fails
                `check`.
        """
        mine = self._connect()
        pool: _Pool | None = None
        try:
            pool = _Pool(self._ray, self._resources(), self._plugin_folders, check, self._progress)
            yield from pool.run(jobs)
        finally:
            if pool is not None:
                pool.end()
            if mine:
                self._ray.shutdown()

    def _connect(self) -> bool:
        """Joins the cluster; whether that was done here, and not by the caller before."""
        if self._ray.is_initialized():
            return False
        try:
            _knock(self._address)
            with _own_handlers():
                self._ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, each of several meanings
            raise RefcoreError(
                f'--ray "{self._address}": no cluster answers ({described(error)}); start one with `ray start --head`, '
                "and `ray start --address=HOST:PORT` on the other machines"
            ) from error
        return True

    def _resources(self) -> Resources:
        """What a worker asks for: a part of a GPU where there are any and the runs would use it, else a CPU."""
        with_gpu = [node for node in _alive(self._ray) if node["Resources"].get("GPU")]
        if not with_gpu or not wants_gpu(self._runs):
            return Resources()
        least = least_bytes(self._runs, self._images)
        return Resources(gpus=share_of_gpu(least, self._smallest_gpu(with_gpu) if least is not None else None))

    def _smallest_gpu(self, nodes: Sequence[Mapping[str, Any]]) -> int | None:
        """Bytes of the smallest GPU; None where a machine does not tell."""
        strategy = need("ray.util.scheduling_strategies", "ray").NodeAffinitySchedulingStrategy
        asked = self._ray.remote(_gpu_bytes).options(num_cpus=0, num_gpus=0.01, max_retries=0)
        found = [asked.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote() for node in nodes]
        try:
            sizes = self._ray.get(found, timeout=PROBE_SECONDS)
        except self._ray.exceptions.RayError:
            for one in found:
                self._ray.cancel(one, force=True)
            return None
        return None if None in sizes else int(min(sizes))


class _Pool:
    """The workers of one call of `Ray.run`."""

    def __init__(
        self, ray: Any, resources: Resources, plugin_folders: Sequence[Path], check: Job | None, progress: Progress
    ) -> None:
        self._ray, self._resources, self._progress = ray, resources, progress
        self._given = ([str(folder) for folder in plugin_folders], resources.cpus, resources.gpus)
        self._check = check
        self._actor = ray.remote(_Worker).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, max_task_retries=0
        )
        self._workers: list[Any] = []
        self._free: list[Any] = []
        self._groups: dict[Any, str] = {}
        """Worker -> group of its last job."""
        self._busy: dict[Any, tuple[Any, Job | None]] = {}
        """What is awaited -> the worker, and its job; None while it starts."""
        self._failed = 0
        """Workers that died while they started, since the last one that did not."""
        self._said = 0

    def run(self, jobs: Iterable[Job]) -> Outcomes:
        most = len(jobs) if isinstance(jobs, Sequence) else None
        if most == 0:
            return
        waiting: Waiting | None = None
        looked, without = -POLL_SECONDS, time.monotonic()
        while True:
            if (now := time.monotonic()) - looked >= POLL_SECONDS:
                looked, room = now, self._room()
                self._add(room if most is None else min(room, most))
                if waiting is None:
                    waiting = Waiting(jobs, in_sight(len(self._workers)))
            assert waiting is not None
            left = self._hand_out(waiting)
            if not left and all(job is None for _, job in self._busy.values()):
                return
            if self._free or any(job is not None for _, job in self._busy.values()):
                without = time.monotonic()
            elif time.monotonic() - without > PATIENCE_SECONDS:
                raise RefcoreError(
                    f"the Ray cluster has had no worker for {PATIENCE_SECONDS:.0f} s: it has no room for "
                    f"{self._resources}, or the processes do not start; see `ray status`"
                )
            if not self._busy:
                time.sleep(POLL_SECONDS)
                continue
            for done in self._ray.wait(list(self._busy), num_returns=1, timeout=POLL_SECONDS)[0]:
                worker, job = self._busy.pop(done)
                if job is None:
                    self._start(worker, done)
                elif (outcome := self._outcome(worker, job, done, waiting)) is not None:
                    yield job, outcome

    def end(self) -> None:
        """Ends all workers at once, whatever they do."""
        for worker in self._workers:
            self._ray.kill(worker, no_restart=True)
        self._workers.clear()

    def _room(self) -> int:
        return sum(self._resources.fitting(node["Resources"]) for node in _alive(self._ray))

    def _add(self, wanted: int) -> None:
        for _ in range(wanted - len(self._workers)):
            worker = self._actor.remote(*self._given)
            self._workers.append(worker)
            self._busy[worker.ready.remote(versions(COMPARED), self._check)] = worker, None
        if len(self._workers) > self._said:
            self._said = len(self._workers)
            machines = sum(self._resources.fitting(node["Resources"]) > 0 for node in _alive(self._ray))
            workers = "a worker" if self._said == 1 else f"{self._said} workers, each"
            where = "a machine" if machines == 1 else f"{machines} machines"
            self._progress(f"Ray: {workers} with {self._resources}, on {where}")

    def _hand_out(self, waiting: Waiting) -> bool:
        """Gives each free worker a job; whether there may be more of them."""
        while self._free:
            worker = self._free[0]
            job = waiting.take(self._groups.get(worker))
            if job is None:
                return False
            self._free.pop(0)
            self._groups[worker] = job.group
            self._busy[worker.call.remote(job)] = worker, job
        return True

    def _start(self, worker: Any, done: Any) -> None:
        """Takes a worker that has started."""
        try:
            outcome: Outcome = self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            self._forget(worker)
            self._failed += 1
            if self._failed >= TRIES * max(1, len(self._workers)):
                raise RefcoreError(f"the workers on the Ray cluster do not start: {described(error)}") from error
            return
        if outcome.error is not None:
            raise outcome.error
        self._failed = 0
        self._free.append(worker)

    def _outcome(self, worker: Any, job: Job, done: Any, waiting: Waiting) -> Outcome | None:
        """The outcome of a job; None where its worker died and it waits for another."""
        try:
            outcome: Outcome = self._ray.get(done)
        except self._ray.exceptions.RayTaskError as error:  # not of the job, whose errors are outcomes: of the way here
            outcome = Outcome(error=RefcoreError(f"{job.name}: {described(error)}"))
        except self._ray.exceptions.RayError:
            self._forget(worker)
            lost = waiting.died(job)
            if lost is None:
                self._progress(f"a worker was killed during {job.name}, which begins again")
            return lost
        self._free.append(worker)
        return waiting.finished(job, outcome)

    def _forget(self, worker: Any) -> None:
        self._workers.remove(worker)
        self._groups.pop(worker, None)
        self._ray.kill(worker, no_restart=True)  # one that only cannot be reached must not come back


class _Worker:
    """A process of the cluster; an actor of Ray."""

    def __init__(self, plugin_folders: Sequence[str], cpus: int, gpus: float) -> None:
        torch.set_num_threads(cpus)
        if 0 < gpus < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(gpus)
        self._plugin_folders = plugin_folders
        self._warm = Warm()

    def ready(self, expected: dict[str, str], check: Job | None) -> Outcome:
        """Whether jobs can be done here: the same versions, all plugin folders, and what the jobs' owner checks."""
        job = Job("the check of a worker", _checked, (expected, self._plugin_folders, check))
        return portable(called(job, self._warm.models))

    def call(self, job: Job) -> Outcome:
        return portable(self._warm.call(job))


def _checked(models: Models, expected: dict[str, str], plugin_folders: Sequence[str], check: Job | None) -> None:
    host = os.uname().nodename
    here = versions(COMPARED)
    for package, version in expected.items():
        if here.get(package) != version:
            raise RefcoreError(
                f'machine "{host}" has {package} {here.get(package)}, and this one {version}; install the same version'
            )
    for folder in plugin_folders:
        registry.add_folder(Path(folder))
    if check is not None:
        try:
            check.function(models, *check.arguments)
        except RefcoreError as error:
            raise RefcoreError(f'machine "{host}": {error}') from error


def _knock(address: str) -> None:
    """Asks whether anybody listens at HOST:PORT, which Ray itself would do for a minute.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps what this process does at SIGTERM, for which Ray has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _gpu_bytes() -> int | None:
    return memory.total_memory(torch.device("cuda")) if torch.cuda.is_available() else None


def _alive(ray: Any) -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
