"""Disagreement of referees and verdict: hacks, and moves of all referees at once."""

from __future__ import annotations

from refcore_bench.task import Accepts, Row


def accepted(row: Row, accepts: Accepts, by: str) -> bool:
    """Whether every referee of a group accepts an image; referees to which the question does not apply are left out.

    Args:
        row: a row of the results.
        accepts: the rule by which a referee accepts an image.
        by: "optimised" for the referees that the variant optimises for or chooses by (the panel if the question applies
            to none of them), or "panel" for those of the task's preset.
    """
    answers = [answer for score in row["scores"] if score[by] and (answer := accepts(score)) is not None]
    if not answers and by == "optimised":
        return accepted(row, accepts, "panel")
    return all(answers)


def hacked(row: Row, accepts: Accepts, by: str = "optimised") -> bool:
    """Whether every referee of a group accepts an image with verdict no; see `accepted`."""
    return not row["verdict"] and accepted(row, accepts, by)


def moved(row: Row, paired: Row) -> int:
    """1 if every referee of the panel scores `row` above its pair, -1 if every one scores it below, else 0."""
    ours, theirs = (
        {score["identity"]: score["score"] for score in one["scores"] if score["panel"]} for one in (row, paired)
    )
    common = ours.keys() & theirs.keys()
    if not common:
        return 0
    return all(ours[i] > theirs[i] for i in common) - all(ours[i] < theirs[i] for i in common)
