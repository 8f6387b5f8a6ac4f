"""The `tensorboard` tracker: event files, beside the run's other files."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from refcore.config.settings import dump_yaml
from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.errors import RefcoreError
from refcore.images import Levels

SUBFOLDER = "tensorboard"


class TensorBoard(Tracker):
    """Scalars, pictures and the config of a run as TensorBoard's event files.

    They lie in `tensorboard/` of the run's folder, so `tensorboard --logdir runs` shows all runs side by side. A run
    that goes on after an interruption hides the steps that it takes again.
    """

    class Config(Tracker.Config):
        folder: str | None = Field(
            None, description="Folder of the event files; null: `tensorboard` in the run's folder, which must have one."
        )

    name = "tensorboard"
    requires: ClassVar[Mapping[str, str]] = {"tensorboard": "pip install 'refcore[tensorboard]'"}
    config: Config
    _writer: Any = None

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`.

        Raises:
            RefcoreError: neither the run nor the config has a folder.
        """
        from torch.utils.tensorboard import SummaryWriter

        if self.config.folder is not None:
            folder = Path(expanduser(self.config.folder)) / run.name
        elif run.folder is not None:
            folder = run.folder / SUBFOLDER
        else:
            raise RefcoreError(
                "the tracker tensorboard has no folder to write to; give the run one (out=), or set its field folder"
            )
        self._writer = SummaryWriter(str(folder), purge_step=run.first_step or None)
        if not run.first_step:
            self._writer.add_text("config", f"```yaml\n{dump_yaml(dict(run.config))}\n```", 0)
            lines = [f"{i}. {prompt}, seed {seed}" for i, (prompt, seed) in enumerate(run.samples)]
            self._writer.add_text("samples", "\n".join(lines), 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        """See `Tracker.pictures`."""
        for name, levels in pictures.items():
            self._writer.add_image(name, levels, step, dataformats="HWC")

    def end(self, outcome: Outcome) -> None:
        """See `Tracker.end`."""
        if self._writer is not None:
            self._writer.add_text("outcome", outcome, 0)
            self._writer.close()
