"""Every shipped referee is registered under its name, and its conversions are offered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from refcore import registry
from refcore.cli import convert
from refcore.errors import CheckpointError

NAMES = ["aesthetic", "blip2", "classifier", "clip", "hf-clip", "hpsv2", "image", "image-reward", "imagenet", "siglip"]


@pytest.mark.parametrize("name", [*NAMES, "vqa"])
def test_a_referee_is_found_by_its_name_and_describes_its_fields(name):
    found = registry.get("referees", name)
    assert found.name == name
    assert all(field.description for field in found.Config.model_fields.values())


def test_conversions_are_offered_and_run_by_name(tmp_path):
    """Also where the plugin's own name has a hyphen, or begins with another plugin's."""
    assert {"aesthetic-head", "blip2-itg", "hpsv2-weights", "image-reward-checkpoint"} <= set(convert.offered())
    torch.save(nn.Linear(12, 1).state_dict(), tmp_path / "head.pth")
    convert.run("aesthetic-head", tmp_path / "head.pth", tmp_path / "head.safetensors")
    assert (tmp_path / "head.safetensors").is_file()
    with pytest.raises(CheckpointError, match="expected the checkpoint of ImageReward"):
        convert.run("image-reward-checkpoint", tmp_path / "none.pt", tmp_path / "out")
