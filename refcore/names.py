"""The error for a name that nobody knows: what was given, where, what is known, and the nearest of it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from refcore.plugin import RefcoreError


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None where nothing is close."""
    known = list(known)
    by_case = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> RefcoreError:
    """`unknown referee "clp" in referees[0]; known: blip2, clip; did you mean "clip"?`, ready to be raised.

    >>> print(unknown("preset", "playgrund", ["natural", "playground"]))
    unknown preset "playgrund"; known: natural, playground; did you mean "playground"?
    """
    known = sorted(known)
    message = f'unknown {what} "{name}"' + (f" in {where}" if where else "")
    message += f"; known: {', '.join(known)}" if known else "; none is known"
    guess = nearest(name, known)
    return RefcoreError(message + (f'; did you mean "{guess}"?' if guess else ""))
