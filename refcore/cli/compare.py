"""`refcore compare`: several runs on one page."""

from __future__ import annotations

from pathlib import Path

from refcore.cli.output import print_table
from refcore.cli.report import open_in_browser
from refcore.runs import rundir
from refcore.runs.report.comparison import fields_of, free_path, names_of, runs_in, write_comparison


def run(folders: list[Path], out: Path | None, open_page: bool) -> None:
    if out is not None:
        rundir.refuse_existing(out, "--out")
    runs = runs_in(folders)
    path = free_path(Path()) if out is None else out
    write_comparison(runs, path)
    if fields := fields_of(runs):
        print_table(["field", *names_of(runs)], [[field, *values] for field, values in fields])
    else:
        print("The configs do not differ.")
    print(f"comparison: {path}")
    if open_page:
        open_in_browser(path)
