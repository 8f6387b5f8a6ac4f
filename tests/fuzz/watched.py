"""Calls of the command line in this process, each watched: what it prints, writes, starts, connects to, and how long.

Python's audit events tell of every file that Python code opens for writing, wherever it lies, of programs and of
connections; a comparison of folders before and after tells of files that native code writes.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import typer.main

from refcore import registry
from refcore.cli import main
from refcore.engine import loading
from refcore.engine.models import Models
from refcore.runs import run

SECONDS = 10
"""Longest time of a processor that a call may take."""
WAIT = 60
"""Longest time that a call may take by the clock: a machine that does other things makes it wait, too."""
MEMORY = 4 * 2**30
"""Bytes that a call may add to the process's address space."""
LONGEST = 500
"""Characters of a message, without the words of the command line that it repeats."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS_OF = {
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.remove": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
}
"""Audit events that change the file system -> how many of their arguments are paths."""
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "socket.bind",
    "urllib.Request",
    "webbrowser.open",
)
"""Audit events of programs and of the network."""
INTERNALS = re.compile(
    r"Traceback|object at 0x|<(class|function|module|bound method|built-in)\b|PosixPath\(|dict_(keys|values|items)\("
    r"|FieldInfo\(|torch\.Size|<_io\.|an error in refcore or a plugin|\bself\.[a-z_]|\bNoneType\b"
    r"|pydantic|instance of [A-Z]|to extract fields"
)
"""What only the authors of refcore understand."""


class Hang(BaseException):
    """A call that takes more than SECONDS."""


@dataclass
class Outcome:
    """What a call did."""

    words: Sequence[str]
    status: int
    out: str
    err: str
    seconds: float
    trespasses: list[str]
    """Files written elsewhere than in the run's folder, programs started, connections."""

    @property
    def message(self) -> str:
        """The line that says why the command failed; "" where it did not."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return lines[-1].removeprefix("error: ") if lines else ""


@dataclass
class _Watch:
    """What the audit hook reports to; a hook cannot be removed, only told to be silent."""

    watching: bool = False
    allowed: tuple[str, ...] = ()
    found: list[str] = field(default_factory=list)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
                self.note("writes", path)
        elif event in PATHS_OF:
            for path in arguments[: PATHS_OF[event]] if event != "os.symlink" else arguments[1:2]:
                self.note(event, path)
        elif event in FORBIDDEN and arguments[:1] != ("uname",):  # Python's own module platform asks it
            self.found.append(f"{event} {arguments!r:.200}")

    def note(self, event: str, path: object) -> None:
        if isinstance(path, int):
            return
        place = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        own = re.fullmatch(r"\.refcore-[0-9a-f]+\.partial", os.path.basename(place)) and event == "os.remove"
        if place == os.devnull or "__pycache__" in place or own:  # own: removed in case that it was made
            return
        if any(place.startswith(folder) for folder in self.allowed):
            return
        self.found.append(f"{event} {place}")


_WATCH = _Watch()
sys.addaudithook(_WATCH.hear)


class Sandbox:
    """A home, a folder for temporary files and a working directory, all empty before each call, and one for input."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.given = self.root / "given"
        """Files that the next call reads."""
        self.out = self.root / "working" / "out"
        """Folder of the run, which alone may be written."""

    def empty(self) -> None:
        """Empties all of its folders."""
        for name in ("given", "home", "tmp", "working"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir(parents=True)

    def call(self, *words: object) -> Outcome:
        """`refcore WORDS`, in this process.

        Raises:
            Hang: it takes too long.
        """
        argv = [str(word) for word in words]
        printed, reported = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        before = self._files()
        _WATCH.allowed, _WATCH.found = (str(self.out), str(self.root / "working" / "runs")), []
        status: object = None
        began = time.process_time()
        with self._world(), patch.object(sys, "stdout", printed), patch.object(sys, "stderr", reported):
            _WATCH.watching = True
            try:
                main(argv)
            except SystemExit as left:
                status = left.code
            finally:
                _WATCH.watching = False
                _alarm(0, 0)
        seconds = time.process_time() - began
        after = self._files()
        changed = [f"native code writes {path}" for path in {*before, *after} if before.get(path) != after.get(path)]
        texts = [stream.buffer.getvalue().decode() for stream in (printed, reported)]  # type: ignore[attr-defined]
        code = status if isinstance(status, int) else int(status is not None)
        return Outcome(argv, code, *texts, seconds, [*_WATCH.found, *changed])

    def _files(self) -> dict[Path, tuple[int, int]]:
        """Path -> size and time of change of all files outside of the folders that a run may write."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [one for one in folders if (folder, one) != (str(self.root / "working"), "runs")]
            folders[:] = [one for one in folders if one != "__pycache__" and Path(folder, one) != self.out]
            for name in (*folders, *files):
                facts = os.lstat(os.path.join(folder, name))
                place = Path(folder, name)
                found[place] = (0, 0) if place.is_dir() else (facts.st_size, facts.st_mtime_ns)
        return found

    @contextlib.contextmanager
    def _world(self) -> Iterator[None]:
        """The working directory, the environment, the registry and the limits of one call."""
        places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home/.cache", "XDG_CONFIG_HOME": "home/.config"}
        registry.rows()  # or else the names of this call would be all that is registered
        own = registry._installed
        registered = ({key: list(claims) for key, claims in own._entries.items()}, list(own._broken), set(own._folders))
        modules = set(sys.modules)
        here = os.getcwd()
        before = {number: signal.signal(number, _hang) for number in (signal.SIGALRM, signal.SIGPROF)}
        os.chdir(self.root / "working")
        try:
            with (
                patch.dict(os.environ, {name: str(self.root / place) for name, place in places.items()}),
                patch.object(tempfile, "tempdir", str(self.root / "tmp")),
                _memory(),
            ):
                _alarm(SECONDS, WAIT)
                yield
        finally:
            _alarm(0, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.chdir(here)
            own._entries, own._broken, own._folders = registered
            for name in set(sys.modules) - modules:
                if name.startswith("refcore_folder_"):
                    del sys.modules[name]


def _alarm(busy: float, waiting: float) -> None:
    """Ends what takes longer, again and again where a callback swallows the first; 0: nothing."""
    signal.setitimer(signal.ITIMER_PROF, busy, 1 if busy else 0)
    signal.setitimer(signal.ITIMER_REAL, waiting, 1 if waiting else 0)


def _hang(number: int, frame: types.FrameType | None) -> None:
    raise Hang(f"no end after {SECONDS} s of work" if number == signal.SIGPROF else f"no end after {WAIT} s")


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """A bound of the address space, so that a bomb is an error and not the end of the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Models and the parser of the command line are kept between calls, which then take milliseconds."""
    registry.rows(check=True)  # imports every plugin, which takes longer than a call may
    models = Models()
    with (
        patch.object(typer.main, "get_command", functools.cache(typer.main.get_command)),
        patch.object(run, "Run", functools.partial(run.Run, models=models)),
        patch.object(loading, "load_panel", functools.partial(loading.load_panel, models=models)),
    ):
        yield
    models.clear()
    gc.collect()  # of models in circles, so that later tests find none


def faults(outcome: Outcome, named: Sequence[str] = ()) -> list[str]:
    """What is wrong with a call, in words.

    Args:
        outcome: of the call.
        named: fields, options and files, one of which a message has to name; empty: any message will do.
    """
    found = list(outcome.trespasses)
    if outcome.seconds > SECONDS:
        found.append(f"it took {outcome.seconds:.1f} s")
    if outcome.status not in (0, 1, 2):
        found.append(f"exit status {outcome.status}")
    errors = [line for line in outcome.err.splitlines() if not line.startswith(("warning: ", "note: "))]
    progress = re.compile(r"(loading|step \d|\d+ steps|\s*$)")
    errors = [line for line in errors if not progress.match(line)]
    if outcome.status == 0:
        if any(line.startswith("error: ") for line in errors):
            found.append("an error with exit status 0")
    elif (errors or not outcome.out) and (len(errors) != 1 or not errors[0].startswith("error: ")):
        # Output alone: `--json` and `--exit-code` say it there, and a group without a command prints its help.
        found.append(f"{len(errors)} lines on stderr: {errors[:3]}")
    unclean = {c for c in outcome.err if not c.isprintable() and c != "\n"}
    unclean |= {c for c in outcome.out if unicodedata.category(c) == "Cc" and c not in "\n\t"}
    if unclean := sorted(unclean):
        found.append(f"it prints {unclean[:5]!r}")
    if match := INTERNALS.search(outcome.err):
        found.append(f"internals: {match[0]}")
    message = outcome.message
    own = message
    for word in sorted({*outcome.words, *named}, key=len, reverse=True):
        for part in (word, word.partition("=")[2]):
            if len(part) > 10:
                own = own.replace(" ".join(part.split()), "")
    if len(own) > LONGEST:
        found.append(f"{len(own)} characters")
    if message and named and not any(name and " ".join(name.split()) in message for name in named):
        found.append(f"it names none of {list(named)[:8]}")
    return found
