"""Results folders as dataset repositories of the Hugging Face hub: pushed with their card, pulled as data alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from refcore.checkpoints import offline_error
from refcore.errors import RefcoreError, described
from refcore_bench.showing.card import DATA, MARKDOWN, write_card
from refcore_bench.storing.results import Results

ROWS: Final = (
    MARKDOWN,
    DATA,
    "results.parquet",
    "measurements.parquet",
    "prompts.json",
    "metrics.json",
    "thresholds.json",
    "budgets.json",
    "witnesses.json",
    "variants/*.json",
)
"""Patterns of the files that are pushed."""
PICTURES: Final = ("parts/*/*.parquet", "sheets/*.png")
"""Patterns of those that are pushed with the pictures."""


def push(
    folder: Path, repository: str, pictures: bool = False, private: bool = False, endpoint: str | None = None
) -> str:
    """Pushes the results in a folder, with a new card, to a dataset repository, which is made if need be.

    Args:
        folder: of results.
        repository: owner/name.
        pictures: whether the pictures go with them.
        private: whether a new repository is private.
        endpoint: address of the hub; None: that of huggingface_hub.

    Returns:
        The address of the commit.

    Raises:
        RefcoreError: the folder has no results; the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    results = Results.existing(folder)
    write_card(results)
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[*ROWS, *(PICTURES if pictures else ())],
            commit_message=f"Results of refcore bench {results.task.name}",
        )
    except Exception as error:  # the library passes on those of its own and of the network
        raise _refused(repository, error) from error
    return str(done.commit_url)


def pull(
    repository: str, out: Path, pictures: bool = False, revision: str | None = None, endpoint: str | None = None
) -> Results:
    """The results in a dataset repository, copied into a folder that has none. Nothing in them is run.

    Args:
        repository: owner/name.
        out: folder, new or empty.
        pictures: whether the pictures are copied, too, if the repository has them.
        revision: branch, tag or commit.
        endpoint: address of the hub; None: that of huggingface_hub.

    Raises:
        RefcoreError: the folder is not empty; the repository cannot be reached, or holds no results.
    """
    from huggingface_hub import snapshot_download

    if out.exists() and any(out.iterdir()):
        raise RefcoreError(f'--out "{out}" is not empty; expected a new folder')
    try:
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            local_dir=out,
            allow_patterns=[*ROWS, *(PICTURES if pictures else ())],
            endpoint=endpoint,
        )
    except Exception as error:  # the library passes on those of its own and of the network
        raise _refused(repository, error) from error
    results = Results.existing(out)
    results.variants()  # broken files are found now
    return results


def _refused(repository: str, error: Exception) -> RefcoreError:
    import httpx

    if isinstance(error, RefcoreError):
        return error
    status = _status(error)
    if status in (401, 403):
        return RefcoreError(
            f'the hub refuses "{repository}" ({status}); log in with `hf auth login`, with a token that may write'
        )
    if status == 404:
        return RefcoreError(
            f'the hub has no dataset repository "{repository}"; expected owner/name of one that you may see'
        )
    if isinstance(error, (OSError, httpx.HTTPError)) and status is None:
        return offline_error(repository, error, "connect to the network, and try again")
    return RefcoreError(f'"{repository}" cannot be pushed or pulled: {described(error)}')


def _status(error: Exception) -> int | None:
    answer: Any = getattr(error, "response", None)
    code = getattr(answer, "status_code", None)
    return int(code) if code is not None else None
