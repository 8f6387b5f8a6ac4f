"""The study of docs/results/smoothness.md: is CLIP's loss on views smoother and better conditioned (Prop. 3.1 and 3.2)?

    python studies/smoothness.py              # tables and figure from the committed studies/rows/smoothness.json
    python studies/smoothness.py --measure    # first measures what that file lacks, prompt by prompt

Smoothness is measured at the image, on a run of the playground preset with CLIP as its only referee.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from page import DOCS, ROWS, fill

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import override
from refcore.diagnostics.smoothness import measure_smoothness, rows
from refcore.runs import rundir
from refcore_bench.checkpoint_hashes import hashes

RESULT, PAGE, FIGURE = ROWS / "smoothness.json", DOCS / "results/smoothness.md", DOCS / "images/smoothness.png"
PROMPTS = ("a red circle", "two blue squares", "a green star above a pink heart")
STEPS = (0, 15)
VIEWS = (0, 1, 4, 16)
NOISE = (0.0, 0.1, 0.3)
NOISY_VIEWS = 4
ACCURACY = {"directions": 4, "radius": 0.01, "tolerance": 0.05, "dtype": "float32"}
RUN = (
    "referees=[{name: clip, config: {model: 'playground:clip'}}]",
    "init={steps: 25, guidance: 3.0}",
    "candidates={count: 8, keep: [[1, 2], [12, 1]], recent: 0}",
    "views.main.count=3",
    "optimizer={name: adam, lr: 0.03, schedule: cosine, final: 0.1, warmup: 5}",
    "steps=30",
)
"""Overrides that make the preset the measured run: CLIP alone, and enough steps for a second point."""
COLUMNS = {
    "loss": "loss",
    "gradient_norm": "gradient's norm",
    "lipschitz_random": "Lipschitz, random",
    "lipschitz_step": "along the step",
    "smallest": "smallest eigenvalue",
    "largest": "largest",
    "condition": "condition",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the prompts missing from the result")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
    fill(PAGE, Path(__file__).name, parts())
    plot(json.loads(RESULT.read_text("utf-8")))
    print(f"wrote {PAGE.relative_to(DOCS.parent)} and {FIGURE.relative_to(DOCS.parent)}")


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    found = json.loads(RESULT.read_text("utf-8"))
    return {"views": table(by_views(found)), "noise": table(by_noise(found))}


def measure() -> None:
    """Measures the missing parts of the result and saves each as soon as it is done.

    Raises:
        SystemExit: the result was measured on other checkpoints.
    """
    found = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"points": []}
    settings = override(presets.get("playground").settings, RUN)
    checkpoints = hashes(settings)
    if found["points"] and found["checkpoints"] != checkpoints:
        raise SystemExit(f"{RESULT} was measured on other checkpoints and cannot be extended; remove it to start over")
    for prompt in PROMPTS:
        config = RunConfig.from_settings({**settings, "prompts": [prompt], "seeds": [0]})
        for views, noise in ((VIEWS, (None,)), ((NOISY_VIEWS,), NOISE)):
            if any(point["prompt"] == prompt and point["noise"] in noise for point in found["points"]):
                continue
            began = time.process_time()
            report = measure_smoothness(
                config, STEPS, views, noise, at="image", **ACCURACY, on_point=lambda p: print(p, flush=True)
            )
            found["points"] += [point.to_dict() for point in report.points]
            found |= {"at": "image", **ACCURACY, "config": report.config, "checkpoints": checkpoints}
            found["versions"] = rundir.versions()
            found["cpu_seconds"] = round(found.get("cpu_seconds", 0) + time.process_time() - began)
            rundir.write_text(RESULT, rundir.to_json(found, indent=1) + "\n")


def by_views(found: dict[str, Any]) -> list[dict[str, Any]]:
    return rows(point for point in found["points"] if point["noise"] is None)


def by_noise(found: dict[str, Any]) -> list[dict[str, Any]]:
    return rows(point for point in found["points"] if point["noise"] is not None)


def table(part: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [
        "| steps done | views | noise | " + " | ".join(COLUMNS.values()) + " |",
        "| ---: " * (3 + len(COLUMNS)) + "|",
    ]
    for row in sorted(part, key=lambda row: (row["step"], row["views"], row["noise"] or 0.0)):
        views = "clean" if row["views"] == 0 else str(row["views"])
        noise = "-" if row["views"] == 0 else "0 to 0.05" if row["noise"] is None else f"{row['noise']:g}"
        cells = ["-" if row[name] is None else f"{row[name]:.3g}" for name in COLUMNS]
        lines.append(f"| {row['step']} | {views} | {noise} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    shown = (
        ("lipschitz_step", "Lipschitz constant along the step"),
        ("largest", "largest eigenvalue"),
        ("condition", "condition: largest over rms eigenvalue"),
    )
    for axis, (name, title) in zip(axes, shown, strict=True):
        for step, colour in zip(STEPS, ("#0072b2", "#d55e00"), strict=True):
            for row in (row for row in found["points"] if row["noise"] is None and row["step"] == step):
                if row[name] is not None:
                    axis.plot(VIEWS.index(row["views"]), row[name], ".", color=colour, alpha=0.5)
            own = sorted((row for row in by_views(found) if row["step"] == step), key=lambda row: row["views"])
            heights = [float("nan") if row[name] is None else row[name] for row in own]
            axis.plot(range(len(own)), heights, "-", color=colour, label=f"{step} steps done")
        axis.set_xticks(range(len(VIEWS)), ["clean", *map(str, VIEWS[1:])])
        axis.set_xlabel("views")
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(FIGURE, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
