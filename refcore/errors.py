"""Every error that refcore raises for its users, and the message for an unknown name with "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

CANVAS = "canvas"
"""Label of the decoded image among the terms of a NonFiniteError."""
PARAMETERS = "parameters"
"""Label of updated parameters among the terms of a NonFiniteError."""


class RefcoreError(Exception):
    """Base of all errors meant for the user; the message names the thing, the value and the remedy."""


class CheckpointError(RefcoreError):
    """A checkpoint that is missing, corrupt, of the wrong kind, or cannot be downloaded."""


class ConfigError(RefcoreError):
    """A config with mistakes; the message names each by its dotted field."""


class ParseError(RefcoreError, ValueError):
    """A prompt that a parser cannot read; the message names the prompt and what was expected."""

    def __init__(self, message: str, reason: str = "") -> None:
        """`reason`: the prompt and what was expected, without who says so and what else to try."""
        self.reason = reason or message
        super().__init__(message)


class ApiVersionError(RefcoreError):
    """A plugin written for another version of the hooks and contracts."""


class AlreadyFinished(RefcoreError):
    """A run that is to be resumed, but has taken all of its steps."""


class OutOfMemory(RefcoreError):
    """A run that its device has no memory for; the message names the field to change."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run like the first Ctrl-C."""


class ContractError(RefcoreError):
    """A plugin that breaks a rule of its contract, or fails; the message names it, its method, and what came.

    What the plugin itself raised is the `__cause__`.
    """


class NonFiniteError(RefcoreError):
    """NaN or infinity from a referee, prior or canvas, or in the parameters, which are those from before the step."""

    def __init__(self, step: int, terms: Mapping[str, str]) -> None:
        """`terms`: label of each term that gave NaN or infinity -> name of the dtype that it was evaluated in."""
        self.step = step
        self.terms = tuple(terms)
        named, dtypes = ", ".join(f'"{term}"' for term in terms), ", ".join(dict.fromkeys(terms.values()))
        if terms.get(CANVAS) == "float16":
            remedy = (
                "float16 overflows above 65,504: try canvas.config.dtype float32 or bfloat16, and no canvas.autocast"
            )
        elif {CANVAS, PARAMETERS} & {*terms}:
            remedy = "the parameters have diverged: try a lower optimizer.lr or noise, or a transform such as clip"
        elif "16" in dtypes:
            remedy = "try dtype float32 without autocast for it, a lower weight, or a transform such as clip"
        else:
            remedy = "try a lower weight, or a transform such as clip"
        super().__init__(f"step {step}: {named} gave NaN or infinity in {dtypes}; {remedy}")


def printable(text: str) -> str:
    """The text with what does not print, but line breaks and tabs, as escapes: a terminal obeys control characters.

    >>> print(printable("a cat\\x1b[2J"))
    a cat\\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


LISTED = 250
"""Characters of the known names that a message lists; of more names, those like the unknown one."""


def shortened(text: str, length: int = 100) -> str:
    """The text, cut to `length` characters where it is longer.

    >>> shortened("a red circle", 8)
    'a red...'
    """
    return text if len(text) <= length else f"{text[: length - 3]}..."


def described(cause: BaseException, length: int = 300) -> str:
    """An exception of others on one line, with its type unless its message is meant for users."""
    try:
        message = shortened(" ".join(str(cause).split()), length)
    except Exception:  # `__str__` is code of others, too
        message = ""
    if isinstance(cause, RefcoreError):
        return " ".join(str(cause).split())
    return f"{type(cause).__name__}: {message}".removesuffix(": ")


def article(word: str) -> str:
    """`word` with "a" or "an", by its first letter.

    >>> article("augmentation"), article("Clip")
    ('an augmentation', 'a Clip')
    """
    return f"{'an' if word[:1].lower() in 'aeio' else 'a'} {word}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None if none is close."""
    known = list(known)
    by_case = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> RefcoreError:
    """`unknown referee "clp" in referees[0]; known: blip2, clip; did you mean "clip"?`, to be raised.

    >>> print(unknown("preset", "playgrund", ["natural", "playground"]))
    unknown preset "playgrund"; known: natural, playground; did you mean "playground"?
    """
    known = sorted(known)
    message = f'unknown {what} "{shortened(name)}"' + (f" in {where}" if where else "")
    close = known
    while len(", ".join(close)) > LISTED and len(close) > 1:
        close = get_close_matches(name, known, n=len(close) * 3 // 4, cutoff=0)
    more = f" and {len(known) - len(close)} others" if len(close) < len(known) else ""
    message += f"; known: {', '.join(sorted(close))}{more}" if known else "; none is known"
    guess = nearest(name, known)
    return RefcoreError(message + (f'; did you mean "{guess}"?' if guess else ""))
