"""The preset `playground-deep-daze`: a coordinate network, the embedded referees, and no diffusion prior."""

from __future__ import annotations

import refcore
from refcore.config import presets
from refcore_plugins.priors.sds import Sds


def test_referees_of_the_embedded_world_draw_on_a_network_without_a_diffusion_prior() -> None:
    config = presets.compose("playground-deep-daze")
    assert config.canvas.name == "inr"
    assert all(term.config["model"].startswith("playground:") for term in config.referees)
    assert Sds.name not in [term.name for term in config.priors]
    assert config.init is None


def test_it_runs_and_its_losses_fall() -> None:
    result = refcore.invert(
        "a red circle", preset="playground-deep-daze", overrides=["steps=6", "optimizer.warmup=0"], seeds=0
    )
    assert result.images.shape == (1, 3, 64, 64)
    assert result.samples[0].verdict is not None
    first, last = (result.history[step]["losses"]["owlv2"][0] for step in (0, -1))
    assert last < first / 1.5
