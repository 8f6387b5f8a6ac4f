"""Jobs in this process, or in several processes of this machine with one torch thread each, by the standard library."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch

from refcore import registry
from refcore.errors import RefcoreError, described
from refcore_bench.executors.job import Job, Outcome, Outcomes, portable
from refcore_bench.executors.waiting import Waiting, in_sight
from refcore_bench.executors.warm import Warm

Progress = Callable[[str], None]


class Local:
    """An `Executor` on this machine. Worker processes end with it, also where it is killed."""

    def __init__(
        self, workers: int = 1, plugin_folders: Sequence[Path] = (), progress: Progress = lambda line: None
    ) -> None:
        """
        Args:
            workers: processes of one torch thread each; 1 is this process, with torch's own number of threads.
            plugin_folders: folders of plugin files for the workers; this process has read them already.
            progress: progress callback; receives a line where a worker dies.
        """
        self.workers = workers
        self._plugin_folders = list(plugin_folders)
        self._progress = progress

    def run(self, jobs: Iterable[Job], check: Job | None = None) -> Outcomes:
        """(job, outcome) of each job as it finishes; see `Executor.run`."""
        if self.workers == 1 or (isinstance(jobs, Sequence) and len(jobs) < 2):
            warm = Warm()
            for one in jobs:
                yield one, warm.call(one)
            return
        number = min(self.workers, len(jobs)) if isinstance(jobs, Sequence) else self.workers
        waiting = Waiting(jobs, in_sight(number))
        free: list[_Worker] = [_Worker(self._plugin_folders) for _ in range(number)]
        busy: dict[Future[Outcome], tuple[_Worker, Job]] = {}
        try:
            while True:
                while free and (job := waiting.take(free[0].group)) is not None:
                    worker = free.pop(0)
                    busy[worker.begin(job)] = worker, job
                if not busy:
                    return
                done, _ = wait(busy, return_when=FIRST_COMPLETED)
                for future in done:
                    worker, job = busy.pop(future)
                    try:
                        outcome: Outcome | None = waiting.finished(job, future.result())
                    except BrokenProcessPool:
                        worker.end()
                        worker = _Worker(self._plugin_folders)
                        outcome = waiting.died(job)
                        if outcome is None:
                            self._progress(f"a worker process was killed during {job.name}, which begins again")
                    except Exception as error:  # not of the job, whose errors are outcomes: of the way there or back
                        outcome = waiting.finished(job, Outcome(error=RefcoreError(f"{job.name}: {described(error)}")))
                    free.append(worker)
                    if outcome is not None:
                        yield job, outcome
        finally:
            for worker in [*free, *(worker for worker, _ in busy.values())]:
                worker.end(wait=False)
            for worker in [*free, *(worker for worker, _ in busy.values())]:
                worker.end()


class _Worker:
    """A process of its own: where several share one pool, the death of one ends them all."""

    def __init__(self, plugin_folders: Sequence[Path]) -> None:
        # Forked processes would inherit torch's thread pools in an unknown state.
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_start_worker, initargs=(list(plugin_folders),)
        )
        self.group: str | None = None
        """Group of its last job."""

    def begin(self, job: Job) -> Future[Outcome]:
        self.group = job.group
        try:
            return self._pool.submit(_work, job)
        except BrokenProcessPool as error:  # killed while it had nothing to do
            died: Future[Outcome] = Future()
            died.set_exception(error)
            return died

    def end(self, wait: bool = True) -> None:
        """Lets it finish its job, begins no other."""
        self._pool.shutdown(wait=wait, cancel_futures=True)


def _work(job: Job) -> Outcome:
    return portable(_warm().call(job))


@cache
def _warm() -> Warm:
    """The models of this process, a worker."""
    return Warm()


def _start_worker(plugin_folders: Sequence[Path]) -> None:
    # A terminal's Ctrl-C reaches all its processes: the benchmark says what there is to say, and workers just end.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    for folder in plugin_folders:
        registry.add_folder(folder)


def _end_with_parent() -> None:
    """Ends a worker whose benchmark was killed; it would finish its batch with nobody to take the result."""
    parent = parent_process()
    assert parent is not None, "a worker is started by the benchmark"
    parent.join()
    os._exit(1)
