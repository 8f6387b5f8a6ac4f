"""Several witnesses of finished pictures, each beside its accuracy on photographs, none that a variant optimises.

One witness of the referees' own family says little: it is fooled by what fools them. Those here may be of other
families and tasks. A witness that has no class for a prompt, a detector asked for a volcano, is not asked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
import yaml
from torch import Tensor

from refcore import images, registry
from refcore.config.terms import Witness
from refcore.config.yaml_text import read_yaml
from refcore.contracts.referee import Referee
from refcore.engine.views import coarsen, resize
from refcore.errors import CheckpointError, RefcoreError
from refcore.explain import validated
from refcore.text_files import parse_json, read_text
from refcore_bench.photographs import Photograph, photographs
from refcore_bench.scoring import Classifier, pixels
from refcore_bench.statistics.intervals import Estimate, mean, rate
from refcore_bench.storing.results import KEY, Results
from refcore_bench.table import Table, number, share
from refcore_bench.task import Progress
from refcore_bench.variants import Variant

SHIPPED: Final = Path(__file__).parent / "tasks" / "natural-witnesses.yaml"
FILE: Final = "witnesses.json"
"""File of the results: the witnesses, their accuracy on photographs, and a rank for every picture."""
NONE: Final = "-"


def entries(extra: Path | None = None) -> list[dict[str, Any]]:
    """Witness terms with distinct labels, those of a YAML list after the shipped ones.

    Raises:
        RefcoreError: the file is no list of witnesses, or two have one label.
    """
    found: list[dict[str, Any]] = []
    for path in (SHIPPED, *([extra] if extra else [])):
        try:
            listed = read_yaml(read_text(path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RefcoreError(f"--witnesses {path} cannot be read: {error}") from error
        if not isinstance(listed, list) or not all(isinstance(one, dict) and one.get("label") for one in listed):
            raise RefcoreError(f"--witnesses {path}: expected a list of witnesses, each with name and label")
        for one in listed:
            kin = str(one.pop("kin", ""))
            term = validated(Witness, one).model_dump(mode="json")
            found.append({**term, "kin": kin})
    labels = [one["label"] for one in found]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise RefcoreError(f'--witnesses: two witnesses have the label "{min(twice)}"')
    return found


def networks(settings: Any) -> set[str]:
    """What identifies the networks in settings, at any depth: package weights, models and files by their content."""
    found: set[str] = set()
    if isinstance(settings, dict):
        for field, value in settings.items():
            if field in ("weights", "model", "file") and isinstance(value, str):
                path = Path(expanduser(value))
                found.add(_content(path) if field == "file" and path.is_file() else value)
            found |= networks(value)
    elif isinstance(settings, list):
        for value in settings:
            found |= networks(value)
    return found


def _content(path: Path) -> str:
    """Hash of a file's bytes alone, whatever its name."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def optimises(variant: Variant, entry: Mapping[str, Any]) -> bool:
    """Whether a variant's referees, priors or choice have the witness's network."""
    made_with = {key: variant.settings.get(key) for key in ("referees", "priors", "canvas")}
    chosen_by = [scorer.term for scorer in variant.optimised]
    return bool(networks(entry["config"]) & (networks(made_with) | networks(chosen_by)))


def measure(results: Results, extra: Path | None = None, progress: Progress = lambda line: None) -> None:
    """Asks every witness about every picture of a results folder that it has not seen, and writes `witnesses.json`.

    A witness whose packages or files are missing is left out, which `progress` is told.

    Raises:
        RefcoreError: `extra` is no list of witnesses; the folder holds no pictures.
    """
    kept = read(results)
    rows = results.rows(images=True).to_dicts()
    shown = photographs()
    for entry in entries(extra):
        label = entry["label"]
        before = kept.get(label, {})
        if before.get("entry") != entry:
            before = {}
        seen = {tuple(one["image"]) for one in before.get("ranks", [])}
        missing = [row for row in rows if _key(row) not in seen]
        if before and not missing:
            continue
        try:
            referee = loaded(entry)
        except CheckpointError as error:
            progress(f"witness {label} is left out: {error}")
            continue
        side = min(entry["coarse"] or 10**6, *_sides(rows))
        ranks = list(before.get("ranks", []))
        for row in missing:
            picture = pixels([np.array(images.picture(row["image"]))])
            ranks.append({"image": list(_key(row)), **answer(referee, picture, row["prompt"], entry["coarse"])})
        kept[label] = {
            "entry": entry,
            "side": side,
            "photographs": before.get("photographs") or _on_photographs(referee, shown, side),
            "ranks": ranks,
        }
        progress(f"witness {label}: {len(missing)} pictures")
    results.storage.write(FILE, (json.dumps(kept, indent=1) + "\n").encode())


def read(results: Results) -> dict[str, Any]:
    """Label of each witness -> its `entry`, `side` in pixels, answers on `photographs`, and `ranks` of pictures."""
    storage = results.storage
    return cast(dict[str, Any], parse_json(storage.read_text(FILE))) if storage.exists(FILE) else {}


def tables(results: Results, against: str | None = None) -> list[Table]:
    """What each witness says of each variant, and each variant's paired difference to the one called `against`.

    By default against the task's preset, or the first variant. No tables where no witness was asked.
    """
    kept = read(results)
    if not kept:
        return []
    variants = results.variants()
    if against is None:
        against = results.task.name if results.task.name in variants else next(iter(variants))
    ranks = {
        label: {tuple(one["image"]): one for one in found["ranks"] if one["rank"] is not None}
        for label, found in kept.items()
    }
    levels, differences = [], []
    for name, variant in variants.items():
        for label, found in kept.items():
            own = {key[1:]: one for key, one in ranks[label].items() if key[0] == name}
            if optimises(variant, found["entry"]):
                levels.append([name, label, "it is optimised for", *[NONE] * 4])
                continue
            if not own:
                continue
            photos = [one["rank"] for one in found["photographs"] if one["rank"] is not None]
            levels.append(
                [
                    name,
                    label,
                    str(len(own)),
                    share(rate([one["rank"] == 1 for one in own.values()]).to_dict()),
                    number(mean([math.log10(one["rank"]) for one in own.values()]).to_dict()),
                    number(mean([one["score"] for one in own.values()]).to_dict()),
                    f"{sum(rank == 1 for rank in photos)} of {len(photos)} at {found['side']} px" if photos else NONE,
                ]
            )
            if name != against and not optimises(variants[against], found["entry"]):
                theirs = {key[1:]: one for key, one in ranks[label].items() if key[0] == against}
                differences.append([name, label, *_differences(own, theirs)])
    columns = ["variant", "witness", "pictures", "ranks first", "mean log10 rank", "its p", "photographs ranked first"]
    note = (
        "Only pictures whose class the witness has. Beside it, how many photographs it ranks first at the size at "
        "which it sees the pictures. "
        + " ".join(f"{label}: {found['entry']['kin']}." for label, found in kept.items() if found["entry"]["kin"])
    )
    made = [Table("Witnesses", columns, levels, note)]
    if differences:
        made.append(
            Table(
                f"Witnesses, each variant minus {against}",
                ["variant", "witness", "pairs", "log10 rank (lower is better)", "its p"],
                differences,
                "Paired by class and seed, the seeds of a class averaged; 95 % intervals. Only witnesses that neither "
                "of the two optimises for.",
            )
        )
    return made


def _differences(own: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> list[str]:
    pairs = [(key, own[key], theirs[key]) for key in own if key in theirs]
    by_class: dict[Any, list[tuple[float, float]]] = {}
    for key, ours, other in pairs:
        moved = math.log10(ours["rank"]) - math.log10(other["rank"]), ours["score"] - other["score"]
        by_class.setdefault(key[:-1], []).append(moved)
    averaged = [np.mean(moves, axis=0) for moves in by_class.values()]

    def estimate(column: int) -> Estimate:
        return mean([float(moves[column]) for moves in averaged])

    return [str(len(pairs)), number(estimate(0).to_dict(), "+"), number(estimate(1).to_dict(), "+")]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in KEY)


def _sides(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    return [max(images.picture(row["image"]).size) for row in rows[:1]] or [1]


def loaded(entry: Mapping[str, Any]) -> Referee:
    """The referee of a witness term, on the CPU in float32.

    Raises:
        CheckpointError: its package or file is missing.
        RefcoreError: it ranks no class.
    """
    referee = cast(Referee, registry.get("referees", entry["name"])(**entry["config"]))
    referee.check()
    referee.load(torch.device("cpu"), torch.float32)
    if not isinstance(referee, Classifier):
        raise RefcoreError(f'--witnesses: "{entry["label"]}" is no classifier, so it ranks no class')
    return referee


def answer(referee: Referee, image: Tensor, prompt: str, coarse: int | None) -> dict[str, Any]:
    """Rank, p and first guess for one image [1, 3, H, W]; rank None where the witness has no class for the prompt."""
    try:
        conditioning = referee.read([prompt])
    except RefcoreError:
        return {"rank": None, "score": None, "first": None}
    whole = image if coarse is None else coarsen(image, coarse)
    seen = resize(whole, referee.input_size) if referee.fit is None else referee.fit(whole)
    classifier = cast(Classifier, referee)
    return {
        "rank": int(classifier.rank(seen, conditioning)),
        "score": round(float(referee.score(seen, conditioning)), 5),
        "first": classifier.guess(seen)[0],
    }


def _on_photographs(referee: Referee, shown: Sequence[Photograph], side: int) -> list[dict[str, Any]]:
    return [{"photograph": one.name, **answer(referee, one.square(), one.prompt, side)} for one in shown]
