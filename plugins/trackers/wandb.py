"""The `wandb` tracker: a run of Weights & Biases, offline unless asked otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.images import Levels


class WeightsAndBiases(Tracker):
    """Scalars, pictures and the config as a run of Weights & Biases.

    Offline by default: nothing leaves the machine until `wandb sync FOLDER` sends it.
    """

    class Config(Tracker.Config):
        project: str = Field("refcore", min_length=1, description="Project of the run.")
        mode: Literal["offline", "online"] = Field(
            "offline", description="offline: files alone, for `wandb sync`. online: sent as they come, with your login."
        )
        folder: str | None = Field(
            None, description="Folder in which `wandb/` is made; null: the run's folder, or the working directory."
        )
        tags: tuple[str, ...] = Field((), description="Tags of the run.")

    name = "wandb"
    requires: ClassVar[Mapping[str, str]] = {"wandb": "pip install 'refcore[wandb]'"}
    config: Config
    _run: Any = None

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`."""
        import wandb

        own, beside = self.config.folder, run.folder
        self._run = wandb.init(
            project=self.config.project,
            name=run.name,
            dir=own if own is not None else None if beside is None else str(beside),
            config=dict(run.config),
            mode=self.config.mode,
            tags=list(self.config.tags) or None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        self._run.log(dict(values), step=step)

    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        """See `Tracker.pictures`."""
        import wandb

        self._run.log({name: wandb.Image(levels) for name, levels in pictures.items()}, step=step)

    def end(self, outcome: Outcome) -> None:
        """See `Tracker.end`."""
        if self._run is not None:
            self._run.summary["outcome"] = outcome
            self._run.finish(exit_code=0 if outcome == "finished" else 1)
