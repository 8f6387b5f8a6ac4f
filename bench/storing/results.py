"""The folder of a benchmark: definitions, prompts, thresholds, and a row per image in Parquet, batch by batch.

A batch is a file, a part, written by whoever made it. `results.parquet` has the rows of all parts without pictures;
`parts/gathered.json` says which parts those were, so that they are not read again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from refcore.errors import ConfigError, RefcoreError
from refcore.explain import validated
from refcore.images import png
from refcore.text_files import parse_json
from refcore_bench import tasks
from refcore_bench.evaluations import KINDS
from refcore_bench.extras import need
from refcore_bench.scorers import identity
from refcore_bench.storing.storage import Folder, Stamp, open_storage
from refcore_bench.storing.stored import BUDGETS, GATHERED, PROMPTS, STORED, THRESHOLDS, StoredVariant
from refcore_bench.task import Accepts, Task, TaskPrompt
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.thresholds import Threshold
from refcore_bench.variants import Variant

if TYPE_CHECKING:
    import polars

    from refcore_bench.making import Made

RESULTS = "results.parquet"
PARTS = "parts/*/*.parquet"
MOST_PARTS = 20_000
"""Number of parts above which they are joined: each is opened, or asked of a server, by whoever reads pictures."""
SHARD_BYTES = 128 * 2**20
"""Size of a joined part; so much is held in memory to join it."""
KEY: Final = ["variant", "split", "category", "prompt", "seed"]
"""The columns that identify an image; images of two variants that agree in all others are a pair."""


def schema() -> dict[str, Any]:
    """Column -> type, the picture's column included."""
    pl = need("polars")
    return {
        "variant": pl.String,
        "prompt": pl.String,
        "category": pl.String,
        "split": pl.String,
        "seed": pl.Int64,
        "verdict": pl.Boolean,
        "facts_asked": pl.Int64,
        "facts_found": pl.Int64,
        "facts": pl.List(pl.Struct({"asked": pl.String, "found": pl.String, "ok": pl.Boolean})),
        "scores": pl.List(
            pl.Struct(
                {
                    "referee": pl.String,
                    "score": pl.Float64,
                    "optimised": pl.Boolean,
                    "panel": pl.Boolean,
                    "identity": pl.String,
                    "rank": pl.Int64,
                    "first": pl.String,
                }
            )
        ),
        "steps": pl.Int64,
        "seconds": pl.Float64,
        "load_seconds": pl.Float64,
        "threads": pl.Int64,
        "model_evaluations": pl.Float64,
        "evaluations": pl.Struct(dict.fromkeys(KINDS, pl.Float64)),
        "config_hash": pl.String,
        "image": pl.Binary,
    }


def _natural_key(name: str) -> list[str | int]:
    """Sort key of a name: its text and numbers in turn."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class Results:
    """A folder of results, by path or URL.

    Each file is written whole or not at all, so a killed run loses only its last batches.

    Example:
        >>> Results("s3://bucket/first").rows()                             # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        """
        Raises:
            RefcoreError: a URL of an unknown protocol, or one whose package is not installed.
        """
        self.storage = open_storage(path)

    @property
    def path(self) -> Path:
        """The folder on this machine.

        Raises:
            RefcoreError: it is not on this machine.
        """
        if not isinstance(self.storage, Folder):
            raise RefcoreError(f'"{self.storage}" is not a folder of this machine; copy it to one first')
        return self.storage.path

    @property
    def place(self) -> str:
        """The path or URL by which any process on this machine, or any machine, finds the folder."""
        return str(self.path.absolute()) if isinstance(self.storage, Folder) else self.storage.place

    @classmethod
    def existing(cls, path: str | Path) -> Results:
        """The results in a folder.

        Raises:
            RefcoreError: the folder has none.
        """
        results = cls(path)
        if not results.storage.exists(RESULTS) and not results._parts():
            raise RefcoreError(
                f'"{path}" holds no results; make some with `refcore bench playground --out {path}`, `refcore bench '
                "natural` or `refcore bench prompts`"
            )
        return results

    def claim(
        self, variants: Sequence[Variant], source: int | str, prompts: Sequence[TaskPrompt], task: Task = PLAYGROUND
    ) -> None:
        """Takes the folder for these variants and prompts, or continues an earlier run of them.

        Raises:
            RefcoreError: the folder holds another variant of the same name, prompts of another task, source or grammar,
                other witnesses, or variants that ran on other weights.
        """
        self._claim_prompts(task, source, prompts, [variant.name for variant in variants])
        known = self.variants()
        for variant in variants:
            self._check_checkpoints(variant, known)
            before = known.setdefault(variant.name, variant)
            if before is variant:
                self._write_json(f"variants/{variant.name}.json", {**variant.to_dict(), "hash": variant.hash})
            elif before.hash != variant.hash:
                raise RefcoreError(
                    f'"{self.storage}" holds results of another variant "{variant.name}": '
                    f"{variant.difference(before)}; give the new one another name (--variant NAME={variant.name}), or "
                    "choose another --out"
                )

    def variants(self) -> dict[str, Variant]:
        """Name -> definition: the task's named variants in its order, then the others by name; or all as given.

        Numbers in names are compared as numbers: `views-4` comes before `views-16`.
        """
        found = {}
        for file in self.storage.listed("variants/*.json"):
            definition = self._read_json(file)
            definition.pop("hash")
            found[definition["name"]] = Variant.from_dict(definition)
        task, told = self.task, self._read_json(PROMPTS)
        order = told.get("variants", []) if task.in_given_order else task.names()
        places = {name: order.index(name) if name in order else len(order) for name in found}
        return {name: found[name] for name in sorted(found, key=lambda name: (places[name], _natural_key(name)))}

    @property
    def task(self) -> Task:
        """The task whose results these are."""
        return tasks.get(self._read_json(PROMPTS).get("task", PLAYGROUND.name))

    @property
    def source(self) -> int | str | None:
        """Source of the prompts: the seed that drew them, or the name of a list; None before the first run."""
        source: int | str | None = self._read_json(PROMPTS).get("source")
        return source

    def prompts(self) -> list[dict[str, Any]]:
        """`{"prompt", "category", "split"}`, and `"facts"` if there are any, of every prompt so far."""
        prompts: list[dict[str, Any]] = self._read_json(PROMPTS).get("prompts", [])
        return prompts

    def panel(self) -> dict[str, str]:
        """Label -> identity of each witness that scores every image, where the folder was made for a panel."""
        return {entry["label"]: entry["identity"] for entry in self._read_json(PROMPTS).get("panel", [])}

    def thresholds(self) -> dict[str, Threshold]:
        """Referee's identity -> its threshold."""
        return {identity: Threshold(**row) for identity, row in self._read_json(THRESHOLDS).items()}

    def accepts(self) -> Accepts:
        """The rule by which a referee accepts an image, by the thresholds measured so far."""
        return self.task.accepts(self.thresholds())

    def add_thresholds(self, found: dict[str, Threshold]) -> None:
        rows = {**self.thresholds(), **found}
        self._write_json(THRESHOLDS, {identity: row.to_dict() for identity, row in rows.items()})

    def budgets(self) -> dict[str, float]:
        """Hash of a variant that chooses among samples -> its budget, in model evaluations per image."""
        budgets: dict[str, float] = self._read_json(BUDGETS)
        return budgets

    def add_budget(self, variant: Variant, budget: float) -> None:
        self._write_json(BUDGETS, {**self.budgets(), variant.hash: budget})

    def add(
        self,
        variant: Variant,
        prompts: Sequence[TaskPrompt],
        seed: int,
        made: Made,
        threads: int,
        task: str | None = None,
    ) -> None:
        """Judges one batch and writes it as one file; `task` is the name of the folder's, where that is known."""
        judging, rows = self.task if task is None else tasks.get(task), []
        for i, (one, levels) in enumerate(zip(prompts, made.levels, strict=True)):
            scores = [
                {
                    "referee": scorer.label,
                    "score": made.scores[scorer.label][i],
                    "optimised": scorer.optimised,
                    "panel": scorer.panel,
                    "identity": scorer.identity,
                    **(made.ranks[scorer.label][i]._asdict() if scorer.label in made.ranks else {}),
                }
                for scorer in variant.scorers
            ]
            verdict = judging.judge(levels, one.prompt, scores)
            facts = verdict.facts if verdict is not None else []
            rows.append(
                {
                    "variant": variant.name,
                    "prompt": one.prompt,
                    "category": one.category,
                    "split": one.split,
                    "seed": seed,
                    "verdict": verdict.verdict if verdict is not None else None,
                    "facts_asked": len(facts),
                    "facts_found": sum(fact.ok for fact in facts),
                    "facts": [fact.to_dict() for fact in facts],
                    "scores": scores,
                    "steps": made.steps,
                    "seconds": made.seconds,
                    "load_seconds": made.load_seconds,
                    "threads": threads,
                    "model_evaluations": sum(made.evaluations.values()),
                    "evaluations": made.evaluations,
                    "config_hash": variant.hash,
                    "image": png(levels),
                }
            )
        name = f"parts/{variant.name}/{part_name(prompts, seed)}.parquet"
        self._write_frame(name, need("polars").DataFrame(rows, schema=schema()))

    def drop(self, variant: Variant) -> None:
        """Removes the parts and the definition of a variant that is not wanted any more."""
        own = [*self.storage.listed(f"parts/{variant.name}/*.parquet"), f"variants/{variant.name}.json"]
        self.storage.remove(own)

    def rows(self, images: bool = False) -> polars.DataFrame:
        """Every row once, in the order of variants, seeds and prompts; `images` adds the column of PNG files.

        Rows are those of the parts (which hold the pictures) and those of `results.parquet` that no part has, as in a
        folder whose pictures were not kept. With `images` they are those of the parts alone.

        Raises:
            RefcoreError: `images` of a folder without parts; a broken file.
        """
        if images and not self.has_pictures:
            raise RefcoreError(f'"{self.storage}" holds no pictures, only rows: its folder "parts" is missing')
        columns = [column for column in schema() if images or column != "image"]
        return self._ordered(self._read([*self._parts()], columns) if images else self._all(columns))

    def pictures(self, variant: str, most: int) -> polars.DataFrame:
        """Rows of a variant with their pictures, in the order of seeds and prompts; of more than `most`, some of them.

        No more parts are read than that takes.
        """
        frames: list[polars.DataFrame] = []
        for name in self.storage.listed(f"parts/{variant}/*.parquet"):
            frames.append(self._read([name], [*schema()]))
            if sum(map(len, frames)) >= most:
                break
        return self._ordered(need("polars").concat(frames, how="vertical_relaxed"))[:most]

    def _ordered(self, frame: polars.DataFrame) -> polars.DataFrame:
        """Each row once, in the order of variants, seeds and prompts."""
        variants = {name: i for i, name in enumerate(self.variants())}
        prompts = {(row["split"], row["category"], row["prompt"]): i for i, row in enumerate(self.prompts())}
        places = [
            (variants.get(variant, len(variants)), seed, prompts.get((split, category, prompt), len(prompts)))
            for variant, split, category, prompt, seed in frame.select(KEY).iter_rows()
        ]
        order = sorted(range(len(places)), key=places.__getitem__)
        return frame[order].unique(KEY, keep="first", maintain_order=True)

    def keys(self) -> dict[str, list[tuple[Any, ...]]]:
        """File of pictures -> the columns `KEY` of its rows; a row that two files have is that of the first."""
        seen: set[tuple[Any, ...]] = set()
        found: dict[str, list[tuple[Any, ...]]] = {}
        for file in self._parts():
            own = [key for key in self._read([file], KEY).iter_rows() if key not in seen]
            seen.update(own)
            found[file] = own
        return found

    def pictures_in(self, name: str) -> dict[tuple[Any, ...], bytes]:
        """Columns `KEY` -> PNG, of a file of pictures that `keys` names."""
        frame = self._read([name], [*KEY, "image"])
        return {tuple(key): png for *key, png in frame.iter_rows()}

    def rows_of(self, variant: Variant) -> polars.DataFrame:
        """The rows of one variant whose pictures are kept, without them, in no order; nothing else is read."""
        columns = [column for column in schema() if column != "image"]
        parts = [*self.storage.listed(f"parts/{variant.name}/*.parquet")]
        return self._read(parts, columns) if parts else need("polars").DataFrame(schema=schema()).select(columns)

    @property
    def has_pictures(self) -> bool:
        return bool(self._parts())

    def done(self) -> dict[str, set[tuple[str, str, str, int]]]:
        """Variant's name -> (split, category, prompt, seed) of each image that it has, its picture kept or not."""
        found: dict[str, set[tuple[str, str, str, int]]] = {}
        for variant, *image in self._all(KEY).iter_rows():
            found.setdefault(variant, set()).add(tuple(image))
        return found

    def _all(self, columns: list[str]) -> polars.DataFrame:
        """All rows: of the parts that were written since the last gathering, then of `results.parquet`.

        The first of several rows of an image counts, so a part that was gathered and written again is read again.
        """
        gathered = self.storage.listed(RESULTS)
        known: dict[str, Stamp] = self._read_json(GATHERED) if gathered else {}
        if known.get(RESULTS) != gathered.get(RESULTS):  # another one has taken its place
            known = {}
        fresh = [name for name, stamp in self._parts().items() if known.get(name) != stamp]
        files = [*fresh, *([RESULTS] if gathered else [])]
        return self._read(files, columns) if files else need("polars").DataFrame(schema=schema()).select(columns)

    def _read(self, files: Sequence[str], columns: list[str]) -> polars.DataFrame:
        pl = need("polars")
        storage = self.storage
        if isinstance(storage, Folder):
            sources: Iterable[Any] = (storage.path / file for file in files)
        else:
            sources = map(io.BytesIO, storage.read_all(files))
        try:
            # Relaxed: older files lack ranks, and kinds of evaluation that were added later.
            frames = [pl.read_parquet(source, columns=columns) for source in sources]
            frame: polars.DataFrame = pl.concat(frames, how="vertical_relaxed")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RefcoreError(f'the results in "{storage}" cannot be read: {error}') from error
        return frame

    def gather(self) -> None:
        """Writes all rows, without pictures, to `results.parquet`; joins the parts where there are very many."""
        if len(self._parts()) > MOST_PARTS:
            self.compact()
        parts = self._parts()  # listed before they are read: what is written meanwhile is fresh the next time
        self._write_frame(RESULTS, self.rows())
        if parts:
            self._write_json(GATHERED, {**self.storage.listed(RESULTS), **parts}, indent=None)

    def compact(self, size: int = SHARD_BYTES) -> None:
        """Joins the parts of each variant to shards of about `size` bytes, while nobody writes any.

        A shard is written before its parts are removed: after a kill in between, rows are there twice, and count once.
        """
        by_variant: dict[str, list[str]] = {}
        stamps = self._parts()
        for name in stamps:
            by_variant.setdefault(name.split("/")[1], []).append(name)
        for variant, names in by_variant.items():
            for shard in _shards(names, [stamps[name][0] for name in names], size):
                digest = hashlib.sha256("\n".join(shard).encode()).hexdigest()[:16]
                self._write_frame(f"parts/{variant}/shard-{digest}.parquet", self._read(shard, [*schema()]))
                self.storage.remove(shard)

    def _claim_prompts(
        self, task: Task, source: int | str, prompts: Sequence[TaskPrompt], names: Sequence[str]
    ) -> None:
        before = self.prompts()
        if self.source is not None and self.task.name != task.name:
            raise RefcoreError(
                f'"{self.storage}" holds results of `refcore bench {self.task.name}`, which cannot be compared with '
                f"those of `refcore bench {task.name}`; choose another --out"
            )
        if self.source not in (None, source):
            raise RefcoreError(
                f'"{self.storage}" holds results on {task.wording.source.format(self.source)}, and these are '
                f"{task.wording.source.format(source)}; sets never share a folder: choose another --out"
            )
        drawn = [one.to_dict() for one in prompts]
        if (other := task.clash(drawn, before)) is not None:
            raise RefcoreError(
                f'"{self.storage}" holds results on other {task.wording.source.format(source)} (such as "{other}"), '
                "which the grammar no longer draws; choose another --out"
            )
        known = {json.dumps(row, sort_keys=True) for row in before}
        fresh = [row for row in drawn if json.dumps(row, sort_keys=True) not in known]
        kept: dict[str, Any] = {"task": task.name, "source": source, "prompts": [*before, *fresh]}
        if task.in_given_order:
            kept["variants"] = list(dict.fromkeys([*self.variants(), *names])) if before else list(names)
        if task.wording.judge is None:
            kept["panel"] = self._claimed_panel(task)
        self._write_json(PROMPTS, kept)

    def _claimed_panel(self, task: Task) -> list[dict[str, Any]]:
        """The task's panel with identities; it is that of the folder, or the images could not be compared."""
        panel = [{**term, "identity": identity(term)} for term in task.panel()]
        ours, theirs = {term["label"]: term["identity"] for term in panel}, self.panel()
        if theirs and set(ours.values()) != set(theirs.values()):
            same = ", with other settings or weights" if set(ours) == set(theirs) else ""
            raise RefcoreError(
                f'"{self.storage}" holds scores by the panel {", ".join(theirs)}, and this one is {", ".join(ours)}'
                f"{same}; choose another --out, or the same --panel"
            )
        return self._read_json(PROMPTS)["panel"] if theirs else panel

    def _check_checkpoints(self, variant: Variant, known: Mapping[str, Variant]) -> None:
        """Refuses a variant on other weights: variants are compared on the same frozen checkpoints."""
        for other in known.values():
            for model, digest in variant.checkpoints.items():
                if other.name != variant.name and other.checkpoints.get(model, digest) != digest:
                    raise RefcoreError(
                        f'"{self.storage}" holds results of variant "{other.name}" on other weights of "{model}" '
                        f"({other.checkpoints[model]}, now {digest}), which cannot be compared; choose another --out"
                    )

    def _parts(self) -> dict[str, Stamp]:
        return self.storage.listed(PARTS)

    def _read_json(self, name: str) -> Any:
        if not self.storage.exists(name):
            return {}
        try:
            found = parse_json(self.storage.read_text(name))
            validated(STORED.get(name, StoredVariant), found)
        except (OSError, ValueError, ConfigError) as error:
            raise RefcoreError(
                f'"{self.storage}/{name}" is broken ({error}); restore the file, or remove the folder'
            ) from error
        return found

    def _write_json(self, name: str, value: Any, indent: int | None = 2) -> None:
        self.storage.write(name, (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode())

    def _write_frame(self, name: str, frame: polars.DataFrame) -> None:
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self.storage.write(name, buffer.getvalue())


def _shards(names: Sequence[str], sizes: Sequence[int], size: int) -> Iterator[list[str]]:
    """Names of files side by side that make up about `size` bytes each time; a file alone stays as it is."""
    shard: list[str] = []
    total = 0
    for name, own in zip(names, sizes, strict=True):
        if shard and total + own > size:
            if len(shard) > 1:
                yield shard
            shard, total = [], 0
        shard.append(name)
        total += own
    if len(shard) > 1:
        yield shard


def part_name(prompts: Sequence[TaskPrompt], seed: int) -> str:
    """Name of the part of a batch, the same for the same prompts and seed: a batch made again replaces its part."""
    keys = [seed, *[(one.category, one.prompt) for one in prompts]]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]
