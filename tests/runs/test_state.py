"""A run's state is data: a file that is read without running anything, and goes on bit for bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from toys import toy_config

from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.runs.state import load_state, save_state

ROOT = Path(__file__).parents[2]
SOURCES = ["refcore", "plugins", "playground", "bench", "performance", "studies", "examples", "docs", "README.md"]
"""What a reader or a user runs; the rest of a checkout, such as `.venv`, is not the project's."""


@pytest.mark.fault("5.11")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_saved_state_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    config = toy_config(prompts=["a", "b"], optimizer={"name": optimizer, "lr": 0.05})
    inversion = Inversion(config)
    next(inversion)
    next(inversion)
    path = save_state(inversion.state_dict(), tmp_path / "state.safetensors")
    resumed = Inversion(config, state=load_state(path))
    assert [step.step for step in resumed] == [step.step for step in inversion]
    assert torch.equal(resumed.images(), inversion.images())
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.fault("5.11")
def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefcoreError, match="there is no saved state at"):
        load_state(tmp_path / "none")
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(RefcoreError, match=r'state\.pt" is not a saved state'):
        load_state(tmp_path / "state.pt")


@pytest.mark.fault("5.11")
def test_a_pickle_is_read_in_one_place_and_written_in_none() -> None:
    found = subprocess.run(
        ["grep", "-rlE", r"torch\.(load|save)\(", "--include=*.py", "--include=*.md", *SOURCES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["plugins/models/checkpoint_conversion.py"]
