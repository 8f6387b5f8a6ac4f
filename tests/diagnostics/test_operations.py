"""Operations counted before a download: those of a real run, and without weights those of the loaded models."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from transformers import Blip2Config, CLIPTextConfig, CLIPTextModel

from refcore.checkpoints import resolve
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import override
from refcore.diagnostics.operations import Operations, Part, operations, parts
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore_plugins import without_weights

DIFFUSION, BLIP2 = "playground:diffusion", "playground:blip2"
SMALL = [
    f"canvas.config.model={DIFFUSION}",
    f"priors.0.config.model={DIFFUSION}",
    "priors.0.config.words=null",
    f"referees.0.config.model={BLIP2}",
    "referees.0.config.itg_head=null",
    "referees.0.window=[0, 2]",
    "size=64",
    "steps=3",
    "chunk=4",
    "device=cpu",
]
"""The paper's recipe on the embedded checkpoints, with the referee in two of three steps."""


def small(*changes: str) -> RunConfig:
    settings = override(presets.get("vlminv").settings, [*SMALL, *changes])
    return RunConfig.from_settings({**settings, "prompts": ["a red circle"], "seeds": [0]})


def total(found: list[Part]) -> Operations:
    assert all(part.each is not None for part in found)
    return sum((part.each * part.times for part in found if part.each is not None), Operations())


@pytest.mark.parametrize(
    "changes", [(), ("canvas.config.recompute=nothing",), ("views.main.count=3", "views.main.hardest=null")]
)
def test_what_is_counted_is_what_a_run_does(changes: tuple[str, ...]) -> None:
    config = small(*changes)
    inversion = Inversion(config)

    def run() -> None:
        for _ in inversion:
            pass
        inversion.images()

    done, counted = operations(run), total(parts(config))
    assert done.convolutions == counted.convolutions
    assert done.products == pytest.approx(counted.products, rel=1e-3)  # the matrices of views are between networks
    assert done.products >= counted.products


def test_a_count_without_weights_is_that_of_the_loaded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small()
    loaded = parts(config)
    tokens = 5  # [CLS] a red circle [SEP]
    folder = Path(resolve(DIFFUSION))
    architecture = {
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")),
        "unet": lambda: UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet")),
        "vae": lambda: AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae")),
    }
    blip2 = Blip2Config.from_pretrained(resolve(BLIP2))
    monkeypatch.setitem(without_weights.ARCHITECTURES, DIFFUSION, architecture)
    monkeypatch.setattr(without_weights, "DIFFUSION", [DIFFUSION])
    monkeypatch.setattr(without_weights, "BLIP2", BLIP2)
    monkeypatch.setattr(without_weights, "blip2_config", lambda: blip2)
    monkeypatch.setattr(without_weights, "WORDS", tokens)
    assert parts(config) == loaded


@pytest.mark.parametrize(
    ("change", "field"),
    [("views.main.hardest=4", "views.main.hardest"), ("candidates.count=2", "candidates"), ("output=best", "output")],
)
def test_what_is_not_counted_is_refused(change: str, field: str) -> None:
    with pytest.raises(RefcoreError, match=field):
        parts(small(change))


def test_a_model_of_unknown_shape_is_not_counted() -> None:
    (_, referee, _, _) = parts(small("referees.0.config.model=somebody/blip2", "referees.0.config.itg=0"))
    assert (referee.label, referee.each, referee.times) == ("blip2", None, 20)
