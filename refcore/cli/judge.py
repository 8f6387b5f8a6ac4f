"""`refcore judge`: the verdict of a judge, which knows the ground truth about images of its world."""

from __future__ import annotations

from pathlib import Path

import typer

from refcore import images, registry
from refcore.cli.output import print_json, print_table, stdout
from refcore.contracts.judge import Judge


def run(image: Path, prompt: str, by: str, as_json: bool, exit_code: bool) -> None:
    judge: Judge = registry.create("judges", by, where="--by")
    verdict = judge.judge(images.read_levels(image), prompt)
    if as_json:
        print_json(verdict.to_dict())
    else:
        print_table(["asked", "found", ""], [(f.asked, f.found, "ok" if f.ok else "no") for f in verdict.facts])
        stdout.print(f"verdict: {'yes' if verdict.verdict else 'no'}")
    if exit_code and not verdict.verdict:
        raise typer.Exit(1)
