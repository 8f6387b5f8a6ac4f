"""Every shipped plugin passes the conformance suite, on embedded checkpoints if it needs any."""

from __future__ import annotations

from typing import Any

import huggingface_hub.constants
import pytest
from pydantic import ValidationError

from refcore import registry
from refcore.contracts.canvas import CanvasParams
from refcore.errors import CheckpointError
from refcore.rng import Rng
from refcore.testing import CHECKS, Case, NotApplicable, run
from refcore_plugins.canvases.latent import Latent
from refcore_plugins.canvases.noise import Noise
from refcore_plugins.canvases.pixel import Pixel


class MovedNoise(Noise):
    """Noise of which some mean and variance are learned, since without any its divergence has no gradient."""

    def init(self, rng: Rng) -> CanvasParams:
        return {name: value + 0.1 for name, value in super().init(rng).items()}


NATURAL = ("volcano", "broccoli", "jellyfish")
IN_GRAMMAR = ("a red circle", "a blue square above a green star", "two dotted pink rings")
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("referees", "imagenet"): {"prompts": NATURAL},
    **{("priors", name): {"canvas": Latent()} for name in ("sds", "csd", "nfsd", "sdi", "vsd", "gaussian", "moments")},
    **{("priors", name): {"canvas": Noise()} for name in ("concentration", "spectrum")},
    ("priors", "kl"): {"canvas": MovedNoise(parameters="mean_variance")},
    ("parsers", "grammar"): {"prompts": IN_GRAMMAR},
    ("judges", "playground"): {"prompts": IN_GRAMMAR},
    ("canvases", "noise"): {"size": (32, 32)},
    ("canvases", "pixel"): {"size": (24, 32)},
    ("canvases", "multires"): {"size": (24, 32)},
    ("canvases", "fourier"): {"size": (24, 32)},
    ("canvases", "inr"): {"size": (24, 32)},
    ("canvases", "strokes"): {"size": (24, 32), "encode_error": 0.1},  # a mosaic
    ("augmentations", "color_jitter"): {"size": (24, 32)},
    ("augmentations", "erasing"): {"size": (24, 32)},
    ("augmentations", "coarse"): {"size": (24, 32)},
    ("augmentations", "gaussian_noise"): {"size": (24, 32)},
}
"""(kind, name) -> options of the case that differ from the defaults."""
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("canvases", "inr"): {"layers": 2, "hidden": 16, "w0_first": 4.0, "w0": 2.0, "encode_lr": 0.01},
    ("canvases", "strokes"): {"strokes": 8, "shapes": 4},
    ("augmentations", "shift"): {"pixels": 3, "fraction": 0.1},
    ("augmentations", "window"): {"box": (0.0, 0.5, 0.75, 1.0)},
    ("augmentations", "coarse"): {"side": 8},
    ("augmentations", "affine"): {"scale": (0.8, 1.4)},
    ("referees", "imagenet"): {"size": 64},
    ("priors", "sdi"): {"inversion_steps": 2},
    ("priors", "statistics"): {"size": 64, "smallest": 8},
    ("priors", "ffdnet"): {"crop": 32},
    ("priors", "concentration"): {"shuffles": 2},
}
"""(kind, name) -> settings under which it has an effect, or is fast."""
SHIPPED = [
    (kind, name)
    for kind in registry.KINDS
    for name in registry.names(kind)
    if registry.entry(kind, name).distribution == "refcore"
]
_cases: dict[tuple[str, str], Case | str] = {}


def case_of(kind: registry.Kind, name: str) -> Case:
    """The case of a plugin, its models loaded once; skips those whose default checkpoint is not embedded."""
    key = (kind, name)
    if key not in _cases:
        try:
            case = Case(registry.get(kind, name)(**SETTINGS.get(key, {})), **OPTIONS.get(key, {}))
            with pytest.MonkeyPatch.context() as offline:  # no waiting for an unreachable hub
                offline.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
                case.loaded()
            _cases[key] = case
        except CheckpointError as missing:
            _cases[key] = f"its default checkpoint is not embedded, so its own tests run the suite: {missing}"
        except ValidationError as missing:
            fields = ", ".join(str(error["loc"][0]) for error in missing.errors())
            _cases[key] = f"it needs settings ({fields}) that have no default, so its own tests run the suite"
    found = _cases[key]
    if isinstance(found, str):
        raise NotApplicable(found)
    return found


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [pytest.param(kind, name, check, id=f"{name}-{check}") for kind, name in SHIPPED for check in CHECKS[kind]],
)
def test_a_shipped_plugin_keeps_its_contract(kind: registry.Kind, name: str, check: str) -> None:
    run(check, case_of(kind, name))


@pytest.mark.parametrize("name", ["clip", "blip2", "sds"])
def test_the_embedded_checkpoints_are_among_them(name: str) -> None:
    kind: registry.Kind = "priors" if name == "sds" else "referees"
    assert case_of(kind, name).kind == kind


@pytest.mark.parametrize("check", ["shapes_dtype_and_device", "no_dependence_on_batch_mates", "encoder"])
def test_a_latent_prior_keeps_its_contract_on_pixels_too(check: str) -> None:
    case = Case(registry.get("priors", "sds")(), canvas=Pixel(), size=(64, 64))
    run(check, case)
