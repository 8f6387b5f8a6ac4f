"""A toy referee for flat colours, and fixtures that call the command line in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from textwrap import dedent

import pytest
import torch
import yaml
from pydantic import Field

from refcore import registry
from refcore.cli import main
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class Tint(Referee):
    """Squared distance of the mean colour from the colour that the prompt names; it reads four words of it."""

    class Config(PluginConfig):
        model: str = Field("tint", description="missing: no such checkpoint")
        nan_after: int | None = Field(None, description="NaN from this call on")
        fail_after: int | None = Field(None, description="an exception from this call on")
        interrupt_after: int | None = Field(None, description="Ctrl-C in this call")

    score_unit = "distance"

    def check(self, prompts=()):
        """Its model is a name and no checkpoint."""

    def load(self, device, dtype):
        if self.config.model == "missing":
            raise CheckpointError('model "missing" is not on this machine and cannot be downloaded')
        self.device, self.dtype, self.input_size = device, dtype, (8, 8)
        self.calls = 0

    def read(self, prompts):
        colours = [next((COLOURS[w] for w in prompt.split() if w in COLOURS), (0.5, 0.5, 0.5)) for prompt in prompts]
        truncated = tuple(" ".join(prompt.split()[4:]) for prompt in prompts)
        notes = tuple("no colour is named" if colour == (0.5, 0.5, 0.5) else "" for colour in colours)
        return Conditioning(tuple(prompts), {"colour": torch.tensor(colours)}, truncated, notes)

    def judge(self, views, conditioning, prompt_index, wanted=True):
        self.calls += 1
        if self.config.interrupt_after is not None and self.calls == self.config.interrupt_after:
            os.kill(os.getpid(), 2)
        if self.config.fail_after is not None and self.calls > self.config.fail_after:
            raise ZeroDivisionError("a bug of the plugin")
        loss = (views.mean((2, 3)) - conditioning.select(prompt_index)["colour"]).square().sum(1)
        broken = self.config.nan_after is not None and self.calls > self.config.nan_after
        return loss * torch.nan if broken else loss

    def score(self, images, conditioning):
        return (images.mean((2, 3)) - conditioning["colour"]).square().sum(1)


@pytest.fixture(autouse=True)
def tint():
    registry.register("referees", "tint", Tint, "Wants a flat colour")
    yield
    registry.unregister("referees", "tint")


@pytest.fixture
def settings():
    """A run of six steps that takes milliseconds."""
    return {
        "canvas": {"name": "pixel"},
        "size": 16,
        "referees": [{"name": "tint"}],
        "views": {"main": {"count": 2}},
        "optimizer": {"name": "adam", "lr": 0.5},
        "steps": 6,
        "chunk": 8,
        "device": "cpu",
    }


@pytest.fixture
def config_file(tmp_path, settings):
    path = tmp_path / "tint.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@dataclass
class Outcome:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one-line error of a refusal; fails on more lines, on none, and on a traceback."""
        lines = self.err.splitlines()
        assert self.status != 0
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@pytest.fixture
def refcore(capsys, monkeypatch, tmp_path):
    """Calls `refcore` in this process, in an empty working directory."""
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)

    def call(*argv: object) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in argv])
        printed = capsys.readouterr()
        return Outcome(int(left.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def refcore_process(tmp_path):
    """Calls `refcore` in a new process, in an empty working directory."""

    def call(*argv: object, before: str = "") -> Outcome:
        code = dedent(before) + "\nfrom refcore.cli import main\nmain()"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call
