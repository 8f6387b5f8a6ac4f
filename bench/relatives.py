"""Relatives: witnesses whose network also takes part in what makes a variant's images. A relative is no witness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from refcore_bench.variants import Variant

NETWORK = ("model", "pretrained", "weights")
"""Fields of a plugin's config that name its network."""


def relatives(variant: Variant) -> list[str]:
    """Identities of the panel's witnesses whose network the variant optimises for, in a referee or a prior, or chooses
    its images by."""
    choosers = networks([scorer.term for scorer in variant.optimised], variant.checkpoints)
    own = choosers | optimised(variant.settings, variant.checkpoints)
    return [
        scorer.identity
        for scorer in variant.scorers
        if scorer.panel and (scorer.optimised or networks([scorer.term], variant.checkpoints) & own)
    ]


def optimised(settings: Mapping[str, Any], digests: Mapping[str, str]) -> set[tuple[str, ...]]:
    """The networks that a run with these settings optimises for, in a referee or a prior."""
    terms = [term for field in ("referees", "priors") for term in settings.get(field) or []]
    return networks([term for term in terms if term.get("weight") != 0], digests)


def networks(terms: Iterable[Mapping[str, Any]], digests: Mapping[str, str]) -> set[tuple[str, ...]]:
    """The networks of terms: what their configs name, by its digest where there is one, or else the plugin's name.

    >>> networks([{"name": "clip", "config": {"model": "ViT-B-32", "pretrained": "openai"}}], {})
    {('ViT-B-32', 'openai')}
    >>> networks([{"name": "tv"}], {})
    {('tv',)}
    """
    found = set()
    for term in terms:
        config = term.get("config") or {}
        named = [config[field] for field in NETWORK if isinstance(config.get(field), str)]
        found.add(tuple(digests.get(name, name) for name in named) or (str(term["name"]),))
    return found
