"""A run that was ended goes on in its folder to the bits of one that was left alone, and says what it goes on from."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor
from toys import ToyReferee, toy_config

import refcore
from refcore import registry
from refcore.config.run import RunConfig
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.engine.inversion import StepResult
from refcore.engine.tracks import Tracks
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore.runs import rundir
from refcore.runs.checkpoints import checkpoints_of
from refcore.runs.result import Result
from refcore.runs.state import load_state, save_state


class Learner(Prior):
    """Pulls toward the mean of the images that it has seen."""

    space: ClassVar[Literal["latent", "image", "params"]] = "image"
    learns: ClassVar[bool] = True

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.seen, self.mean = 0, torch.zeros(3, 1, 1, dtype=torch.float64)

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        return 0.1 * (x - self.mean.to(x)), None

    def update(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> None:
        self.seen += 1
        self.mean = self.mean + (x.mean((0, 2, 3)).view(3, 1, 1) - self.mean) / self.seen

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.mean = state["seen"], state["mean"]


@pytest.fixture(autouse=True)
def _learner(toys: None) -> None:
    registry.register("priors", "learner", Learner, "learns")


SEARCH: dict[str, Any] = {
    "init": {"steps": 2, "rounds": [[1, 0.6], [1, 0.5]]},
    "candidates": {"count": 3, "keep": [[1, 2]], "recent": 2, "by": "loss"},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "Adam, EMA, the best": {
        "optimizer": {"name": "adam", "lr": 0.05, "schedule": "cosine"},
        "ema": {"decay": 0.9, "restarts": [1]},
        "output": "best",
        "best": {"every": 2},
        "early_stop": {"every": 2, "patience": 3},
        "noise": 0.05,
    },
    "a search and candidates": SEARCH,
    "tries": {
        **SEARCH,
        "candidates": {"count": 2, "recent": 0, "by": "loss", "tries": 2, "until": -1e9},
        "steps": 3,
    },
    "a prior that learns": {"priors": [{"name": "learner"}, {"name": "toy_sds"}]},
}


def whole(folder: Path) -> dict[str, Any]:
    """All that a run has made, without times."""
    images = {path.name: path.read_bytes() for path in folder.glob("image_*.png")}
    lines = [json.loads(line) for line in (folder / rundir.HISTORY).read_text().splitlines()]
    result = json.loads((folder / rundir.RESULT).read_text())
    return {
        **images,
        "history": [{**line, "seconds": 0} for line in lines],
        "config": (folder / rundir.CONFIG).read_bytes(),
        **{name: value for name, value in result.items() if name not in ("timings", "resumed")},
    }


def stop_at(step: int, error: BaseException | Callable[[], None]) -> Callable[[StepResult], None]:
    """Ends a run after a step, counted from 0."""

    def stop(result: StepResult) -> None:
        if result.step == step:
            if isinstance(error, BaseException):
                raise error
            error()

    return stop


def cut(config: RunConfig, out: Path, step: int, checkpoint: Any = 1, error: Any = None) -> None:
    """A run that ends after a step, by an exception."""
    with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
        refcore.invert(
            config.prompts,
            config=config,
            out=out,
            checkpoint=checkpoint,
            on_step=stop_at(step, error or ZeroDivisionError("by hand")),
        )


def alone(config: RunConfig, out: Path) -> Result:
    return refcore.invert(config.prompts, config=config, out=out)


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("step", [0, 2, 3, 4])
def test_a_run_that_was_ended_goes_on_to_the_same_bits(fields: dict[str, Any], step: int, tmp_path: Path) -> None:
    config = toy_config(**fields)
    left_alone = alone(config, tmp_path / "alone")
    cut(config, tmp_path / "cut", step)
    resumed = refcore.resume(tmp_path / "cut")
    assert torch.equal(resumed.images, left_alone.images)
    assert resumed.samples == left_alone.samples
    ours, theirs = ([{**record, "seconds": 0} for record in each.history] for each in (resumed, left_alone))
    assert repr(ours) == repr(theirs)  # NaN is not equal to itself
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")
    assert resumed.resumed[0].step == step + 1


@pytest.mark.parametrize("name", ["a search and candidates", "tries"])
def test_a_search_goes_on_with_its_next_round(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toys import ToySds

    config = toy_config(**CONFIGS[name])
    alone(config, tmp_path / "alone")
    sample, calls = ToySds.sample, 0

    def failing(self: ToySds, *given: Any, **options: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == (6 if name == "tries" else 3):  # the second round of the last search
            raise ZeroDivisionError("by hand")
        return sample(self, *given, **options)

    monkeypatch.setattr(ToySds, "sample", failing)
    with pytest.raises(RefcoreError, match="by hand"):
        refcore.invert(config.prompts, config=config, out=tmp_path / "cut", checkpoint=1)
    before = calls
    refcore.resume(tmp_path / "cut")
    assert calls - before == 1, "the rounds before are not made again"
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_a_run_without_a_checkpoint_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = toy_config()
    alone(config, tmp_path / "alone")
    cut(config, tmp_path / "cut", 3, checkpoint="off")
    assert not (tmp_path / "cut" / rundir.CHECKPOINTS).exists()
    with caplog.at_level(logging.WARNING, logger="refcore"):
        refcore.resume(tmp_path / "cut")
    assert "there is no checkpoint to go on from in" in caplog.text
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_lines_of_the_history_past_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    cut(toy_config(), tmp_path / "run", 4)
    last = checkpoints_of(tmp_path / "run")[0]
    last.path.unlink()  # so that the one before, of four steps, is what is left beside five lines
    seen: list[int] = []
    result = refcore.resume(tmp_path / "run", on_step=lambda step: seen.append(step.step))
    assert seen == [4, 5]
    lines = (tmp_path / "run" / rundir.HISTORY).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(6))
    assert [record["step"] for record in result.history] == list(range(6))


def test_a_history_that_lacks_steps_of_the_checkpoint_sends_the_run_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config()
    alone(config, tmp_path / "alone")
    cut(config, tmp_path / "cut", 3)
    path = tmp_path / "cut" / rundir.HISTORY
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with caplog.at_level(logging.WARNING, logger="refcore"):
        result = refcore.resume(tmp_path / "cut")
    assert "does not hold the 4 steps of the last checkpoint" in caplog.text
    assert result.resumed[0].step == 3
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_a_finished_run_says_so_in_one_line_and_keeps_one_checkpoint(tmp_path: Path) -> None:
    alone(toy_config(), tmp_path / "run")
    assert [kept.step for kept in checkpoints_of(tmp_path / "run")] == [6]
    with pytest.raises(refcore.AlreadyFinished) as told:
        refcore.resume(tmp_path / "run")
    assert str(told.value) == (
        f'the run in "{tmp_path / "run"}" is finished (6 steps); to go on beyond its end, say how far: --steps +6'
    )
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 0.05}, {"name": "sgd", "lr": 0.1, "momentum": 0.9}])
def test_steps_beyond_the_end_are_those_of_a_longer_run(optimizer: dict[str, Any], tmp_path: Path) -> None:
    """Where nothing depends on a run's length, bit for bit."""
    fields = {"optimizer": optimizer, "ema": {"decay": 0.9}}
    longer = alone(toy_config(**fields, steps=10), tmp_path / "longer")
    alone(toy_config(**fields, steps=6), tmp_path / "run")
    result = refcore.resume(tmp_path / "run", extra_steps=4)
    assert result.progress == "10 of 10 steps"
    assert torch.equal(result.images, longer.images)
    assert whole(tmp_path / "run") == whole(tmp_path / "longer")


def test_beyond_the_end_a_schedule_has_the_values_of_the_longer_run(tmp_path: Path) -> None:
    optimizer = {"name": "adam", "lr": 0.05, "schedule": "linear"}
    longer = alone(toy_config(optimizer=optimizer, steps=8), tmp_path / "longer")
    alone(toy_config(optimizer=optimizer, steps=4), tmp_path / "run")
    result = refcore.resume(tmp_path / "run", extra_steps=4)
    assert [record["lr"] for record in result.history[4:]] == [record["lr"] for record in longer.history[4:]]
    assert result.history[3]["lr"] < result.history[4]["lr"]


def test_a_run_that_was_ended_on_its_way_beyond_goes_on_to_its_new_end(tmp_path: Path) -> None:
    alone(toy_config(steps=8), tmp_path / "longer")
    alone(toy_config(steps=4), tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        refcore.resume(tmp_path / "run", extra_steps=4, on_step=stop_at(5, ZeroDivisionError()), checkpoint=1)
    assert refcore.resume(tmp_path / "run").steps == 8
    assert whole(tmp_path / "run") == whole(tmp_path / "longer")


def test_a_finished_run_without_a_checkpoint_of_its_end_cannot_go_beyond(tmp_path: Path) -> None:
    refcore.invert("a", config=toy_config(), out=tmp_path / "run", checkpoint="off")
    with pytest.raises(RefcoreError, match=r"no checkpoint of its end to go on from; repeat it with .* --set steps=9"):
        refcore.resume(tmp_path / "run", extra_steps=3)


def test_a_run_goes_on_with_the_threads_that_it_began_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, seen = torch.get_num_threads(), []
    cut(toy_config(), tmp_path / "run", 2)
    facts = json.loads((tmp_path / "run" / rundir.FACTS).read_text())
    assert facts["threads"] == before
    torch.set_num_threads(before + 1)
    try:
        with caplog.at_level(logging.WARNING, logger="refcore"):
            refcore.resume(tmp_path / "run", on_step=lambda step: seen.append(torch.get_num_threads()))
        assert set(seen) == {before}
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert f"began with {before} threads of torch and goes on with as many, not {before + 1}" in caplog.text


def test_other_versions_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(toy_config(), tmp_path / "run", 2)
    for kept in checkpoints_of(tmp_path / "run"):
        state = load_state(kept.path)
        state["meta"]["run"]["versions"]["torch"] = "1.0"
        save_state(state, kept.path)
    with caplog.at_level(logging.WARNING, logger="refcore"):
        refcore.resume(tmp_path / "run")
    assert f"torch was 1.0 and is {rundir.versions()['torch']} now" in caplog.text


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        at = min(len(data) - 1, int(place * len(data)))
        return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

    return flip


DAMAGES = {
    "truncated": truncated,
    "empty": lambda data: b"",
    **{f"flipped at {p}": flipped(p) for p in (0, 0.02, 0.3, 1)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config()
    alone(config, tmp_path / "alone")
    cut(config, tmp_path / "cut", 4)
    newest, before = checkpoints_of(tmp_path / "cut")
    newest.path.write_bytes(damage(newest.path.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="refcore"):
        result = refcore.resume(tmp_path / "cut")
    assert newest.path.name in caplog.text
    assert f"goes on from the checkpoint before, of {before.step} steps" in caplog.text
    assert result.resumed[0].step == before.step == 4
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")
    assert [kept.step for kept in checkpoints_of(tmp_path / "cut")] == [6]


def test_with_both_checkpoints_damaged_the_run_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = toy_config()
    alone(config, tmp_path / "alone")
    cut(config, tmp_path / "cut", 4)
    for kept in checkpoints_of(tmp_path / "cut"):
        kept.path.write_bytes(truncated(kept.path.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="refcore"):
        refcore.resume(tmp_path / "cut")
    assert "the run begins anew" in caplog.text
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_a_config_that_was_changed_since_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    cut(toy_config(), tmp_path / "run", 2)
    path = tmp_path / "run" / rundir.CONFIG
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(RefcoreError, match=r"not the config of the checkpoints beside it \(it differs in optimizer\)"):
        refcore.resume(tmp_path / "run")
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_other_weights_are_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    cut(toy_config(), tmp_path / "run", 2)
    for kept in checkpoints_of(tmp_path / "run"):
        state = load_state(kept.path)
        state["meta"]["checkpoints"] = {"playground:clip": "0123"}
        save_state(state, kept.path)
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(RefcoreError, match='is of other weights: "playground:clip" had the hash 0123'):
        refcore.resume(tmp_path / "run")
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_what_is_no_run_or_still_runs_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefcoreError, match='none" does not exist; expected the folder of a run'):
        refcore.resume(tmp_path / "none")
    with pytest.raises(RefcoreError, match=r"holds no run \(no config\.yaml\)"):
        refcore.resume(tmp_path)
    cut(toy_config(), tmp_path / "run", 2)
    with pytest.raises(RefcoreError, match="extra_steps is -1; expected 0 or more"):
        refcore.resume(tmp_path / "run", extra_steps=-1)
    taken = rundir.RunDir.reopen(tmp_path / "run")
    with pytest.raises(RefcoreError, match=r"another run is writing .* it is still running: wait for its end, or end"):
        refcore.resume(tmp_path / "run")
    taken.release()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RefcoreError, match="is read-only; name another place"):
        refcore.resume(tmp_path / "run")


class Breaking(ToyReferee):
    """Does something wrong in one call, if it is told to."""

    wrong: ClassVar[Callable[[Tensor], Any] | None] = None
    at: ClassVar[int] = 4

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        loss = super().judge(views, conditioning, prompt_index, wanted)
        if self.wrong is not None and self.calls == self.at:
            made: Tensor = type(self).wrong(loss)  # type: ignore[misc]
            return made
        return loss


def fails(loss: Tensor) -> Tensor:
    raise ZeroDivisionError("by hand")


WRONGS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "NaN": (lambda loss: loss * math.nan, "gave NaN or infinity"),
    "infinity": (lambda loss: loss * math.inf, "gave NaN or infinity"),
    "a wrong shape": (lambda loss: loss[None], "returned a tensor"),
    "a wrong dtype": (lambda loss: loss.long(), "returned int64"),
    "no tensor": (lambda loss: None, "returned None"),
    "an exception": (fails, "failed with ZeroDivisionError: by hand"),
}


@pytest.mark.parametrize(("wrong", "told"), WRONGS.values(), ids=WRONGS.keys())
@pytest.mark.parametrize("priors", [[{"name": "toy_sds"}], [{"name": "learner"}]], ids=["", "with a prior that learns"])
def test_a_plugin_that_breaks_in_a_step_can_be_mended_and_the_run_goes_on_from_before(
    wrong: Callable[[Tensor], Any], told: str, priors: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("referees", "breaking", Breaking, "breaks")
    config = toy_config(referees=[{"name": "breaking"}], priors=priors)
    alone(config, tmp_path / "alone")
    monkeypatch.setattr(Breaking, "wrong", wrong)
    with pytest.raises(RefcoreError, match=told):
        refcore.invert(config.prompts, config=config, out=tmp_path / "cut", checkpoint=2)
    monkeypatch.setattr(Breaking, "wrong", None)
    result = refcore.resume(tmp_path / "cut")
    # A prior with a state of its own may have moved in the step that broke, so the checkpoint before is taken.
    assert result.resumed[0].step == (2 if priors[0]["name"] == "learner" else 3)
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_numbers_that_have_overflowed_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(ema={"decay": 0.5})
    alone(config, tmp_path / "alone")
    update, calls = Tracks.update, 0

    def overflowing(self: Tracks, *given: Any) -> None:
        nonlocal calls
        calls += 1
        update(self, *given)
        if calls == 4:
            self.params["latent"].data[0, 0, 0, 0] = math.inf

    monkeypatch.setattr(Tracks, "update", overflowing)
    with pytest.raises(refcore.NonFiniteError, match='step 3: "parameters"'):
        refcore.invert(config.prompts, config=config, out=tmp_path / "cut", checkpoint=1)
    assert [kept.step for kept in checkpoints_of(tmp_path / "cut")] == [3, 2]
    refcore.resume(tmp_path / "cut")
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


class Large(ToyReferee):
    """Has no room for more than two views from its third step on."""

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        self.late = getattr(self, "late", 0) + (len(views) > 2)
        if self.late > 2 and len(views) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().judge(views, conditioning, prompt_index, wanted)


@pytest.mark.parametrize("chunk", [None, 1000])
def test_a_chunk_that_was_halved_stays_halved(chunk: int | None, tmp_path: Path) -> None:
    registry.register("referees", "large", Large, "is large")
    config = toy_config(prompts=["a"], referees=[{"name": "large"}], priors=[], chunk=chunk)
    left_alone = alone(config, tmp_path / "alone")
    assert left_alone.panel["halved"]
    cut(config, tmp_path / "cut", 4)
    resumed = refcore.resume(tmp_path / "cut")
    assert (resumed.panel["chunks"], resumed.panel["halved"]) == (
        left_alone.panel["chunks"],
        left_alone.panel["halved"],
    )
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, refcore.Terminated)])
def test_sigterm_ends_a_run_like_the_first_ctrl_c_and_the_run_goes_on(
    number: int, kind: type[BaseException], tmp_path: Path
) -> None:
    config, handler = toy_config(), signal.getsignal(signal.SIGTERM)
    alone(config, tmp_path / "alone")
    with pytest.raises(kind):
        refcore.invert(
            config.prompts,
            config=config,
            out=tmp_path / "cut",
            on_step=stop_at(2, lambda: os.kill(os.getpid(), number)),
        )
    assert signal.getsignal(signal.SIGTERM) is handler
    result = json.loads((tmp_path / "cut" / rundir.RESULT).read_text())
    assert (result["stopped"], result["steps"]) == ("interrupted", 3)
    assert (tmp_path / "cut" / "image_0.png").exists()
    assert checkpoints_of(tmp_path / "cut")[0].step == 3  # none was due in these milliseconds
    refcore.resume(tmp_path / "cut")
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_a_program_keeps_its_own_answer_to_sigterm(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        result = refcore.invert("a", config=toy_config(), on_step=stop_at(2, lambda: os.kill(os.getpid(), 15)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (heard, result.steps) == ([15], 6)


@pytest.mark.parametrize("rounds", [[], [[1, 0.6]]])
def test_sigterm_in_the_start_leaves_a_checkpoint_or_nothing(
    rounds: Sequence[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toys import ToySds

    calls, sample = 0, ToySds.sample

    def sampling(self: ToySds, *given: Any, **options: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == (2 if rounds else 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return sample(self, *given, **options)

    config = toy_config(**{**SEARCH, "init": {"steps": 2, "rounds": rounds}})
    alone(config, tmp_path / "alone")
    monkeypatch.setattr(ToySds, "sample", sampling)
    with pytest.raises(refcore.Terminated) as told:
        refcore.invert(config.prompts, config=config, out=tmp_path / "cut", checkpoint=1)
    if not rounds:
        assert not (tmp_path / "cut").exists()
        return
    assert str(told.value) == (
        "interrupted before the first step; go on with the search for the start by "
        f"`refcore invert --resume {tmp_path / 'cut'}`"
    )
    refcore.resume(tmp_path / "cut")
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")


def test_a_start_that_fails_leaves_a_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toys import ToyLatent

    def fail(self: ToyLatent, rng: Rng) -> Any:
        raise ZeroDivisionError("by hand")

    monkeypatch.setattr(ToyLatent, "init", fail)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for name in ("new", "mine"):
        with pytest.raises(RefcoreError, match="by hand"):
            refcore.invert("a", config=toy_config(), out=tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    config = toy_config()
    alone(config, tmp_path / "alone")
    now = time.time()
    times = (now - 3600 * n for n in range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: next(times))
    cut(config, tmp_path / "cut", 3, checkpoint="0.001s")
    refcore.resume(tmp_path / "cut")
    assert whole(tmp_path / "cut") == whole(tmp_path / "alone")
    result = json.loads((tmp_path / "cut" / rundir.RESULT).read_text())
    assert all(seconds >= 0 for seconds in result["timings"].values())


def test_times_of_all_processes_are_added_up(tmp_path: Path) -> None:
    cut(toy_config(), tmp_path / "run", 3)
    before = load_state(checkpoints_of(tmp_path / "run")[0].path)["meta"]["run"]["timings"]
    result = refcore.resume(tmp_path / "run")
    assert result.timings["steps"] > before["steps"] > 0
    assert result.timings["start"] > before["start"] > 0


def test_a_resumed_run_takes_models_observers_and_needs_no_main_thread(tmp_path: Path) -> None:
    models = refcore.Models()
    refcore.invert("a", config=toy_config(), models=models)
    loaded = len(models)
    cut(toy_config(), tmp_path / "run", 3)

    class Watcher(refcore.Observer):
        steps = 0

        def on_step(self, step: StepResult, record: dict[str, Any]) -> None:
            self.steps += 1

    watcher, made = Watcher(), []
    thread = threading.Thread(
        target=lambda: made.append(refcore.resume(tmp_path / "run", observers=[watcher], models=models))
    )
    thread.start()
    thread.join(60)
    assert made[0].steps == 6
    assert watcher.steps == 2
    assert len(models) == loaded
