"""Somebody who does what docs/tutorial.md says, and nothing else, ends with an installed referee and a comparison.

The environment is fresh: `python -m venv`, with refcore installed by pip from a wheel of this checkout, and the
reader's package by pip from its folder. One thing is not as it would be at a reader's: the libraries that refcore
depends on are not downloaded again (see `wheels.py`).
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import polars
import pytest
from markdown_blocks import ROOT, blocks
from wheels import OFFLINE, checkout, clean_environment, libraries, wheel

PAGE = ROOT / "docs" / "tutorial.md"
IMAGES = 4
"""Of each variant, as the page asks for."""


def script(page: Path, links: Path) -> str:
    """The page as one shell script: files are written where the reader stands, commands follow each other."""
    lines = ["set -euo pipefail"]
    for number, block in enumerate(blocks(page)):
        if block.title is not None:
            end = f"END_OF_BLOCK_{number}"
            lines.append(f"mkdir -p {shlex.quote(str(Path(block.title).parent))}")
            lines.append(f"cat > {shlex.quote(block.title)} <<'{end}'\n{block.source}{end}")
        elif block.language == "sh":
            lines.append(block.source)
    text = "\n".join(lines)
    made = "python3 -m venv .venv\n"
    assert made in text
    # Python 3.11 brings an old setuptools, which a download would replace; that of the links takes its place.
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = ".venv/bin/python -m pip uninstall --quiet --yes setuptools\n"
    site += f'echo "$LINKS" > "$(.venv/bin/python -c "{purelib}")/links.pth"\n'
    return f"LINKS={shlex.quote(str(links))}\n" + text.replace(made, f"{sys.executable} -m venv .venv\n{site}", 1)


@pytest.mark.slow
def test_the_tutorial_ends_with_an_installed_referee_and_a_comparison(tmp_path: Path) -> None:
    links = libraries(tmp_path / "links")
    package = wheel(checkout(tmp_path / "checkout"), tmp_path / "wheels")
    environment = clean_environment() | OFFLINE
    environment |= {
        "PIP_FIND_LINKS": str(package.parent),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "COLUMNS": "200",
    }
    reader = tmp_path / "reader"
    reader.mkdir()
    done = subprocess.run(
        ["bash", "-c", script(PAGE, links)], cwd=reader, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    folder = reader / "refcore-places"

    refcore = folder / ".venv" / "bin" / "refcore"
    told = subprocess.check_output([refcore, "plugins", "--check", "--json"], cwd=reader, env=environment, text=True)
    (row,) = [row for row in json.loads(told) if row["name"] == "places"]
    assert (row["kind"], row["distribution"], row["version"], row["error"]) == (
        "referees",
        "refcore-places",
        "0.1.0",
        None,
    )
    where = "import refcore, refcore_places; print(refcore.__file__, refcore_places.__file__)"
    files = subprocess.check_output(
        [folder / ".venv/bin/python", "-c", where], cwd=reader, env=environment, text=True
    ).split()
    assert files[0].startswith(str(folder / ".venv")), "refcore is not the one that was installed here"
    assert files[1].startswith(str(folder / "refcore_places"))
    assert "passed" in done.stdout
    assert "failed" not in done.stdout

    results = polars.read_parquet(folder / "runs" / "places" / "results.parquet")
    assert results.group_by("variant").len().sort("variant").rows() == [("playground", IMAGES), ("with-places", IMAGES)]
    show = [refcore, "bench", "show", "runs/places", "--against", "playground", "--json"]
    summary = json.loads(subprocess.check_output(show, cwd=folder, env=environment, text=True))
    (ours,) = [variant for variant in summary["variants"] if variant["variant"] == "with-places"]
    assert "places" in ours["optimised"]
    assert ours["difference"]["pairs"] == IMAGES
    assert -1 <= ours["difference"]["whole"][0]["value"] <= 1
