"""Results folders as dataset repositories of the Hugging Face hub: pushed with their card, pulled as data alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from refcore.errors import RefcoreError, described
from refcore_bench.showing.card import DATA, MARKDOWN, write_card
from refcore_bench.storing.results import Results
from refcore_bench.storing.storage import Folder, Storage

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
BEGUN: Final = ".pull"
"""File of a folder whose pull has begun and not ended: repository and revision."""


def push(
    folder: str | Path, repository: str, pictures: bool = False, private: bool = False, endpoint: str | None = None
) -> str:
    """Pushes the results in a folder, with a new card, to a dataset repository, which is made if need be.

    Args:
        folder: of results, a path or a URL.
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

    from refcore_plugins.models.hub_reach import try_again

    try_again()

    results = Results.existing(folder)
    write_card(results)
    api = HfApi(endpoint=endpoint)
    patterns = [*ROWS, *(PICTURES if pictures else ())]
    with _here(results.storage, patterns) as place:
        try:
            api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository,
                repo_type="dataset",
                folder_path=place,
                allow_patterns=patterns,
                commit_message=f"Results of refcore bench {results.task.name}",
            )
        except Exception as error:  # the library passes on those of its own and of the network
            raise _refused(repository, error) from error
    return str(done.commit_url)


@contextmanager
def _here(storage: Storage, patterns: Sequence[str]) -> Iterator[Path]:
    """The files on this machine: their folder, or a copy for as long as it is needed."""
    if isinstance(storage, Folder):
        yield storage.path
        return
    with TemporaryDirectory() as copy:
        for name in [name for pattern in patterns for name in storage.listed(pattern)]:
            Folder(Path(copy)).write(name, storage.read(name))
        yield Path(copy)


def pull(
    repository: str, out: Path, pictures: bool = False, revision: str | None = None, endpoint: str | None = None
) -> Results:
    """The results in a dataset repository, copied into a folder that has none. Nothing in them is run.

    Args:
        repository: owner/name.
        out: folder, new or empty, or with what the same call had copied when it was interrupted.
        pictures: whether the pictures are copied, too, if the repository has them.
        revision: branch, tag or commit.
        endpoint: address of the hub; None: that of huggingface_hub.

    Raises:
        RefcoreError: the folder is not empty; the repository cannot be reached, or holds no results.
    """
    from huggingface_hub import HfApi, snapshot_download

    from refcore_plugins.models.hub_reach import try_again

    try_again()

    storage = Folder(out)
    asked = f"{repository} {revision or ''}\n"
    begun = storage.exists(BEGUN) and storage.read(BEGUN) == asked.encode()
    if out.exists() and not begun and (not out.is_dir() or any(out.iterdir())):
        raise RefcoreError(f'--out "{out}" is not empty; expected a new folder')
    patterns = [*ROWS, *(PICTURES if pictures else ())]
    try:
        # Asked first: of a repository that it cannot reach, snapshot_download returns whatever is in the folder.
        found = HfApi(endpoint=endpoint).dataset_info(repository, revision=revision)
        storage.write(BEGUN, asked.encode())
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=found.sha,
            local_dir=out,
            allow_patterns=patterns,
            endpoint=endpoint,
        )
    except Exception as error:  # the library passes on those of its own and of the network
        raise _refused(repository, error) from error
    for name in [file.rfilename for file in found.siblings or ()]:
        if any(fnmatch(name, pattern) for pattern in patterns) and not storage.exists(name):
            raise RefcoreError(f'"{name}" of "{repository}" was not pulled; the same command continues')
    results = Results.existing(out)
    results.variants()  # broken files are found now
    storage.remove([BEGUN])
    return results


def _refused(repository: str, error: Exception) -> RefcoreError:
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, RefcoreError):
        return error
    if isinstance(error, HFValidationError):
        return RefcoreError(f'"{repository}" is no name of a dataset repository; expected owner/name')
    status = _status(error)
    if status in (401, 403):
        return RefcoreError(
            f'the hub refuses "{repository}" ({status}); log in with `hf auth login`, with a token that may write'
        )
    if status == 404:
        return RefcoreError(
            f'the hub has no dataset repository "{repository}"; expected owner/name of one that you may see'
        )
    # By name: the HTTP client of huggingface_hub is another package from version to version.
    if status is None and {"OSError", "HTTPError"} & {kind.__name__ for kind in type(error).__mro__}:
        return RefcoreError(
            f'the hub cannot be reached for "{repository}" ({type(error).__name__}); connect to the network, and try '
            "again"
        )
    return RefcoreError(f'"{repository}" cannot be pushed or pulled: {described(error)}')


def _status(error: Exception) -> int | None:
    answer: Any = getattr(error, "response", None)
    code = getattr(answer, "status_code", None)
    return int(code) if code is not None else None
