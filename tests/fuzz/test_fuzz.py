"""Whatever is thrown at the command line, it ends in time with a result or one clear sentence, and writes where it may.

`make soak-fuzz` throws many more, from another seed each time.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fuzz.surfaces import SURFACES
from fuzz.thrown import Ends, models_kept, throw
from fuzz.watched import Outcome, Sandbox, faults

FAST, SLOW = 150, 2000
"""Cases of all surfaces together in the fast tests and in the slow ones."""
DONE: Ends = Counter()


@pytest.fixture(scope="module", autouse=True)
def _models_are_kept():
    with models_kept():
        yield
    for surface in SURFACES:
        ends = {end: count for (name, end), count in sorted(DONE.items()) if name == surface}
        print(f"{surface}: {sum(ends.values())} calls, {', '.join(f'{count} {end}' for end, count in ends.items())}")
    print(f"{sum(DONE.values())} calls in all")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    return Sandbox(tmp_path_factory.mktemp("sandbox"))


@pytest.mark.parametrize("surface", SURFACES)
def test_what_is_thrown_at_it_is_a_result_or_a_clear_sentence(surface, sandbox):
    throw(surface, FAST, sandbox, DONE)


@pytest.mark.slow
@pytest.mark.parametrize("surface", SURFACES)
def test_so_is_what_is_thrown_at_it_for_longer(surface, sandbox):
    throw(surface, SLOW, sandbox, DONE)


def test_a_message_with_internals_or_without_a_name_would_be_found():
    said = Outcome(["score"], 1, "", "error: KeyError: 'x' (an error in refcore or a plugin; ...)\n", 0.1, [])
    assert faults(said) == ["internals: an error in refcore or a plugin"]
    assert faults(Outcome([], 1, "", "error: no\n", 0.1, []), ["steps"]) == ["it names none of ['steps']"]
    assert faults(Outcome([], 1, "", f"error: {'x' * 600}\n", 0.1, [])) == ["600 characters"]
    assert faults(Outcome([], 1, "", "error: a\x1b[31m\n", 0.1, [])) == ["it prints ['\\x1b']"]
    assert faults(Outcome([], 1, "", "Traceback\nerror: a\n", 0.1, []))
    assert faults(Outcome([], 0, "fine\n", "", 99.0, [])) == ["it took 99.0 s"]
    assert faults(Outcome([], 1, "", "error: steps is 0\n", 0.1, []), ["steps"]) == []


def test_a_write_outside_of_the_run_s_folder_and_a_connection_would_be_found(sandbox, monkeypatch):
    sandbox.empty()
    elsewhere = Path(sandbox.root / "elsewhere")

    def trespass(*_: object) -> None:
        elsewhere.write_text("x")
        (sandbox.root / "home" / "file").touch()
        subprocess.run(["true"], check=True)
        with socket.socket() as connection:
            connection.settimeout(0.01)
            connection.connect_ex(("127.0.0.1", 9))

    monkeypatch.setattr("refcore.cli.presets.run", trespass)
    found = sandbox.call("presets").trespasses
    assert any(one == f"writes {elsewhere}" for one in found)
    assert any(one.startswith("native code writes") and one.endswith("home/file") for one in found)
    assert any("subprocess.Popen" in one for one in found)
    assert any("socket.connect" in one for one in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("config", "validate", "--set", "steps=0"),
        ("judge", "/dev/zero", "a red circle"),
        ("invert", "a\x07b"),
        ("bench", "compare", "/", "/dev"),
        ("config", "validate", "/dev/zero"),
    ],
)
def test_a_process_of_its_own_ends_the_same(words, tmp_path):
    code = "from refcore.cli import main\nmain()"
    process = [sys.executable, "-c", code, *words]
    done = subprocess.run(process, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert faults(Outcome(words, done.returncode, done.stdout, done.stderr, 0.0, [])) == []
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []
