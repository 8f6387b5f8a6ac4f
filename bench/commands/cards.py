"""`refcore bench card`, `push` and `pull`. The imports inside functions keep `--help` fast."""

from __future__ import annotations

from typing import Annotated

import typer

from refcore.cli import output
from refcore.errors import RefcoreError

Folder = Annotated[str, typer.Argument(metavar="DIR|URL", help="Results of a benchmark.")]
Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A dataset repository of the hub.")]


def add(app: typer.Typer) -> None:
    """Adds the commands to `refcore bench`."""
    app.command("card")(card)
    app.command("push")(push)
    app.command("pull")(pull)


def card(folder: Folder) -> None:
    """Write the card of a results folder: README.md and card.json, with task, versions, hashes, seeds and licences."""
    from refcore_bench.showing.card import DATA, MARKDOWN, write_card
    from refcore_bench.storing.results import Results

    results = Results.existing(folder)
    write_card(results)
    output.echo(f"{results.storage}/{MARKDOWN} {results.storage}/{DATA}")


def push(
    folder: Folder,
    repository: Repository,
    pictures: Annotated[bool, typer.Option("--pictures", help="Push the pictures, too.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Push results with their card to a dataset repository of the hub, under the account of `hf auth login`."""
    from refcore_bench import hub

    output.echo(hub.push(folder, repository, pictures, private))


def pull(
    repository: Repository,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="New folder for the results.")],
    pictures: Annotated[bool, typer.Option("--pictures", help="Pull the pictures, too.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit.")] = None,
) -> None:
    """Pull the results in a dataset repository of the hub into a new folder."""
    from refcore_bench import hub
    from refcore_bench.commands.parts import print_first
    from refcore_bench.storing.storage import Folder, open_storage

    storage = open_storage(out)
    if not isinstance(storage, Folder):
        raise RefcoreError(f'--out "{out}" is not a folder of this machine; pull into one, and copy that')
    print_first(hub.pull(repository, storage.path, pictures, revision))
