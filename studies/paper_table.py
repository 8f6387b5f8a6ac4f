"""The study of docs/guides/t2i-compbench.md: what the paper's table takes on one GPU, calculated, at true sizes.

    python studies/paper_table.py                       # the tables from the committed studies/rows/paper_table
    python studies/paper_table.py --count               # first counts operations, memory and downloads, without weights
    python studies/paper_table.py --pictures FILE ...   # first measures the bytes of photographs as results keep them

Nothing here has seen a GPU: hours are operations, divided by a share of the peak rate that a data sheet promises.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from page import DOCS, ROWS, fill
from PIL import Image

ROOT = ROWS / "paper_table"
SYSTEMS, METRICS, PICTURES = ROOT / "systems.json", ROOT / "metrics.json", ROOT / "pictures.json"
PAGE = DOCS / "guides/t2i-compbench.md"

PROMPTS, SEEDS = 300, 10
"""Of a category, and images a prompt."""
QUESTIONS: Mapping[str, Mapping[int, int]] = {
    "color": {1: 10, 2: 247, 3: 21, 4: 10, 5: 6, 6: 2, 7: 3, 8: 1},
    "shape": {1: 2, 2: 214, 3: 40, 4: 30, 5: 11, 6: 3},
    "texture": {1: 5, 2: 235, 3: 13, 4: 34, 5: 12, 6: 1},
    "complex": {1: 1, 2: 143, 3: 81, 4: 17, 5: 24, 6: 26, 7: 6, 8: 2},
}
"""Category -> noun phrases of a prompt -> prompts, by en_core_web_sm."""
MODELS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("color", "shape", "texture"), ("blip",)),
    "spatial": ("owlv2",),
    "3d_spatial": ("owlv2", "depth"),
    "numeracy": ("owlv2",),
    "non_spatial": ("clip",),
    "complex": ("blip", "owlv2", "clip"),
}
"""Category -> the models that its metric asks about an image."""


@dataclass(frozen=True)
class Gpu:
    """Peak rates without sparsity, in 1e12 operations a second, as NVIDIA's data sheets have them."""

    memory: int
    """GB."""
    float32: float
    tf32: float
    half: float
    """bfloat16 and float16, summed up in float32."""


GPUS: Mapping[str, Gpu] = {
    "RTX 4090, 24 GB": Gpu(24, 82.6, 82.6, 165.2),
    "A100 SXM, 80 GB": Gpu(80, 19.5, 156.0, 312.0),
    "H100 SXM, 80 GB": Gpu(80, 66.9, 494.7, 989.4),
}
UTILISATION = (0.4, 0.2)
"""Shares of the peak rate that are assumed: the fast and the slow end of every range."""
FREE = 0.1
"""Share of a GPU's memory that is left to kernels and the optimizer."""

BFLOAT16 = ("autocast=bfloat16", "canvas.autocast=bfloat16")
INVERSIONS: Mapping[str, tuple[str, ...]] = {
    "vlminv": ("vlminv",),
    "vlminv, bfloat16": ("vlminv", *BFLOAT16),
    "vlminv-itm": ("vlminv-itm",),
}
"""Row -> preset and changes of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count operations, memory and downloads, in three minutes")
    parser.add_argument("--pictures", nargs="+", type=Path, metavar="FILE", help="photographs whose bytes are measured")
    given = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    if given.count:
        _write(SYSTEMS, systems())
        _write(METRICS, metrics())
    if given.pictures:
        _write(PICTURES, [kept(path) for path in given.pictures])
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def systems() -> dict[str, dict[str, Any]]:
    """Row -> what an image takes."""
    import true_sizes

    found = {}
    for name, (preset, *changes) in INVERSIONS.items():
        half = bool(changes)
        how = {"side": 512, "steps": 160, "passes": 2, "dtype": "bfloat16" if half else "float32", "half": half}
        found[name] = {**how, **true_sizes.inversion(preset, *changes).to_dict()}
    for name, one in true_sizes.PIPELINES.items():
        how = {"side": one.side, "steps": one.steps, "passes": 1 + one.doubles, "dtype": one.dtype}
        found[name] = {**how, "half": one.dtype != "float32", **true_sizes.sampled(one).to_dict()}
    return found


def metrics() -> dict[str, dict[str, Any]]:
    """Model -> what it takes to ask it."""
    import true_sizes

    return {name: one.to_dict() for name, one in true_sizes.questions().items()}


def kept(path: Path) -> dict[str, Any]:
    """Bytes of the centre of a photograph, 512 pixels a side, as PNG and in the file that a results folder keeps."""
    from refcore import images
    from refcore_bench.published.made_elsewhere import take_in
    from refcore_bench.published.t2i_compbench import SPLIT, T2I_COMPBENCH
    from refcore_bench.task import TaskPrompt

    whole = Image.open(path).convert("RGB")
    short = min(whole.size)
    left, top = ((side - short) // 2 for side in whole.size)
    square = whole.crop((left, top, left + short, top + short)).resize((512, 512), Image.Resampling.BICUBIC)
    png = images.png(np.asarray(square))
    with TemporaryDirectory() as folder:
        (Path(folder) / "from").mkdir()
        (Path(folder) / "from" / "a photograph_000000.png").write_bytes(png)
        prompts = [TaskPrompt("a photograph", "color", SPLIT)]
        take_in(
            Path(folder) / "to", Path(folder) / "from", None, "photographs", T2I_COMPBENCH, prompts, lambda line: None
        )
        files = sum(one.stat().st_size for one in (Path(folder) / "to" / "parts").rglob("*.parquet"))
    return {"name": path.name, "side": short, "png": len(png), "parquet": files}


def _write(path: Path, found: Any) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def seconds(one: Mapping[str, Any], gpu: Gpu, share: float) -> float:
    """Of an image, at a share of the peak rate.

    In float32 matrix products run in float32 and convolutions in TF32, which torch allows cuDNN by default.
    """
    convolutions, products = (gpu.half, gpu.half) if one["half"] else (gpu.tf32, gpu.float32)
    return (one["convolutions"] / convolutions + one["products"] / products) / (1e12 * share)


def fits(one: Mapping[str, Any], gpu: Gpu) -> bool:
    """Whether a GPU has the memory, as far as it is counted."""
    return (one["memory"] or 0) <= (1 - FREE) * gpu.memory * 1e9


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    return {
        "systems": systems_table(),
        "seconds": times_table("seconds an image", lambda s: (s,)),
        "hours": times_table("hours for 24,000 / 4,000 images", lambda s: (images() * s / 3600, images(50) * s / 3600)),
        "metrics": metrics_table(),
        "measuring": measuring_table(),
        "disk": disk(),
    }


def images(prompts: int = PROMPTS) -> int:
    """Of so many prompts of each category."""
    return len(MODELS) * prompts * SEEDS


def systems_table() -> str:
    """A row for each system: how it makes an image, and what that takes."""
    lines = [
        "| system | px | steps | computes in | 10^12 operations an image | memory | download |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in _read(SYSTEMS).items():
        steps = f"{one['steps']}" + (" x 2" if one["passes"] == 2 and not name.startswith("vlminv") else "")
        memory = "not counted" if one["memory"] is None else f"{one['memory'] / 1e9:.1f} GB"
        lines.append(
            f"| `{name}` | {one['side']} | {steps} | {one['dtype']} | {_total(one) / 1e12:,.0f} | {memory} "
            f"| {one['download'] / 1e9:.1f} GB |"
        )
    return "\n".join(lines)


def times_table(unit: str, of: Callable[[float], tuple[float, ...]]) -> str:
    """A row for each system and a column for each GPU: a range of times."""
    lines = [f"| {unit} | {' | '.join(GPUS)} |", "| --- " * (1 + len(GPUS)) + "|"]
    for name, one in _read(SYSTEMS).items():
        cells = []
        for gpu in GPUS.values():
            ends = zip(*(of(seconds(one, gpu, share)) for share in UTILISATION), strict=True)
            cells.append(" / ".join(_range(*pair) for pair in ends) if fits(one, gpu) else "too large")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(low: float, high: float) -> str:
    return f"{_short(low)} to {_short(high)}"


def _short(number: float) -> str:
    """Two digits, or whole numbers.

    >>> [_short(one) for one in (1234.5, 12.34, 1.234, 0.01234)]
    ['1,234', '12', '1.2', '0.01']
    """
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def _total(one: Mapping[str, Any]) -> int:
    return int(one["convolutions"] + one["products"])


def asked(category: str) -> float:
    """Mean number of questions about an image of a category."""
    counts = QUESTIONS[category]
    assert sum(counts.values()) == PROMPTS, category
    return sum(n * prompts for n, prompts in counts.items()) / PROMPTS


def measured(category: str) -> dict[str, Any]:
    """What measuring an image of a category takes, in float32."""
    found = {"convolutions": 0.0, "products": 0.0, "half": False}
    for name in MODELS[category]:
        one, more = _read(METRICS)[name], asked(category) if name == "blip" else 0
        for kind in ("convolutions", "products"):
            found[kind] += one[f"each_{kind}"] + more * one[f"more_{kind}"]
    return found


def metrics_table() -> str:
    """A row for each model that metrics ask."""
    used = {
        "blip": "`blip-vqa`, `3-in-1`",
        "clip": "`clip-score`, `3-in-1`",
        "owlv2": "`2d-owlv2`, `3d-owlv2`, `numeracy-owlv2`, `3-in-1`",
        "depth": "`3d-owlv2`",
    }
    lines = [
        "| model | metrics | 10^9 operations an image | and a question | weights and download | memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in _read(METRICS).items():
        more = (one["more_convolutions"] + one["more_products"]) / 1e9
        size = 4 * one["parameters"]
        lines.append(
            f"| `{one['model']}` | {used[name]} | {(one['each_convolutions'] + one['each_products']) / 1e9:,.0f} "
            f"| {f'{more:,.0f}' if more else '-'} | {size / 1e9:.2f} GB | {(size + one['peak']) / 1e9:.1f} GB |"
        )
    return "\n".join(lines)


def measuring_table() -> str:
    """A row for each category, and their sum: questions, operations, and hours on each GPU."""
    lines = [
        f"| minutes | questions an image | 10^9 operations an image | {' | '.join(GPUS)} |",
        "| --- " * (3 + len(GPUS)) + "|",
    ]
    each = PROMPTS * SEEDS
    ends = {
        category: [
            tuple(each * seconds(measured(category), gpu, share) / 60 for share in UTILISATION) for gpu in GPUS.values()
        ]
        for category in MODELS
    }
    for category in MODELS:
        questions = f"{asked(category):.2f}" if category in QUESTIONS else "-"
        cells = " | ".join(_range(*pair) for pair in ends[category])
        lines.append(f"| `{category}` | {questions} | {_total(measured(category)) / 1e9:,.0f} | {cells} |")
    sums = [[sum(own[i][j] for own in ends.values()) for j in range(2)] for i in range(len(GPUS))]
    lines.append(f"| all {images():,} images | | | {' | '.join(_range(*pair) for pair in sums)} |")
    return "\n".join(lines)


def disk() -> str:
    """What the measured photographs say of a folder of results."""
    rows: Sequence[dict[str, Any]] = _read(PICTURES)
    sizes = sorted(row["parquet"] for row in rows)
    mean = sum(sizes) / len(sizes)
    over = max(row["parquet"] - row["png"] for row in rows)
    first, last = sizes[0], sizes[-1]
    return "\n".join(
        [
            f"Measured on {len(rows)} photographs that come with Python packages, the central square at 512 px,",
            f"and kept as the benchmark keeps an image: {first / 1e3:.0f} to {last / 1e3:.0f} kB each,",
            f"{mean / 1e3:.0f} kB on average, of which at most {over / 1e3:.0f} kB are not PNG. At that,",
            f"{images():,} images of 512 px are {images() * mean / 1e9:.0f} GB for each variant",
            f"({images() * first / 1e9:.0f} to {images() * last / 1e9:.0f}), and {images(50):,} are",
            f"{images(50) * mean / 1e9:.1f} GB. Images of 1024 px have four times the pixels and take up to four times",
            "as much. No generated image was measured.",
        ]
    )


if __name__ == "__main__":
    main()
