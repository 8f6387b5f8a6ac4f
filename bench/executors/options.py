"""Options of a command line that say where its jobs run."""

from __future__ import annotations

from typing import Annotated

import typer

Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes; more than one run one thread each.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="auto|ADDRESS", help="Run on a Ray cluster: the one of this machine, or the one at HOST:PORT."
    ),
]
