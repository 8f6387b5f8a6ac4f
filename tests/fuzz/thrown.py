"""Cases drawn and thrown at the command line, each checked for what must never happen."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from fuzz.cases import Case
from fuzz.surfaces import SURFACES
from fuzz.watched import Hang, Outcome, Sandbox, faults, kept
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

ENDS = {0: "done", 1: "refused", 2: "misused"}
Ends = Counter[tuple[str, str]]
"""(surface, how it ended) -> number of calls."""


@contextmanager
def models_kept() -> Iterator[None]:
    """Within it, one thread, no warning of Hypothesis, and models that stay loaded from call to call."""
    torch.set_num_threads(1)
    with kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        yield


def throw(surface: str, cases: int, sandbox: Sandbox, ends: Ends, drawn_anew: int | None = None) -> None:
    """Calls the command line with a surface's share of so many cases.

    Args:
        surface: name of the kind of input.
        cases: of all surfaces together.
        sandbox: where the calls are made.
        ends: counts the calls.
        drawn_anew: random seed of the cases; None: always the same ones.

    Raises:
        AssertionError: the smallest case found that is at fault, and why.
    """
    drawn = st.composite(lambda draw: SURFACES[surface].case(draw, sandbox.given))()

    @settings(
        max_examples=share(surface, cases),
        derandomize=drawn_anew is None,
        database=None,
        deadline=None,  # `faults` has its own
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(st.data())
    def thrown(data: st.DataObject) -> None:
        sandbox.empty()
        case: Case = data.draw(drawn)
        outcome = called(case, sandbox)
        ends[surface, ENDS.get(outcome.status, "something else")] += 1
        found = faults(outcome, case.named)
        note(outcome.err[:1000])
        assert not found, "; ".join(found)

    (thrown if drawn_anew is None else seed(drawn_anew)(thrown))()


def share(surface: str, cases: int) -> int:
    """Cases of a surface, at least one."""
    return max(1, round(cases * SURFACES[surface].share / sum(one.share for one in SURFACES.values())))


def called(case: Case, sandbox: Sandbox) -> Outcome:
    """The outcome; one that does not end is a failure of this case, and not the end of all."""
    try:
        return sandbox.call(*case.words)
    except Hang as hang:
        raise AssertionError(str(hang)) from None
