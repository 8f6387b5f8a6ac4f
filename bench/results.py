"""The folder of a benchmark: definitions, prompts, calibration, and one row an image in Parquet, batch by batch."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore_bench import task as worlds
from refcore_bench.evaluations import KINDS
from refcore_bench.extras import need
from refcore_bench.task import Accepts, Asked, World
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.thresholds import Threshold
from refcore_bench.variants import Variant

if TYPE_CHECKING:
    import polars

    from refcore_bench.making import Made

PROMPTS = "prompts.json"
CALIBRATION = "calibration.json"
BUDGETS = "budgets.json"
RESULTS = "results.parquet"
KEY = ["variant", "split", "category", "prompt", "seed"]
"""What tells images apart; images of two variants that agree in the rest are a pair."""


def schema() -> dict[str, Any]:
    """Column -> type of a row, the picture included."""
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


def _counted(name: str) -> list[str | int]:
    """A name as text and numbers in turn, to sort by."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class Results:
    """A folder. Every file in it is written whole or not at all, so that a killed run loses its last batches only."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def existing(cls, path: str | Path) -> Results:
        """A folder that holds results.

        Raises:
            RefcoreError: it does not.
        """
        results = cls(path)
        if not results._parts() and not (results.path / RESULTS).is_file():
            raise RefcoreError(
                f'"{path}" holds no results; `refcore bench playground --out {path}` makes some, and so does '
                "`refcore bench natural`"
            )
        return results

    def claim(
        self, variants: Sequence[Variant], source: int | str, asked: Sequence[Asked], world: World = PLAYGROUND
    ) -> None:
        """Takes the folder for these variants and prompts, or goes on where it has been taken for them before.

        Raises:
            RefcoreError: it holds another definition of a variant's name, prompts of another world, source or grammar,
                or variants that ran on other weights.
        """
        self._claim_prompts(world, source, asked)
        for variant in variants:
            self._check_checkpoints(variant)
            before = self.variants().get(variant.name)
            if before is None:
                self._write_json(f"variants/{variant.name}.json", {**variant.to_dict(), "hash": variant.hash})
            elif before.hash != variant.hash:
                raise RefcoreError(
                    f'"{self.path}" holds results of another variant "{variant.name}": {variant.difference(before)}; '
                    f"call the new one by another name (--variant NAME={variant.name}), or name another --out"
                )

    def variants(self) -> dict[str, Variant]:
        """Name -> definition: those that have a name of the world's own in its order, then the others by name.

        Numbers in names count as numbers: `views-4` comes before `views-16`.
        """
        found = {}
        for file in (self.path / "variants").glob("*.json"):
            definition = self._read_json(f"variants/{file.name}")
            definition.pop("hash")
            found[definition["name"]] = Variant.from_dict(definition)
        order = self.world.names()
        places = {name: order.index(name) if name in order else len(order) for name in found}
        return {name: found[name] for name in sorted(found, key=lambda name: (places[name], _counted(name)))}

    @property
    def world(self) -> World:
        """Whose question the folder answers."""
        return worlds.get(self._read_json(PROMPTS).get("world", PLAYGROUND.name))

    def prompts(self) -> dict[str, Any]:
        """`{"source": what they are from, "asked": [{"prompt", "category", "split"}, ...]}`, all asked for so far."""
        told = self._read_json(PROMPTS)
        # Until there was a second world, the source was called what it is in the first: a seed.
        return {"source": told.get("source", told.get("seed")), "asked": told.get("asked", [])}

    def calibration(self) -> dict[str, Threshold]:
        """Referee's identity -> its threshold."""
        return {identity: Threshold(**row) for identity, row in self._read_json(CALIBRATION).items()}

    def accepts(self) -> Accepts:
        """Who accepts what, as far as it has been calibrated."""
        return self.world.accepts(self.calibration())

    def add_calibration(self, found: dict[str, Threshold]) -> None:
        rows = {**self.calibration(), **found}
        self._write_json(CALIBRATION, {identity: row.to_dict() for identity, row in rows.items()})

    def budgets(self) -> dict[str, float]:
        """Hash of a variant that chooses -> model evaluations an image that it may spend."""
        return self._read_json(BUDGETS)

    def add_budget(self, variant: Variant, budget: float) -> None:
        self._write_json(BUDGETS, {**self.budgets(), variant.hash: budget})

    def add(self, variant: Variant, asked: Sequence[Asked], seed: int, made: Made, threads: int) -> None:
        """One batch: judged, and written as one file."""
        from refcore import images

        world, rows = self.world, []
        for i, (one, levels) in enumerate(zip(asked, made.levels, strict=True)):
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
            verdict = world.judge(levels, one.prompt, scores)
            rows.append(
                {
                    "variant": variant.name,
                    "prompt": one.prompt,
                    "category": one.category,
                    "split": one.split,
                    "seed": seed,
                    "verdict": verdict.verdict,
                    "facts_asked": len(verdict.facts),
                    "facts_found": sum(fact.ok for fact in verdict.facts),
                    "facts": [fact.to_dict() for fact in verdict.facts],
                    "scores": scores,
                    "steps": made.steps,
                    "seconds": made.seconds,
                    "load_seconds": made.load_seconds,
                    "threads": threads,
                    "model_evaluations": sum(made.evaluations.values()),
                    "evaluations": made.evaluations,
                    "config_hash": variant.hash,
                    "image": images.png(levels),
                }
            )
        name = hashlib.sha256(json.dumps([seed, *[one.prompt for one in asked]]).encode()).hexdigest()[:16]
        folder = self.path / "parts" / variant.name
        folder.mkdir(parents=True, exist_ok=True)
        self._write_frame(folder / f"{name}.parquet", need("polars").DataFrame(rows, schema=schema()))

    def rows(self, images: bool = False) -> polars.DataFrame:
        """Every row once, in the order of variants, seeds and prompts; `images` adds the column of PNG files.

        A folder without its parts (which hold the pictures) has the rows of its `results.parquet`.

        Raises:
            RefcoreError: pictures are asked for, and the parts are not there; a file that is broken.
        """
        pl = need("polars")
        parts = self._parts()
        if images and not parts:
            raise RefcoreError(f'"{self.path}" holds no pictures (its folder "parts" is missing), only their rows')
        columns = [column for column in schema() if images or column != "image"]
        try:
            files = parts or [self.path / RESULTS]
            # Relaxed: files from before a kind of evaluation, or ranks, have no field for it.
            frame = pl.concat([pl.read_parquet(file, columns=columns) for file in files], how="vertical_relaxed")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RefcoreError(f'the results in "{self.path}" cannot be read: {error}') from error
        variants = {name: i for i, name in enumerate(self.variants())}
        prompts = {(row["split"], row["prompt"]): i for i, row in enumerate(self.prompts()["asked"])}
        places = [
            (variants.get(variant, len(variants)), seed, prompts.get((split, prompt), len(prompts)))
            for variant, split, prompt, seed in frame.select("variant", "split", "prompt", "seed").iter_rows()
        ]
        order = sorted(range(len(places)), key=places.__getitem__)
        return frame[order].unique(KEY, keep="first", maintain_order=True)

    def done(self, variant: Variant) -> set[tuple[str, str, int]]:
        """(split, prompt, seed) of the images that a variant has."""
        files = [part for part in self._parts() if part.parent.name == variant.name]
        found: set[tuple[str, str, int]] = set()
        for file in files:
            found.update(need("polars").read_parquet(file, columns=["split", "prompt", "seed"]).rows())
        return found

    def gather(self) -> None:
        """Writes `results.parquet`: every row, without the pictures."""
        self._write_frame(self.path / RESULTS, self.rows())

    def _claim_prompts(self, world: World, source: int | str, asked: Sequence[Asked]) -> None:
        before = self.prompts()
        if before["source"] is not None and self.world is not world:
            raise RefcoreError(
                f'"{self.path}" holds results of `refcore bench {self.world.name}`, and those of `{world.name}` cannot '
                "be compared with them; name another --out"
            )
        if before["source"] not in (None, source):
            raise RefcoreError(
                f'"{self.path}" holds results on the {world.words.source.format(before["source"])}, and {source} was '
                f"asked for; tuning and reporting {world.words.prompts} never share a folder: name another --out"
            )
        drawn = [asdict(one) for one in asked]
        if (other := world.clash(drawn, before["asked"])) is not None:
            raise RefcoreError(
                f'"{self.path}" holds results on other {world.words.source.format(source)} ("{other}" and more): the '
                "grammar draws others now; name another --out"
            )
        fresh = [row for row in drawn if row not in before["asked"]]
        self._write_json(PROMPTS, {"world": world.name, "source": source, "asked": [*before["asked"], *fresh]})

    def _check_checkpoints(self, variant: Variant) -> None:
        """Variants are only compared on the same frozen weights."""
        for other in self.variants().values():
            for model, digest in variant.checkpoints.items():
                if other.name != variant.name and other.checkpoints.get(model, digest) != digest:
                    raise RefcoreError(
                        f'"{self.path}" holds results of variant "{other.name}" on other weights of "{model}" '
                        f"({other.checkpoints[model]}, now {digest}), with which nothing can be compared; "
                        "name another --out"
                    )

    def _parts(self) -> list[Path]:
        return sorted((self.path / "parts").glob("*/*.parquet"))

    def _read_json(self, name: str) -> Any:
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise RefcoreError(f'"{path}" is broken ({error}); remove the folder, or restore the file') from error

    def _write_json(self, name: str, value: Any) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rundir.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def _write_frame(self, path: Path, frame: polars.DataFrame) -> None:
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        rundir.write(path, buffer.getvalue())
