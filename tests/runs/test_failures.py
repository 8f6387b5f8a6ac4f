"""Failures at the end of a run, and while it stands still: what can be written is written, and the reason is said."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import ToyReferee, toy_config

from refcore import registry
from refcore.contracts.judge import Judge
from refcore.runs import run as road
from refcore.runs import watch
from refcore.runs.run import Run

pytestmark = pytest.mark.fault("5.5")


def scoring(value: Any) -> type[ToyReferee]:
    class Bad(ToyReferee):
        def score(self, images: torch.Tensor, conditioning: Any) -> Any:
            if isinstance(value, BaseException):
                raise value
            return value(len(images))

    return Bad


BAD_SCORES: list[tuple[Any, str]] = [
    (ZeroDivisionError("by hand"), r'no score: referee "bad" \(score\) failed with ZeroDivisionError: by hand'),
    (SystemExit(1), r'no score: referee "bad" \(score\) failed with SystemExit: 1'),
    (lambda n: None, r'no score: referee "bad" \(score\) returned None; expected a tensor \[\d\], one score per image'),
    (lambda n: torch.zeros(n, 1), r'referee "bad" \(score\) returned a tensor \[\d, 1\]'),
    (lambda n: torch.zeros(()), r'referee "bad" \(score\) returned a tensor \[\]'),
    (lambda n: torch.zeros(n, dtype=torch.int64), r'referee "bad" \(score\) returned int64'),
    (lambda n: torch.full((n,), torch.nan), "no score: .*bad.* NaN or infinity"),
    (lambda n: torch.full((n,), torch.inf), "no score: .*bad.* NaN or infinity"),
]


@pytest.mark.parametrize(("value", "reason"), BAD_SCORES)
@pytest.mark.parametrize("place", ["referees", "witnesses"])
def test_a_score_that_fails_is_null_with_its_reason_and_all_else_is_written(
    value: Any, reason: str, place: str, tmp_path: Path, toys: None
) -> None:
    registry.register("referees", "bad", scoring(value), "fails")
    terms = {"referees": [{"name": "toy"}], place: [{"name": "toy", "label": "good"}, {"name": "bad"}]}
    result = Run(toy_config(**terms, steps=2), out=tmp_path / "run").execute()
    assert result.error is None
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["finished"] is True
    assert (tmp_path / "run" / written["samples"][1]["image"]).exists()
    for sample, row in zip(result.samples, written["samples"], strict=True):
        scores = row["scores" if place == "referees" else "witnesses"]
        assert scores["bad"] is None
        assert isinstance(scores["good"], float)
        assert not math.isfinite(sample.scores["bad"])
        assert sum(1 for note in row["notes"] if re.search(reason, note)) == 1


def test_a_judge_that_fails_leaves_the_verdict_out_with_its_reason(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(Judge):
        def reads(self, prompt: str) -> bool:
            return True

        def judge(self, levels: Any, prompt: str) -> Any:
            raise ZeroDivisionError("by hand")

    registry.register("judges", "bad", Bad, "fails")
    monkeypatch.setattr(road, "judge_of", lambda config: registry.create("judges", "bad"))
    Run(toy_config(steps=1), out=tmp_path / "run").execute()
    row = json.loads((tmp_path / "run" / "result.json").read_text())["samples"][0]
    assert "verdict" not in row
    assert 'no verdict: judge "bad" (judge) failed with ZeroDivisionError: by hand' in row["notes"]


def test_a_run_that_stands_still_says_which_plugin_is_working(
    toys: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(ToyReferee):
        def judge(self, *args: Any, **options: Any) -> Any:
            if self.calls == 1:
                time.sleep(0.5)
            return super().judge(*args, **options)

    registry.register("referees", "slow", Slow, "sleeps")
    monkeypatch.setattr(watch, "SECONDS", 0.15)
    with caplog.at_level(logging.WARNING, logger="refcore"):
        Run(toy_config(referees=[{"name": "slow", "label": "hesitant"}], steps=3)).execute()
    notes = [record.getMessage() for record in caplog.records if record.name == "refcore"]
    assert any('in referee "slow" of "hesitant" (judge)' in note and note.startswith("no step for") for note in notes)
    assert len(notes) <= 3


def test_a_run_that_moves_says_nothing(toys: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="refcore"):
        Run(toy_config(steps=2)).execute()
    assert not caplog.records
