"""What metrics measured of the images in a results folder: a row for each image and metric, in Parquet."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, RootModel

from refcore.contracts.metric import Measurement
from refcore.errors import ConfigError, RefcoreError, described
from refcore.explain import validated
from refcore.text_files import parse_json
from refcore_bench.checkpoint_hashes import hashes
from refcore_bench.extras import need
from refcore_bench.scorers import digest
from refcore_bench.storing.results import KEY
from refcore_bench.storing.storage import open_storage

if TYPE_CHECKING:
    import polars

FOLDER: Final = "measurements"
GATHERED: Final = "measurements.parquet"
METRICS: Final = "metrics.json"
"""File of the metrics: label -> name, settings, checkpoints and identity."""
ANEW: Final = f'remove {METRICS}, {GATHERED} and the folder "{FOLDER}" to measure all images anew'


class StoredMetric(BaseModel):
    """An entry of `metrics.json`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    config: dict[str, Any]
    checkpoints: dict[str, str]
    identity: str
    remarks: list[str] = []


def schema() -> dict[str, Any]:
    """Column -> type."""
    pl = need("polars")
    return {
        "variant": pl.String,
        "split": pl.String,
        "category": pl.String,
        "prompt": pl.String,
        "seed": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
        "parts": pl.List(pl.Struct({"name": pl.String, "value": pl.Float64})),
    }


class Measurements:
    """The measurements of a results folder, by path or URL. Each file is written whole or not at all."""

    def __init__(self, place: str | Path) -> None:
        self.storage = open_storage(place)

    def metrics(self) -> dict[str, StoredMetric]:
        """Label -> metric, as far as any were measured.

        Raises:
            RefcoreError: the file is broken.
        """
        if not self.storage.exists(METRICS):
            return {}
        try:
            stored = parse_json(self.storage.read_text(METRICS))
            return dict(validated(RootModel[dict[str, StoredMetric]], stored).root)
        except (OSError, ValueError, ConfigError) as error:
            raise RefcoreError(
                f'"{self.storage}/{METRICS}" is broken ({error}); restore the file, or {ANEW}'
            ) from error

    def claim(self, label: str, name: str, config: Mapping[str, Any], remarks: Sequence[str]) -> None:
        """Takes a label for a metric with these resolved settings, or continues an earlier run of it.

        Raises:
            RefcoreError: the folder holds values of this metric with other settings or weights.
        """
        checkpoints = hashes(config)
        identity = digest([name, config, checkpoints])
        before = self.metrics()
        if label in before and before[label].identity != identity:
            raise RefcoreError(
                f'"{self.storage}" holds values of "{label}" with other settings or weights ({before[label].config}); '
                f"choose another --out, or {ANEW}"
            )
        entry = StoredMetric(
            name=name, config=dict(config), checkpoints=checkpoints, identity=identity, remarks=list(remarks)
        )
        rows = {**before, label: entry}
        text = json.dumps({key: one.model_dump(mode="json") for key, one in rows.items()}, indent=2, ensure_ascii=False)
        self.storage.write(METRICS, (text + "\n").encode())

    def done(self) -> dict[str, set[tuple[Any, ...]]]:
        """Label -> keys of the images that a metric has measured."""
        found: dict[str, set[tuple[Any, ...]]] = {}
        for label, *key in self.rows().select("metric", *KEY).iter_rows():
            found.setdefault(label, set()).add(tuple(key))
        return found

    def add(self, label: str, keys: Sequence[tuple[Any, ...]], found: Sequence[Measurement]) -> None:
        """Writes the measurements of some images, each by its columns `KEY`, as one file."""
        rows = [
            {
                **dict(zip(KEY, key, strict=True)),
                "metric": label,
                "value": one.value,
                "parts": [{"name": name, "value": value} for name, value in one.parts.items()],
            }
            for key, one in zip(keys, found, strict=True)
        ]
        name = hashlib.sha256(json.dumps([[row[column] for column in KEY] for row in rows]).encode()).hexdigest()[:16]
        self._write(f"{FOLDER}/{label}/{name}.parquet", need("polars").DataFrame(rows, schema=schema()))

    def rows(self) -> polars.DataFrame:
        """Every measurement once.

        Raises:
            RefcoreError: a file cannot be read.
        """
        pl = need("polars")
        names = [*self.storage.listed(f"{FOLDER}/*/*.parquet"), *self.storage.listed(GATHERED)]
        try:
            frames = [pl.read_parquet(io.BytesIO(data)) for data in self.storage.read_all(names)]
            every: polars.DataFrame = pl.concat([pl.DataFrame(schema=schema()), *frames])
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = described(error)
            raise RefcoreError(f'the measurements in "{self.storage}" cannot be read ({reason}); {ANEW}') from error
        return every.unique([*KEY, "metric"], keep="first", maintain_order=True)

    def gather(self) -> None:
        """Writes all measurements to `measurements.parquet`."""
        frame = self.rows().sort([*KEY, "metric"])
        if len(frame):
            self._write(GATHERED, frame)

    def _write(self, name: str, frame: polars.DataFrame) -> None:
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self.storage.write(name, buffer.getvalue())
