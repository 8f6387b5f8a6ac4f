"""The card of a results folder: what was measured on what, by which versions and weights; Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from refcore import checkpoints
from refcore.config.yaml_text import write_yaml
from refcore.runs import rundir
from refcore_bench.published.measurements import GATHERED, Measurements
from refcore_bench.published.task import SMALL, PublishedTask
from refcore_bench.showing.summary import summarise
from refcore_bench.showing.tables import tables
from refcore_bench.storing.results import RESULTS, Results
from refcore_bench.table import Table, markdown

MARKDOWN, DATA = "README.md", "card.json"
LIBRARIES: Final = ("refcore", "torch", "transformers", "diffusers", "open_clip_torch")
SHIPPED: Final = "MIT, shipped with refcore"
ELSEWHERE: Final = "its publisher's; see the model's own card"


def write_card(results: Results) -> None:
    """Writes `README.md` and `card.json` into the folder, over those of an earlier card.

    Raises:
        RefcoreError: the results cannot be read.
    """
    summary = summarise(results)
    data = card(results, summary)
    results.storage.write(DATA, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())
    results.storage.write(MARKDOWN, _page(results, summary, data).encode())


def card(results: Results, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The card, ready for JSON."""
    task, metrics, variants = results.task, Measurements(results.place).metrics(), results.variants()
    models = {name: digest for variant in variants.values() for name, digest in variant.checkpoints.items()}
    models |= {name: digest for metric in metrics.values() for name, digest in metric.checkpoints.items()}
    named = {*models, *(model for variant in results.variants().values() for model in _models(variant.settings))}
    named |= {model for metric in metrics.values() for model in _models(metric.config)}
    return {
        "task": task.name,
        "title": task.wording.title,
        "prompts": {"set": summary["prompts"], "source": summary["source"], "number": len(results.prompts())},
        "meaningless": summary["source"] == SMALL,
        "seeds": sorted({seed for variant in summary["variants"] for seed in variant["seeds"]}),
        "variants": [
            {
                "name": variant["variant"],
                "images": variant["images"],
                "config_hash": variant["config_hash"],
                "method": variants[variant["variant"]].method if variant["variant"] in variants else None,
            }
            for variant in summary["variants"]
        ],
        "metrics": {label: metric.model_dump(mode="json") for label, metric in metrics.items()},
        "checkpoints": {name: models.get(name) for name in sorted(named)},
        "licences": {
            "prompts": task.licence if isinstance(task, PublishedTask) else "drawn by the project, or the user's own",
            "checkpoints": {
                name: SHIPPED if name.startswith(checkpoints.EMBEDDED) else ELSEWHERE for name in sorted(named)
            },
        },
        "versions": rundir.versions(LIBRARIES),
    }


def _models(settings: Any) -> set[str]:
    """The checkpoints in fields `model`, at any depth; local paths are left out, since they are of one machine."""
    found: set[str] = set()
    if isinstance(settings, Mapping):
        for field, value in settings.items():
            if field == "model" and isinstance(value, str) and (_is_embedded(value) or checkpoints.hub_id(value)):
                found.add(value)
            found |= _models(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            found |= _models(value)
    return found


def _is_embedded(model: str) -> bool:
    return model.startswith(checkpoints.EMBEDDED)


def _page(results: Results, summary: dict[str, Any], data: Mapping[str, Any]) -> str:
    files = [name for name in (RESULTS, GATHERED) if results.storage.exists(name)]
    head = {
        "pretty_name": data["title"],
        "tags": ["refcore", "text-to-image", data["task"]],
        "configs": [{"config_name": name.removesuffix(".parquet"), "data_files": name} for name in files],
    }
    facts = Table(
        "What was measured",
        ["", ""],
        [
            ["task", data["task"]],
            ["prompts", f"{data['prompts']['number']} ({data['prompts']['source']})"],
            ["seeds", ", ".join(map(str, data["seeds"]))],
            *([label, _described(metric)] for label, metric in data["metrics"].items()),
            *([name, version] for name, version in data["versions"].items()),
            ["licence of the prompts", data["licences"]["prompts"]],
        ],
    )
    weights = Table(
        "Checkpoints",
        ["model", "hash", "licence"],
        [[name, digest or "-", data["licences"]["checkpoints"][name]] for name, digest in data["checkpoints"].items()],
    )
    shown = [table for table in tables(summary) if table.title != weights.title]
    warning = "The checkpoints are small ones with random weights: the numbers mean nothing.\n\n"
    lead = f"# {data['title']}\n\n{warning if data['meaningless'] else ''}"
    rows = "Rows of images: `results.parquet`; of metrics: `measurements.parquet`; definitions: `variants/`.\n\n"
    return f"---\n{write_yaml(head)}---\n\n{lead}{rows}{markdown([*shown, facts, weights])}"


def _described(metric: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{field}={value}" for field, value in metric["config"].items() if value is not None)
    return f"{metric['name']}: {settings}" if settings else str(metric["name"])
