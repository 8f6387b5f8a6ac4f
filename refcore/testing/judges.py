"""Checks of a judge, against `refcore.contracts.judge.Judge`."""

from __future__ import annotations

import numpy as np

from refcore.contracts.judge import Verdict
from refcore.errors import ParseError
from refcore.images import Levels
from refcore.testing.case import Case, Failed, global_randomness_untouched, require

SIDE = 64


def picture(seed: int = 0) -> Levels:
    """A picture [SIDE, SIDE, 3] that shows nothing."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def verdicts(case: Case) -> None:
    """Every prompt is read; its verdict is yes where all facts hold, and the same for the same picture."""
    judge, levels = case.loaded(), picture()
    for prompt in case.prompts:
        require(judge.reads(prompt), f'reads("{prompt}") is false; expected true for a prompt of the case')
        before = levels.copy()
        found = judge.judge(levels, prompt)
        require(isinstance(found, Verdict), f"judge gives {type(found).__name__}; expected a Verdict")
        require(np.array_equal(levels, before), "judge changed the picture that it was given")
        holds = all(fact.ok for fact in found.facts)
        require(len(found.facts) > 0, f'the verdict on "{prompt}" has no facts; expected one or more')
        require(found.verdict == holds, f"the verdict is {found.verdict}, but all facts hold: {holds}")
        require(judge.judge(levels, prompt) == found, "the same picture has another verdict in a second call")


def refuses_what_it_cannot_read(case: Case) -> None:
    """An empty prompt is not read, and judging it is a ParseError."""
    judge = case.loaded()
    require(not judge.reads(""), 'reads("") is true; expected false')
    try:
        found = judge.judge(picture(), "")
    except ParseError:
        return
    raise Failed(f"an empty prompt gives {found}; expected a ParseError that says what can be read")


def no_global_randomness(case: Case) -> None:
    """Nothing is drawn from Python's, numpy's or torch's own generators."""
    judge = case.loaded()
    with global_randomness_untouched(type(case.plugin).__name__):
        judge.judge(picture(1), case.prompts[0])
