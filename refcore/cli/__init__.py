"""The `refcore` command: `main` runs it and turns every failure into one line on stderr and a non-zero exit."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings

from refcore.cli.status import FAILED, INTERRUPTED, MISUSED, TERMINATED
from refcore.errors import RefcoreError, Terminated, printable


def main(argv: list[str] | None = None) -> None:
    """Runs `refcore` with `argv` (by default the process's) and exits.

    Exit status: 0 done, 1 failed (without a word where the reader of the output is gone), 2 wrong command line, 130
    interrupted, 143 ended by SIGTERM. `--debug`, in any position, shows the traceback of a failure.
    """
    _open_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not debug:
        _silence_libraries()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that it cannot encode must not lose what was made
    try:
        from refcore.cli.app import app

        status = app(argv, prog_name="refcore", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        message, status = ("", FAILED) if _reader_gone(error) else _explain(error)
        if message:  # empty for a group without a command, which has printed its help, and where nobody reads it
            with contextlib.suppress(OSError):
                print(f"error: {message}", file=sys.stderr)
    _flush_streams()
    sys.exit(status or 0)


def _reader_gone(error: BaseException) -> bool:
    """Whether who read this command's output has closed it."""
    if isinstance(error, BrokenPipeError):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                return True
    return False


def _open_streams() -> None:
    """Opens what the caller has closed: else the next file would be the standard error, and get its text."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            stream = open(number, "w", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _flush_streams() -> None:
    """Flushes what is left; where nobody can take it, Python's own attempt at exit would add a message."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _explain(error: BaseException) -> tuple[str, int]:
    """(message on one line, exit status) of an error."""
    if isinstance(error, KeyboardInterrupt):
        return _one_line(str(error)) or "interrupted", TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    if isinstance(error, RefcoreError):
        return _one_line(str(error)), FAILED
    if hasattr(error, "format_message"):  # a usage error of typer, whose class differs between its versions
        return _one_line(error.format_message()), MISUSED
    if isinstance(error, OSError):
        where = f'"{error.filename}": ' if error.filename else ""
        return _one_line(f"{where}{error.strerror or error}"), FAILED
    if isinstance(error, MemoryError):
        return "out of memory; use fewer samples or a smaller chunk", FAILED
    return _one_line(
        f"{type(error).__name__}: {error} (an error in refcore or a plugin; run with --debug for the traceback)"
    ), FAILED


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _silence_libraries() -> None:
    """Silences the model libraries' warnings and progress bars; refcore reports what matters."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
