"""Labels of terms: given, or else the plugin's name, numbered where it repeats."""

from __future__ import annotations

from collections.abc import Iterable

REFEREES, PRIORS, EVERYTHING = "<referees>", "<priors>", "<image>"
"""In the place of a label: the sum of all referees, of all priors at the image, or of all terms there."""


def labels(terms: Iterable[tuple[str, str | None]]) -> list[str]:
    """The label of each term of (name, given label or None), in order.

    >>> labels([("clip", None), ("clip", None), ("clip", "sharp")])
    ['clip', 'clip-2', 'sharp']
    """
    terms = list(terms)
    taken = {label for _, label in terms if label}
    found = []
    for name, given in terms:
        label, n = given or name, 2
        while not given and label in taken:
            label, n = f"{name}-{n}", n + 1
        taken.add(label)
        found.append(label)
    return found
