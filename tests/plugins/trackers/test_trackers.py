"""What each tracker writes is what the run did, read back by the tool's own reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refcore
from refcore.contracts.tracker import Tracker
from refcore.errors import CheckpointError, RefcoreError

STEPS = 4
PROMPTS = ["a red circle", "a blue square"]
OVERRIDES = [f"steps={STEPS}", "candidates={count: 1}"]


def run(folder: Path, tracker: str | Tracker, overrides: list[str] | None = None) -> refcore.Result:
    """A short run of two samples, recorded with pictures after every second step."""
    given = [*OVERRIDES, *(overrides or [])]
    return refcore.invert(PROMPTS, preset="playground-blind", overrides=given, out=folder, track=tracker)


def named(name: str, **config: object) -> str:
    return json.dumps({"name": name, "config": {"pictures": 2, **config}})


def expected(result: refcore.Result) -> list[float]:
    """CLIP's mean loss at each step, by the run's own history."""
    return [float(np.mean(record["losses"]["clip"])) for record in result.history]


def logged(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, which W&B writes after seven bytes of its own.

    Blocks of 32 KiB hold chunks with a header: checksum (4 bytes), length (2), kind (1: whole, 2: first, 3: middle,
    4: last).
    """
    block, header = 32768, 7
    place, parts = header, b""
    while place + header <= len(content):
        if block - place % block < header:
            place += block - place % block
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + header])
        if not kind:
            return
        parts = (b"" if kind in (1, 2) else parts) + content[place + header : place + header + length]
        place += header + length
        if kind in (1, 4):
            yield parts


def test_tensorboard_has_the_curves_the_pictures_and_the_config(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(tmp_path / "run", named("tensorboard"))
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0})
    found.Reload()
    losses = found.Scalars("loss/clip")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert [event.value for event in losses] == pytest.approx(expected(result), rel=1e-5)
    assert found.Scalars("score/owlv2/sample_1")[0].value == pytest.approx(result[1].scores["owlv2"], rel=1e-5)
    pictures = found.Images("sample_1")
    assert [event.step for event in pictures] == [0, 2, 4]
    last = tmp_path / "last.png"
    last.write_bytes(pictures[-1].encoded_image_string)
    assert np.array_equal(np.array(Image.open(last)), np.array(result[1].image))
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "playground:diffusion" in text
    outcome = found.Tensors("outcome/text_summary")[0].tensor_proto.string_val[0]
    assert outcome == b"finished"


def test_wandb_offline_has_the_curves_the_pictures_and_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="extra `wandb` is not installed")
    from wandb.proto import wandb_internal_pb2 as records

    result = run(tmp_path / "run", named("wandb", project="mine", tags=["one"]))
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    history, config, project, tags = [], {}, "", []
    for data in logged(file.read_bytes()):
        record = records.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = record.history.item
            history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        elif kind == "run":
            # A run that goes on may be written again, without what has not changed.
            project, tags = record.run.project or project, [*record.run.tags] or tags
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    assert (project, tags) == ("mine", ["one"])
    assert config["steps"] == STEPS
    rows = {row["_step"]: row for row in history}
    assert [rows[step]["loss/clip"] for step in range(1, STEPS + 1)] == pytest.approx(expected(result), rel=1e-6)
    assert rows[STEPS]["score/clip/sample_0"] == pytest.approx(result[0].scores["clip"])
    pictures = sorted(file.parent.glob("files/media/images/sample_0_*.png"))
    assert len(pictures) == 3
    shown = [np.array(Image.open(path)) for path in pictures]
    assert any(np.array_equal(one, np.array(result[0].image)) for one in shown)


def test_mlflow_has_the_curves_the_pictures_and_the_config(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="extra `mlflow` is not installed")

    result = run(tmp_path / "run", named("mlflow", experiment="mine"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["steps"] == str(STEPS)
    assert found.data.params["referees.0.name"] == "clip"
    losses = client.get_metric_history(found.info.run_id, "loss/clip")
    assert [metric.step for metric in losses] == [1, 2, 3, 4]
    assert [metric.value for metric in losses] == pytest.approx(expected(result))
    (last,) = (tmp_path / "run" / "mlflow").glob(f"*/artifacts/pictures/sample_1/step_{STEPS:06d}.png")
    assert np.array_equal(np.array(Image.open(last)), np.array(result[1].image))


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracked_run_makes_the_same_bits(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"extra `{name}` is not installed")
    plain = refcore.invert(PROMPTS, preset="playground-blind", overrides=OVERRIDES)
    assert run(tmp_path / "run", named(name)).images.equal(plain.images)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tracker_without_a_place_says_how_to_give_it_one(name: str) -> None:
    pytest.importorskip(name, reason=f"extra `{name}` is not installed")
    with pytest.raises(RefcoreError, match=f"the tracker {name} has no .*out="):
        refcore.invert(PROMPTS, preset="playground-blind", overrides=OVERRIDES, track=name)


def test_a_package_that_is_missing_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refcore.plugin.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"tracker \"wandb\" needs the package wandb: .*refcore\[wandb\]"):
        refcore.invert(PROMPTS, preset="playground-blind", track="wandb")
