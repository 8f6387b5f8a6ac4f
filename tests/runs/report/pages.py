"""A page as html5lib reads it, as a browser would."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

import html5lib


class Page:
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)

    def all(self, tag: str) -> Iterator[Element]:
        """Elements by tag, those of SVG too."""
        return (each for each in self.root.iter() if isinstance(each.tag, str) and each.tag.rpartition("}")[2] == tag)

    def classed(self, name: str) -> list[Element]:
        return [each for each in self.root.iter() if name in (each.get("class") or "").split()]

    @property
    def words(self) -> str:
        """The text that is seen, with single spaces."""
        hidden = {each for tag in ("script", "style") for each in self.all(tag)}
        parts: list[str] = []

        def walk(element: Element) -> None:
            if element not in hidden:
                parts.append(element.text or "")
                for child in element:
                    walk(child)
                    parts.append(child.tail or "")

        walk(self.root)
        return " ".join(" ".join(parts).split())

    @property
    def data(self) -> Any:
        """The numbers that the script has."""
        (element,) = [each for each in self.all("script") if each.get("type") == "application/json"]
        return json.loads(element.text or "")

    @property
    def addresses(self) -> list[str]:
        """Everything that an attribute could make a browser fetch."""
        names = ("src", "href", "srcset", "data", "action", "poster", "background", "formaction", "xlink:href")
        return [value for each in self.root.iter() for name, value in each.attrib.items() if str(name) in names]


def colours(css: str, name: str) -> dict[str, str]:
    """Custom property -> colour, of the first rule or of the dark one."""
    first, dark = re.findall(r":root \{ (--[^}]*)\}", css)[:2]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark if name == "dark" else first))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
