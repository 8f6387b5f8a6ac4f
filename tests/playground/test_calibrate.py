"""Calibration: the losses of true matches, which a wrong caption does not reach, in a file that a term can read."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from refcore.calibration import Calibration
from refcore.config.run import RunConfig
from refcore.engine.build import build
from refcore_playground.calibrate import calibrate, main
from refcore_playground.draw import draw_scene
from refcore_playground.grammar import parse
from refcore_playground.render import render_batch

ZOO = Path(__file__).parents[2] / "playground" / "zoo"
PROMPTS = ["a red circle", "two blue squares", "a green star"]
CONFIG: dict[str, Any] = {
    "canvas": {"name": "pixel"},
    "size": 64,
    "referees": [{"name": "clip", "config": {"model": "playground:clip"}, "views": "clean"}],
}

pytestmark = pytest.mark.skipif(not (ZOO / "clip").is_dir(), reason="the embedded CLIP is not there")


def test_matches_have_lower_losses_than_mismatches() -> None:
    curve = calibrate(RunConfig.from_settings(CONFIG), PROMPTS, renders=2).curves[0]
    assert curve.images == 6
    assert list(curve.losses) == sorted(curve.losses)
    engine = build(RunConfig.from_settings({**CONFIG, "prompts": PROMPTS}))
    scenes = [draw_scene(parse(prompt), random.Random(1)) for prompt in PROMPTS[1:] + PROMPTS[:1]]
    wrong = engine.losses(torch.from_numpy(render_batch(scenes)), [0, 1, 2])["clip"]
    assert float(wrong.min()) > curve.of(0.5)


def test_each_prompt_has_a_curve_of_its_own() -> None:
    curve = calibrate(RunConfig.from_settings(CONFIG), PROMPTS, renders=2).curves[0]
    means = [np.mean([curve.prompts[prompt][0], curve.prompts[prompt][-1]]) for prompt in PROMPTS]
    assert len({round(float(mean), 6) for mean in means}) == 3
    assert min(curve.prompts[prompt][0] for prompt in PROMPTS) == pytest.approx(curve.losses[0], rel=1e-5)


def test_the_command_writes_what_a_term_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    out = str(tmp_path / "calibration.json")
    main(["--config", str(tmp_path / "run.yaml"), "--out", out, "--prompts", "3", "--renders", "1"])
    assert "clip: median" in capsys.readouterr().out
    assert json.loads(Path(out).read_text())["about"]["prompts"] == 3
    satisfied_at = {"calibration": out, "quantile": 0.5}
    term = {**CONFIG["referees"][0], "satisfied_at": satisfied_at}
    engine = build(RunConfig.from_settings({**CONFIG, "prompts": ["a red circle"], "referees": [term]}))
    assert engine.panel.referees[0].satisfied_at == (Calibration.read(out).curves[0].of(0.5),)
