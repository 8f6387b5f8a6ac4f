"""The `mlflow` tracker: a run of MLflow, in a local database unless a server is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.errors import RefcoreError
from refcore.images import Levels

STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
DATABASE, ARTIFACTS = "mlflow.db", "mlflow"
"""Database and folder of pictures in a run's folder."""
LONGEST = 6000
"""Longest value of a parameter that MLflow keeps, in characters."""


class MLflow(Tracker):
    """Scalars, pictures and the config as a run of MLflow.

    Without a tracking server the record is a local database; `mlflow ui --backend-store-uri sqlite:///DIR/mlflow.db`
    shows it.
    """

    class Config(Tracker.Config):
        uri: str | None = Field(
            None,
            description="Tracking URI, such as http://localhost:5000; null: mlflow.db in the run's folder.",
        )
        experiment: str = Field("refcore", min_length=1, description="Experiment of the run.")

    name = "mlflow"
    requires: ClassVar[Mapping[str, str]] = {"mlflow": "pip install 'refcore[mlflow]'"}
    config: Config
    _client: Any = None
    _id: str = ""

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`.

        Raises:
            RefcoreError: neither the run nor the config names a place.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri, place = self.config.uri, None
        if uri is None:
            if run.folder is None:
                raise RefcoreError(
                    "the tracker mlflow has no place to write to; give the run a folder (out=), or set its field uri"
                )
            folder = run.folder.absolute()
            uri, place = f"sqlite:///{folder / DATABASE}", (folder / ARTIFACTS).as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(self.config.experiment)
        experiment = (
            self._client.create_experiment(self.config.experiment, artifact_location=place)
            if found is None
            else found.experiment_id
        )
        self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
        parameters = [Param(name, text[:LONGEST]) for name, text in _flat(run.config)]
        for first in range(0, len(parameters), 100):  # at most a hundred in a batch
            self._client.log_batch(self._id, params=parameters[first : first + 100])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.scalars`."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        """See `Tracker.pictures`."""
        for name, levels in pictures.items():
            self._client.log_image(self._id, levels, artifact_file=f"pictures/{name}/step_{step:06d}.png")

    def end(self, outcome: Outcome) -> None:
        """See `Tracker.end`."""
        if self._id:
            self._client.set_terminated(self._id, STATUS[outcome])


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of each plain value of nested settings.

    >>> [*_flat({"a": {"b": [1, None]}})]
    [('a.b.0', '1'), ('a.b.1', 'None')]
    """
    if isinstance(value, Mapping):
        items = [*value.items()]
    elif isinstance(value, (list, tuple)):
        items = [*enumerate(value)]
    else:
        yield path, str(value)
        return
    for key, one in items:
        yield from _flat(one, f"{path}.{key}" if path else str(key))
