"""What users install: four typed packages, in a wheel that works where there is no checkout."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools import Distribution
from wheels import OFFLINE, ROOT, checkout, clean_environment, environment, install, sdist, wheel

PACKAGES = {
    "refcore": "refcore",
    "refcore_plugins": "plugins",
    "refcore_playground": "playground",
    "refcore_bench": "bench",
}
"""Import name -> directory of the checkout."""
LARGEST = 40 * 2**20
"""Bytes of a wheel: the embedded checkpoints (37 MB) and the code, with some room."""
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GROUPS = {
    "console_scripts": PROJECT["scripts"],
    **PROJECT["entry-points"],
}


def sources() -> set[str]:
    """The files of the four directories, by their paths in a wheel."""
    found = set()
    for package, directory in PACKAGES.items():
        for path in (ROOT / directory).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                found.add(str(package / path.relative_to(ROOT / directory)))
    return found


def contents(package: Path) -> dict[str, int]:
    """Path -> checksum of the files in a wheel, but for its record of itself."""
    with zipfile.ZipFile(package) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist() if not entry.filename.endswith("RECORD")}


def test_setuptools_finds_every_file_of_the_four_packages_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    build: Any = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    modules = {str(Path(path)) for _, _, path in build.find_all_modules()}
    data = {str(Path(folder, name)) for _, folder, _, names in build.data_files for name in names}
    assert modules | data == sources()
    assert not modules & data


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed_and_lies_at_the_root_by_its_import_name(package: str) -> None:
    assert (ROOT / package / "__init__.py").samefile(ROOT / PACKAGES[package] / "__init__.py")
    assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, points in GROUPS.items() for name in points])
def test_an_entry_point_leads_to_what_is_there(group: str, name: str) -> None:
    EntryPoint(name, GROUPS[group][name], group).load()


def test_project_citation_and_changelog_agree_on_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    newest = re.search(r"^## (\d\S*) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest.groups() == (PROJECT["version"], str(citation["date-released"]))
    assert citation["version"] == PROJECT["version"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("package") / "checkout")


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    return wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that has the wheel."""
    return environment(tmp_path_factory.mktemp("environment"), built)


@pytest.mark.slow
def test_the_wheel_has_the_four_packages_and_nothing_else(built: Path) -> None:
    information = f"refcore-{PROJECT['version']}.dist-info/"
    found = set(contents(built))
    assert {path for path in found if not path.startswith(information)} == sources()
    assert {f"{information}licenses/{name}" for name in PROJECT["license-files"]} <= found
    assert built.stat().st_size < LARGEST


@pytest.mark.slow
def test_the_wheel_of_the_sdist_is_that_of_the_checkout(source: Path, built: Path, tmp_path: Path) -> None:
    """The sdist has files in the place of links, and neither tests nor what else only a checkout has."""
    with tarfile.open(sdist(source, tmp_path / "sdist")) as archive:
        assert not [entry.name for entry in archive if not (entry.isfile() or entry.isdir())]
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("refcore-*")
    folders = {path.name for path in unpacked.iterdir() if path.is_dir()}
    assert folders == {*PACKAGES, "refcore.egg-info"}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "LICENSES.md"} <= {path.name for path in unpacked.iterdir()}
    assert contents(wheel(unpacked, tmp_path / "wheel")) == contents(built)


def run(python: Path, folder: Path, *words: str) -> str:
    """Output of a command in an environment, run in a folder that is not the checkout's."""
    done = subprocess.run(
        [python.parent / words[0], *words[1:]],
        cwd=folder,
        env=clean_environment() | OFFLINE | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_installed_commands_work_without_a_checkout(python: Path, tmp_path: Path) -> None:
    where = "import " + ", ".join(PACKAGES) + "; print(" + ", ".join(f"{name}.__file__" for name in PACKAGES) + ")"
    for path in run(python, tmp_path, "python", "-c", where).split():
        assert Path(path).is_relative_to(python.parents[1]), "not the wheel's"
    assert run(python, tmp_path, "refcore", "--version") == f"refcore {PROJECT['version']}\n"
    rows = json.loads(run(python, tmp_path, "refcore", "plugins", "--check", "--json"))
    assert {row["distribution"] for row in rows} == {"refcore"}
    assert [row for row in rows if row["error"]] == []
    assert "playground" in run(python, tmp_path, "refcore", "bench", "--help")
    short = ["--set", "steps=2", "--set", "candidates={count: 1}", "--set", "init=null"]
    run(python, tmp_path, "refcore", "invert", "a red circle", "--seed", "0", *short, "--out", "made")
    assert (tmp_path / "made" / "image_0.png").is_file()


@pytest.mark.slow
def test_a_users_plugin_is_found_and_passes_the_kit(python: Path, tmp_path: Path) -> None:
    run(python, tmp_path, "refcore", "new", "referee", "small")
    install(python, tmp_path / "refcore-small")
    rows = json.loads(run(python, tmp_path, "refcore", "plugins", "--check", "--json"))
    (row,) = [row for row in rows if row["name"] == "small"]
    assert (row["distribution"], row["error"]) == ("refcore-small", None)
    told = run(python, tmp_path / "refcore-small", "python", "-m", "pytest", "-p", "no:cacheprovider", "tests")
    assert re.search(r"\d+ passed", told)


SCRIPT = '''\
# pyright: strict
"""A user's script."""

import refcore
from refcore.testing import suite
from refcore_bench.commands import app
from refcore_playground.grammar import parse
from refcore_plugins.referees.clip import Clip

result = refcore.invert("a red circle", preset="playground", seeds=[0])
reveal_type(result)
reveal_type(result.samples[0].seed)
reveal_type(Clip().input_size)
reveal_type(parse("a red circle"))
reveal_type(app)
suite(Clip())
'''
REVEALED = ["Result", "int", "tuple[int, int]", "Request", "Typer"]
WRONG = 'import refcore\n\nrefcore.invert("a red circle", no_such_option=3)\nrefcore.no_such_name()\n'


@pytest.fixture(params=["of the wheel", "of these tests"])
def interpreter(request: pytest.FixtureRequest) -> Path:
    """An interpreter that has refcore: installed from the wheel, and as `make setup` installs it."""
    if request.param == "of the wheel":
        fresh: Path = request.getfixturevalue("python")
        return fresh
    return Path(sys.executable)


def mypy(interpreter: Path) -> list[str]:
    return [
        "mypy",
        "--strict",
        "--cache-dir=/dev/null",
        "--config-file=/dev/null",
        f"--python-executable={interpreter}",
    ]


def pyright(interpreter: Path) -> list[str]:
    return ["pyright", f"--pythonpath={interpreter}"]


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_type_checker_sees_the_types_in_a_users_script(checker: Any, interpreter: Path, tmp_path: Path) -> None:
    """It looks for packages where the interpreter does, and nowhere else."""
    if importlib.util.find_spec(checker.__name__) is None:
        pytest.skip(f"{checker.__name__} is not installed; the extra dev has it")
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", *checker(interpreter), "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    types = re.findall(r'(?:Revealed type is |Type of ".*" is )"(.+)"', told)
    assert [name if "[" in name else name.rpartition(".")[2] for name in types] == REVEALED, told
    errors = [line for line in told.splitlines() if "error:" in line]
    assert len(errors) == 2, told
    for line, name in zip(errors, ("no_such_option", "no_such_name"), strict=True):
        assert "wrong.py" in line
        assert name in line
