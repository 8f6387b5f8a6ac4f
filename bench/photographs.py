"""Photographs with a known ImageNet class, from installed packages: what a witness should recognise, if it can."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from refcore import images
from refcore_plugins.models.imagenet_classes import ClassNames

NAMED = (
    ("temple", "sklearn", "datasets/images/china.jpg", "palace"),
    ("flower", "sklearn", "datasets/images/flower.jpg", "daisy"),
    ("officer", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "military uniform"),
    ("cat", "skimage", "data/chelsea.png", "tabby"),
    ("coffee", "skimage", "data/coffee.png", "espresso"),
    ("rocket", "skimage", "data/rocket.jpg", "missile"),
)
"""(name, package, file, class that the full-size networks or the eye give it)."""
NUMBERED = ("foolbox", "data")
"""Package and folder of 20 photographs of ImageNet, with the index of the class in the file's name."""


@dataclass(frozen=True)
class Photograph:
    """A photograph and its class."""

    name: str
    prompt: str
    """Its ImageNet class, by torchvision's name."""
    path: Path

    def square(self) -> Tensor:
        """[1, 3, S, S] in [0, 1]: the central square."""
        image = images.read(self.path)[None]
        side = min(image.shape[-2:])
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        return image[..., top : top + side, left : left + side]


def photographs() -> list[Photograph]:
    """Every photograph whose package is installed; the packages are located, not imported."""
    return [*_named(), *_numbered()]


def _named() -> Iterator[Photograph]:
    for name, package, place, prompt in NAMED:
        folder = _folder(package)
        if folder is not None and (folder / place).is_file():
            yield Photograph(name, prompt, folder / place)


def _numbered() -> Iterator[Photograph]:
    package, place = NUMBERED
    folder = _folder(package)
    if folder is None:
        return
    names = ClassNames.known().names
    for path in sorted((folder / place).glob("imagenet_*.jpg")):
        found = re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)
        if found and int(found[1]) < len(names):
            yield Photograph(path.stem, names[int(found[1])], path)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
