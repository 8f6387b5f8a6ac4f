"""The exclusive lock of a run's folder: two processes never write into one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import time
import weakref
from pathlib import Path

from refcore.errors import RefcoreError

try:
    import fcntl
except ImportError:  # not a POSIX system: its runs have no lock
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""File in a run's folder for as long as the run writes there."""
UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems that have no locks; runs go on without."""
WAITS = (0.01, 0.03, 0.0)
"""Seconds before each further try: who lists runs holds a lock for less than that."""


class FolderLock:
    """An exclusive lock on a folder, made by `take`. The system drops it when the process ends, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.release = weakref.finalize(self, _release, path, descriptor)
        """Gives the folder back; at the latest when the lock is collected, or the process ends."""

    @classmethod
    def take(cls, folder: Path, remedy: str = "name another with --out") -> FolderLock:
        """Takes the lock, from a process that was killed too, which is then said in the log.

        Args:
            folder: to lock.
            remedy: what to do where another run holds it, for the message.

        Raises:
            RefcoreError: another run holds it.
            OSError: the folder cannot be written to.
        """
        path = folder / LOCK
        while True:
            descriptor = _opened(path)
            try:
                _lock(descriptor, folder, remedy)
                kept = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except FileNotFoundError:  # its holder has just ended and removed it
                kept = False
            except BaseException:
                os.close(descriptor)
                raise
            if kept:
                break
            os.close(descriptor)
        if left := _holder(descriptor):
            logging.getLogger(__name__).warning(
                'the folder "%s" was locked by a run that was killed (%s); it is taken over', folder, left
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return cls(path, descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a run is writing to a folder now. Where the system has no locks, a run that was killed counts, too."""
    if fcntl is None:
        return (folder / LOCK).exists()
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back when it is closed
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in UNSUPPORTED
    finally:
        os.close(descriptor)
    return False


def _opened(path: Path) -> int:
    """The lock's file, open; never the one that a link of that name leads to, which may be anybody's.

    Raises:
        RefcoreError: it is a link or another special file, as in a folder that somebody has prepared.
        OSError: it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if not path.is_symlink():
            raise
        raise RefcoreError(f'"{path}" is a link, which no run makes; remove it, or name another --out') from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefcoreError(f'"{path}" is no regular file, which no run makes; remove it, or name another --out')
    return descriptor


def _lock(descriptor: int, folder: Path, remedy: str) -> None:
    if fcntl is None:
        return
    for wait in WAITS:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if wait:
                time.sleep(wait)
                continue
            by = _holder(descriptor) or "another process"
            raise RefcoreError(f'another run is writing to the output folder "{folder}" ({by}); {remedy}') from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        return


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace")


def _release(path: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        path.unlink()  # while it is held, so that nobody holds a file without a name
    with contextlib.suppress(OSError):
        os.close(descriptor)
