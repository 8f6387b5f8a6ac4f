"""Checks of a judge against `refcore.contracts.judge.Judge`."""

from __future__ import annotations

import numpy as np

from refcore.contracts.judge import Verdict
from refcore.errors import ParseError
from refcore.images import Levels
from refcore.testing.case import Case, Failed, global_randomness_untouched, require

SIDE = 64


def noise(seed: int = 0) -> Levels:
    """An image [SIDE, SIDE, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def verdicts(case: Case) -> None:
    """Every prompt is read; the verdict is yes if all facts hold, and the same for the same image."""
    judge, levels = case.loaded(), noise()
    for prompt in case.prompts:
        require(judge.reads(prompt), f'reads("{prompt}") is false; expected true for a prompt of the case')
        before = levels.copy()
        found = judge.judge(levels, prompt)
        require(isinstance(found, Verdict), f"judge returns {type(found).__name__}; expected a Verdict")
        require(np.array_equal(levels, before), "judge changed its image in place; work on a copy")
        holds = all(fact.ok for fact in found.facts)
        require(len(found.facts) > 0, f'the verdict on "{prompt}" has no facts; expected one or more')
        require(found.verdict == holds, f"the verdict is {found.verdict}, but all facts hold: {holds}")
        require(judge.judge(levels, prompt) == found, "the verdict on the same image differs in a second call")


def refuses_what_it_cannot_read(case: Case) -> None:
    """`reads` is false for an empty prompt, and judging it is a ParseError."""
    judge = case.loaded()
    require(not judge.reads(""), 'reads("") is true; expected false')
    try:
        found = judge.judge(noise(), "")
    except ParseError:
        return
    raise Failed(f"an empty prompt gives {found}; expected a ParseError that says what is expected")


def no_global_randomness(case: Case) -> None:
    """Nothing is drawn from Python's, numpy's or torch's global generators."""
    judge = case.loaded()
    with global_randomness_untouched(type(case.plugin).__name__):
        judge.judge(noise(1), case.prompts[0])
