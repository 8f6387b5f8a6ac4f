"""The nouns of T2I-CompBench's prompts: what its detector calls them, which of them it cannot find, and other names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spacy.tokens import Doc

PEOPLE: Final[Mapping[str, str]] = MappingProxyType(dict.fromkeys(("girl", "boy", "man", "woman"), "person"))
"""Nouns of prompts of space that the published code renames."""
RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {**PEOPLE, "people": "person", "ship": "boat", "painting": "picture", "goldfish": "fish", "telivision": "tv"}
)
"""Nouns of numeracy prompts -> the published code's names. Its vocabulary has "people" as the plural of person; one is
spelt as there, so that a television stays one."""
UNLISTED_2D: Final[Mapping[str, int]] = MappingProxyType(
    {
        "wallet": 18,
        "mouse": 16,
        "cow": 15,
        "table": 12,
        "phone": 12,
        "sofa": 10,
        "bag": 10,
        "painting": 8,
        "computer": 5,
    }
)
"""Noun that equals none of the 722 labels of UniDet RS200 -> its prompts among the 300 public ones of the 2-D split.

200 of the 300 have none of these. The list of labels itself is not the project's to copy: of other prompts, only these
nouns are known to be missing.
"""
UNLISTED_3D: Final = ("painting", "wallet")
"""Nouns that are no part of any label, either; 280 of the 300 public 3-D prompts have none of these."""
SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "airplane": ("plane",),
        "bag": ("handbag",),
        "bicycle": ("bike",),
        "boat": ("ship",),
        "computer": ("laptop", "desktop computer"),
        "couch": ("sofa",),
        "cow": ("cattle",),
        "desk": ("table",),
        "painting": ("picture frame",),
        "person": ("man", "woman", "boy", "girl"),
        "phone": ("cell phone", "telephone"),
        "picture": ("painting", "picture frame"),
        "refrigerator": ("fridge",),
        "sofa": ("couch",),
        "table": ("desk",),
        "television": ("tv",),
        "tv": ("television",),
        "wallet": ("purse",),
    }
)
"""Noun -> other names by which a detector of an open vocabulary may know it."""


def nouns_of(doc: Doc) -> list[str]:
    """Words of a parsed prompt that spaCy takes for common nouns, in their order."""
    return [token.text for token in doc if token.pos_ == "NOUN"]


def names_of(nouns: Sequence[str], synonyms: bool) -> dict[str, str]:
    """Name to look for -> the noun it stands for; a name that is another noun's own stands for that one alone."""
    names = {noun: noun for noun in nouns}
    for noun in nouns if synonyms else ():
        for name in SYNONYMS.get(noun, ()):
            names.setdefault(name, noun)
    return names


def scorable(prompts: Sequence[Sequence[str]], unlisted: Collection[str]) -> int:
    """Number of prompts, each given as its nouns, none of which is in `unlisted`."""
    return sum(not any(noun in unlisted for noun in nouns) for nouns in prompts)
