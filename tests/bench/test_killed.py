"""Worker processes of a benchmark end with it, also when it is killed in the middle of their batch."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
