"""`refcore new` writes a package that installs, is found, and whose tests pass untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from refcore import registry
from refcore.cli import main
from refcore.cli.new import KINDS, class_name, write
from refcore.errors import RefcoreError


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_a_module_an_entry_point_tests_and_a_readme(tmp_path: Path, kind: str) -> None:
    files = {str(path.relative_to(tmp_path)) for path in write(kind, "my-thing", tmp_path)}
    assert files == {
        "refcore-my-thing/pyproject.toml",
        "refcore-my-thing/README.md",
        "refcore-my-thing/refcore_my_thing/__init__.py",
        f"refcore-my-thing/refcore_my_thing/{kind}.py",
        "refcore-my-thing/tests/test_my_thing.py",
    }
    project = tomllib.loads((tmp_path / "refcore-my-thing/pyproject.toml").read_text())
    assert project["project"]["entry-points"]["refcore"] == {"my-thing": "refcore_my_thing"}
    for path in (tmp_path / "refcore-my-thing").rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
        assert "$" not in path.read_text()


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "refcore-thing").mkdir()
    (tmp_path / "refcore-thing" / "mine.txt").write_text("mine")
    with pytest.raises(RefcoreError, match=r'refcore-thing" exists and is not overwritten'):
        write("referee", "thing", tmp_path)
    assert [path.name for path in (tmp_path / "refcore-thing").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("referees", "thing", 'unknown kind of plugin "referees"; known: .*did you mean "referee"'),
        ("referee", "My Thing", '"My Thing" is not a valid.*for example "my-thing"'),
        ("referee", "../thing", 'for example "thing"'),
        ("referee", "2d", 'for example "d"'),
        ("referee", "", "is not a valid plugin name"),
        ("referee", "a--b", 'for example "a-b"'),
        ("referee", "x" * 41, "at most 40 characters"),
        ("referee", "clip", 'the referee "clip" already exists, from refcore'),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_and_nothing_is_written(
    tmp_path: Path, kind: str, name: str, message: str
) -> None:
    with pytest.raises(RefcoreError, match=message):
        write(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_class_never_takes_the_name_of_what_its_module_imports() -> None:
    assert class_name("referees", "hf-clip2") == "HfClip2"
    assert class_name("referees", "conditioning") == "ConditioningReferee"
    assert class_name("canvases", "none") == "NoneCanvas"
    assert class_name("priors", "prior") == "PriorPrior"


def test_the_command_says_what_it_wrote_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for argv in (["new", "prior", "calm"], ["new", "canvas", "tiles", "--json"]):
        with pytest.raises(SystemExit) as left:
            main(argv)
        assert not left.value.code
    text, _, printed = capsys.readouterr().out.partition("{")
    assert 'next: cd refcore-calm && pip install -e ".[test]" && pytest' in text
    assert json.loads("{" + printed)["folder"] == "refcore-tiles"


def installed(tmp_path: Path, kind: str, name: str) -> dict[str, str]:
    """Installs a new package beside nothing else, without a network, and gives the environment that has it."""
    folder = write(kind, name, tmp_path)[0].parent
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(folder)], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_installs_and_its_tests_pass_untouched(tmp_path: Path, kind: str) -> None:
    environment = installed(tmp_path, kind, "my-thing")
    refcore = [sys.executable, "-c", "from refcore.cli import main; main()"]
    listed = subprocess.check_output([*refcore, "plugins", "--check", "--json"], text=True, env=environment)
    (row,) = [row for row in json.loads(listed) if row["name"] == "my-thing"]
    assert (row["kind"], row["distribution"], row["version"]) == (
        {v: k for k, v in registry.SINGULAR.items()}[kind],
        "refcore-my-thing",
        "0.1.0",
    )
    assert row["error"] is None
    assert row["fields"]
    folder = tmp_path / "refcore-my-thing"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(tests, capture_output=True, text=True, cwd=folder, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    for command in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length=120", "--no-cache", "."], cwd=folder, check=True
        )
