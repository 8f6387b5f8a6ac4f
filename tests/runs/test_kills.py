"""Processes that are killed for good: at random moments, at every point between two writes, in a plugin that hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import refcore
from refcore.runs.checkpoints import checkpoints_of

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def soak(*argv: str) -> dict[str, Any]:
    """The report of `tests/soak/kills.py`, in a process that has one thread and no pool of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(TESTS / "soak" / "kills.py"), "--json", *argv],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["faults"] == [], "\n".join(report["faults"])
    return report


@pytest.mark.slow
def test_twenty_kills_at_random_lose_nothing() -> None:
    report = soak("--kills", "20")
    assert report["kills"] == 20
    assert report["resumed"] > 5
    assert report["anew"] < report["resumed"]


@pytest.mark.slow
def test_a_kill_at_every_point_between_two_writes_loses_nothing() -> None:
    report = soak("--world", "toy", "--points")
    assert report["kills"] == report["named_points"] > 80


HANG = """
    import sys
    sys.path.insert(0, {tests!r})
    import time, logging
    from pathlib import Path
    import toys, refcore
    from refcore import registry
    from refcore.runs import watch

    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
    watch.SECONDS = 0.3

    class Hanging(toys.ToyReferee):
        def judge(self, *given, **options):
            if self.calls == 3:
                print("hangs", flush=True)
                time.sleep(600)
            return super().judge(*given, **options)

    for kind, classes in toys.PLUGINS.items():
        for name, cls in classes.items():
            registry.register(kind, name, cls, "of the tests")
    registry.register("referees", "hanging", Hanging, "hangs")
    refcore.invert("a", config=toys.toy_config(referees=[{{"name": "hanging"}}]), out={out!r}, checkpoint=1)
"""


def test_a_plugin_that_hangs_is_named_and_its_run_can_be_killed_and_gone_on_with(tmp_path: Path, toys: None) -> None:
    from toys import ToyReferee, toy_config

    from refcore import registry

    registry.register("referees", "hanging", ToyReferee, "does not")
    code = dedent(HANG).format(tests=str(TESTS), out=str(tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert "hangs\n" in iter(run.stdout.readline, "")
        assert any('in referee "hanging" (judge)' in line for line in iter(run.stdout.readline, ""))
        run.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert run.poll() is None, "SIGTERM waits for the end of the step"
        run.kill()
    assert checkpoints_of(tmp_path / "run")[0].step == 3
    config = toy_config(referees=[{"name": "hanging"}])
    refcore.invert("a", config=config, out=tmp_path / "alone")
    refcore.resume(tmp_path / "run")
    assert (tmp_path / "run" / "image_0.png").read_bytes() == (tmp_path / "alone" / "image_0.png").read_bytes()
