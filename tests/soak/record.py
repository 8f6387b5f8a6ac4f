"""The record of a soak: one round after another in a JSON file, over as many sittings as it takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from refcore.runs import rundir

ROOT = Path(__file__).parents[2]


class SoakRecord:
    """The rounds done so far, each with its counts, the faults found and the commit that it tested."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: the file, which need not exist; None keeps nothing.
        """
        self.path = path
        self.rounds: list[dict[str, Any]] = []
        if path is not None and path.is_file():
            self.rounds = json.loads(path.read_text("utf-8"))

    def add(self, counts: dict[str, Any]) -> None:
        """Appends a round and writes the file."""
        self.rounds.append({"commit": _commit(), **counts})
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            rundir.write_text(self.path, json.dumps(self.rounds, indent=1) + "\n")

    def total(self, name: str) -> float:
        """Sum of one count over all rounds."""
        return sum(each[name] for each in self.rounds)

    @property
    def faults(self) -> list[str]:
        """All that were found, in words."""
        return [fault for each in self.rounds for fault in each["faults"]]


def _commit() -> str:
    """The checkout's commit, with a mark where something was changed; "" outside of a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
