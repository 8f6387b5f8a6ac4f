"""A tracker is told of a run in order, with the numbers of its history, and of its end however it comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import refcore
from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.errors import RefcoreError
from refcore.images import Levels

STEPS = 5
SETTINGS = {
    "canvas": {"name": "pixel"},
    "size": 16,
    "referees": [],
    "priors": [{"name": "tv"}],
    "combine": {"name": "sum"},
    "steps": STEPS,
}


class Diary(Tracker):
    """Keeps all that it is told."""

    name = "diary"

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.told: list[tuple[Any, ...]] = []

    def start(self, run: TrackedRun) -> None:
        self.told.append(("start", run))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(("scalars", step, dict(values)))

    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        self.told.append(("pictures", step, {name: levels.shape for name, levels in pictures.items()}))

    def end(self, outcome: Outcome) -> None:
        self.told.append(("end", outcome))


def outline(diary: Diary) -> list[tuple[str, Any]]:
    return [(kind, rest[0] if kind != "start" else None) for kind, *rest in diary.told]


def test_it_is_told_of_the_start_each_step_pictures_now_and_then_and_the_end(tmp_path: Path) -> None:
    diary = Diary(pictures=2)
    result = refcore.invert("a", config=SETTINGS, seeds=[0, 1], out=tmp_path / "run", track=diary)
    steps: list[tuple[str, Any]] = [("start", None), ("pictures", 0)]
    for step in range(1, STEPS + 1):
        steps.append(("scalars", step))
        if step in (2, 4):
            steps.append(("pictures", step))
    assert outline(diary) == [*steps, ("scalars", STEPS), ("pictures", STEPS), ("end", "finished")]
    run = diary.told[0][1]
    assert (run.name, run.folder, run.samples) == ("run", tmp_path / "run", (("a", 0), ("a", 1)))
    assert run.config == result.config.settings()
    told = [values for kind, _, *rest in diary.told if kind == "scalars" for values in rest][:-1]
    for record, values in zip(result.history, told, strict=True):
        first, second = record["losses"]["tv"]
        assert values["loss/tv"] == pytest.approx((first + second) / 2)
        assert values["loss/tv/sample_1"] == second
        assert values["lr"] == record["lr"]
    assert diary.told[1][2] == {"sample_0": (16, 16, 3), "sample_1": (16, 16, 3)}


def test_without_pictures_now_and_then_there_are_the_first_and_the_last() -> None:
    diary = Diary(pictures=0)
    refcore.invert("a", config=SETTINGS, track=[diary])
    assert [step for kind, step, *_ in diary.told if kind == "pictures"] == [0, STEPS]
    assert diary.told[0][1].name == "a"
    assert diary.told[0][1].folder is None


@pytest.mark.parametrize(("raised", "outcome"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")])
def test_it_is_told_how_the_run_ended(raised: type[BaseException], outcome: str) -> None:
    diary = Diary()

    def stop(step: refcore.StepResult) -> None:
        if step.step == 1:
            raise raised("enough")

    with pytest.raises(raised):
        refcore.invert("a", config=SETTINGS, on_step=stop, track=diary)
    assert diary.told[-1] == ("end", outcome)


def test_one_that_cannot_start_ends_the_run_and_is_closed() -> None:
    class Refusing(Diary):
        def start(self, run: TrackedRun) -> None:
            super().start(run)
            raise RefcoreError("the server is away; start it")

    tracker = Refusing()
    with pytest.raises(RefcoreError, match="the server is away"):
        refcore.invert("a", config=SETTINGS, track=tracker)
    assert outline(tracker) == [("start", None), ("end", "failed")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tensorbord", 'did you mean "tensorboard"'),
        ("{name: tensorboard, config: {picture: 3}}", "picture"),
        ("{name: tensorboard", "--track .* is not valid YAML"),
        ("{config: {}}", "name"),
    ],
)
def test_a_wrong_tracker_is_said_before_anything_is_loaded(given: str, said: str) -> None:
    with pytest.raises(RefcoreError, match=said):
        refcore.invert("a", config=SETTINGS, track=given)
