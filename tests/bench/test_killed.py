"""Worker processes of a benchmark end with it, and one that is killed in the middle of its batch costs that alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from refcore_bench import running
from refcore_bench.tasks.playground_prompts import TUNING_SEED, draw
from refcore_bench.variants import variant_from_text

SCRIPT = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from refcore_bench.executors import local

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=local._start_worker, initargs=([],))
    pool.submit(int).result()
    pool.submit(time.sleep, 600)
    print("busy", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_benchmark_takes_its_workers_along(tmp_path):
    script = tmp_path / "benchmark.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "busy\n"
        parent.kill()
        parent.communicate(timeout=60)  # which waits for everybody who holds its stdout, the worker among them


INTERRUPTED = """
import time
from pathlib import Path
from refcore_bench.executors.job import Job
from refcore_bench.executors.local import Local

def busy(models, name):
    Path(name).touch()
    time.sleep(0 if name == "short" else 600)

if __name__ == "__main__":
    try:
        for job, _ in Local(3).run([Job(name, busy, (name,)) for name in ("first", "second", "short")]):
            print(job.name, flush=True)  # its worker has nothing to do from now on
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.slow
def test_ctrl_c_ends_workers_at_once_and_without_their_tracebacks(tmp_path):
    (tmp_path / "benchmark.py").write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, "benchmark.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the processes of one terminal
    ) as parent:
        assert parent.stdout.readline() == "short\n"
        while not all((tmp_path / name).exists() for name in ("first", "second")):
            assert parent.poll() is None, parent.stderr.read()
            time.sleep(0.1)
        os.killpg(parent.pid, signal.SIGINT)
        told = parent.communicate(timeout=300)
    assert told == ("interrupted\n", "")


@pytest.mark.slow
def test_a_killed_worker_costs_its_batch_and_the_table_ends_the_same(tmp_path):
    variant, prompts, told = variant_from_text("plain=sampling-7.5,steps=20"), draw(6, TUNING_SEED), []

    def progress(line):
        if "images" in line and not any("images" in other for other in told):
            os.kill(_workers()[0], signal.SIGKILL)
        told.append(line)

    by_two = running.run(tmp_path / "two", [variant], prompts, TUNING_SEED, batch=1, workers=2, progress=progress)
    assert sum("was killed during a batch of plain" in line for line in told) == 1, told
    torch.set_num_threads(1)
    serial = running.run(tmp_path / "serial", [variant], prompts, TUNING_SEED, batch=1)
    measured = ("seconds", "load_seconds")
    assert by_two.rows().drop(measured).equals(serial.rows().drop(measured))
    assert by_two.rows(images=True)["image"].equals(serial.rows(images=True)["image"])


def _workers():
    """Process ids of this process's workers."""
    children = psutil.Process().children()
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]
