"""A finished examination: its rows in Parquet, and everything that is shown of it, which follows from the rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refcore.config.run import RunConfig
from refcore.engine.build import resolve
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.text_files import read_json
from refcore_bench import examinations
from refcore_bench.checkpoint_hashes import hashes
from refcore_bench.examinations.examinee import BATCH, Examinee
from refcore_bench.examinations.task import Asked, Row, Section, Task
from refcore_bench.extras import need
from refcore_bench.table import Table

ROWS, FACTS = "rows.parquet", "examination.json"
"""Files of an examination's folder."""
EVERYWHERE = ("referees", "device", "dtype", "autocast", "weights", "offload", "strict")
"""Fields of a run's config that matter to a referee that is only asked for scores."""


@dataclass(frozen=True)
class Examination:
    """What a referee has answered, and to what."""

    task: Task
    facts: Mapping[str, Any]
    """Referee, config, unit, hashes of its checkpoints, data or seed, versions, warnings; ready for JSON."""
    rows: Sequence[Row]

    @property
    def sections(self) -> list[Section]:
        """The measures of the rows."""
        return self.task.measure(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the rows."""
        return {
            **self.facts,
            "examples": len(self.rows),
            "sections": {section.title: section.to_dict() for section in self.sections},
        }

    def tables(self) -> list[Table]:
        """The sections as tables."""
        return [section.table() for section in self.sections]

    def heading(self) -> str:
        """A line that says who was asked what."""
        facts = self.facts
        where = facts["data"] or f"scenes of the playground, seed {facts['seed']}"
        return f"referee {facts['referee']}, task {facts['task']}, on {where}; scores in the unit {facts['unit']}"

    def save(self, folder: Path) -> None:
        """Writes the rows and the facts into a folder, which may be new.

        Raises:
            RefcoreError: it holds an examination already, or cannot be written.
        """
        for name in (ROWS, FACTS):
            rundir.refuse_existing(folder / name, "--out")
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        need("polars").DataFrame([dict(row) for row in self.rows], infer_schema_length=None).write_parquet(
            buffer, compression="zstd"
        )
        rundir.write(folder / ROWS, buffer.getvalue())
        rundir.write_text(folder / FACTS, rundir.to_json(dict(self.facts), indent=1) + "\n")

    @classmethod
    def stored(cls, folder: Path) -> Examination:
        """An examination read back from its folder; its measures are computed anew.

        Raises:
            RefcoreError: the folder holds none.
        """
        try:
            facts = read_json(folder / FACTS)
            rows = need("polars").read_parquet(folder / ROWS).to_dicts()
            made = cls(examinations.get(facts["task"]), facts, rows)
            made.task.measure(rows)  # rows of other columns are refused here
            return made
        except RefcoreError:
            raise
        except Exception as error:  # polars and measures raise many kinds on other people's rows
            raise RefcoreError(
                f'"{folder}" holds no examination ({type(error).__name__}: {str(error)[:100]}); expected the folder of '
                "`refcore probe referee NAME --task TASK --out FOLDER`"
            ) from error


def examine(
    config: RunConfig,
    task: Task,
    asked: Asked,
    data: Path | None = None,
    out: Path | None = None,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
) -> Examination:
    """Asks a referee the questions of a task.

    Args:
        config: a run of this referee alone, from `refcore_bench.examinations.probe.run_of`.
        task: from `refcore_bench.examinations.get`.
        asked: how much of it.
        data: folder with the task's data; None: scenes of the playground.
        out: folder for the rows; None: they are not written.
        batch: pictures that the referee looks at side by side.
        progress: is told the number of examples that are done.

    Raises:
        RefcoreError: the data are wrong or missing, the referee cannot be loaded or cannot read a caption, or `out` is
            taken.
    """
    if out is not None:
        for name in (ROWS, FACTS):
            rundir.refuse_existing(out / name, "--out")
    items = task.items(asked, data)
    config = resolve(RunConfig.from_settings({**config.settings(), "prompts": ["-"], "seeds": [0]}))
    examinee = Examinee(config, batch)
    rows = list(examinee.rows(items, progress))
    if not rows:
        raise RefcoreError(f'the data of the task "{task.name}" hold no example; expected at least one')
    (term,) = config.referees
    facts = {
        "task": task.name,
        "origin": task.origin,
        "referee": term.name,
        "config": term.config,
        "prompt": term.prompt,
        "unit": examinee.unit,
        "checkpoints": hashes(term.config),
        "data": None if data is None else str(data),
        "seed": asked.seed if data is None else None,
        "warnings": examinee.warnings,
        "versions": rundir.versions(),
    }
    examination = Examination(task, json.loads(rundir.to_json(facts)), rows)
    if out is not None:
        examination.save(out)
    return examination


def refuse_settings_of_a_run(overrides: Sequence[str], task: str) -> None:
    """Refuses overrides that change only a run, where there is none.

    Raises:
        RefcoreError: naming the first of them.
    """
    for override in overrides:
        field = override.partition("=")[0].strip()
        if field.partition(".")[0].rstrip("+") not in EVERYWHERE:
            raise RefcoreError(
                f'--set {override}: the task "{task}" makes no run, so "{field}" changes nothing; expected '
                f"{', '.join(EVERYWHERE[:-1])} or {EVERYWHERE[-1]}, such as referees.0.config.model"
            )
