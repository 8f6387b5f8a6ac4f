"""Values of options with commas between them."""

from __future__ import annotations


def split(text: str) -> list[str]:
    """Splits at commas outside brackets and quotes.

    >>> split("playground,steps=2,ema.restarts=[1, 2]")
    ['playground', 'steps=2', 'ema.restarts=[1, 2]']
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
            if letter == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += letter
    return parts
