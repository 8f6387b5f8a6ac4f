"""What a panel of witnesses says of variants, without a verdict: mean scores, differences, moves of all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refcore_bench.statistics.hacks import moved
from refcore_bench.statistics.intervals import rate
from refcore_bench.statistics.pairing import Pair, difference, over_prompts
from refcore_bench.task import Row

Panel = Mapping[str, str]
"""Label -> identity of each witness, in the order of the tables."""


def scores_of(rows: Sequence[Row], panel: Panel) -> dict[str, dict[str, float]]:
    """Label -> mean score over prompts, with its interval."""
    return {label: over_prompts(rows, _score(identity)).to_dict() for label, identity in panel.items()}


def compared(pairs: Sequence[Pair], panel: Panel) -> dict[str, Any]:
    """Paired differences of the scores, and the shares of pairs in which the whole panel agrees.

    Every pair is in one of three: all witnesses score the image above its pair (joint domination), all score it below
    (joint collapse), or they disagree, ties included.
    """
    moves = [moved(*pair) for pair in pairs]
    return {
        "pairs": len(pairs),
        "scores": {label: difference(pairs, _score(identity)).to_dict() for label, identity in panel.items()},
        "joint_domination": rate([move == 1 for move in moves]).to_dict(),
        "joint_collapse": rate([move == -1 for move in moves]).to_dict(),
        "disagreement": rate([move == 0 for move in moves]).to_dict(),
    }


def _score(identity: str) -> Callable[[Row], float]:
    def score(row: Row) -> float:
        (found,) = [score["score"] for score in row["scores"] if score["identity"] == identity]
        return float(found)

    return score
