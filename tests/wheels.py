"""The package as its users get it: an sdist, a wheel, and an environment that has the wheel and not the checkout.

Nothing is downloaded. The libraries that refcore depends on are not installed again either: a folder of links to those
of this interpreter, without refcore and without anything that is installed from a checkout, stands in for the package
index, and pip finds them installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("build", "dist", "demo", "runs", "scratch", "site")
"""Folders at the root that commands write and git ignores."""
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: build with the setuptools that is installed
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def clean_environment() -> dict[str, str]:
    """This process's environment variables, but for those that lead Python to other packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def checkout(folder: Path) -> Path:
    """A copy of the checkout in a new folder, links as links, so that a build leaves nothing in this one."""
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.is_symlink() or path.is_file():
            shutil.copy2(path, folder / path.name, follow_symlinks=False)
        elif path.name not in LEFT_OUT and not path.name.startswith(".") and path.suffix != ".egg-info":
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def wheel(source: Path, folder: Path) -> Path:
    """The wheel that pip makes of a source tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, env=os.environ | OFFLINE)
    (made,) = folder.glob("*.whl")
    return made


def sdist(source: Path, folder: Path) -> Path:
    """The sdist that setuptools makes of a source tree."""
    folder.mkdir()
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=source, stdout=subprocess.DEVNULL)
    (made,) = folder.glob("*.tar.gz")
    return made


def libraries(folder: Path) -> Path:
    """Links to what this interpreter has installed, but for refcore and what comes from checkouts."""
    folder.mkdir()
    for site in [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]:
        for path in site.iterdir():
            ours = path.name.startswith(("refcore", "__editable__")) or path.suffix == ".pth"
            if not ours and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


def environment(folder: Path, package: Path) -> Path:
    """The interpreter of a new environment in which pip has installed a wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", purelib], text=True, env=clean_environment()).strip())
    (site / "links.pth").write_text(f"{libraries(folder / 'links')}\n")
    install(python, package)
    return python


def install(python: Path, package: Path) -> None:
    """Installs a wheel or a folder into the environment of `python`."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(package)]
    subprocess.run(command, check=True, env=clean_environment() | OFFLINE)
