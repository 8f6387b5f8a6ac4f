"""Presets on grammar prompts, judged by the truth, beside sampling the embedded diffusion model; resumable per batch.

    python docs/studies/playground.py run OUT --variant playground --variant sampling   # 100 reporting prompts
    python docs/studies/playground.py show OUT                                          # table with 95 % intervals

A variant is `sampling` (DDIM, 50 steps, guidance 7.5), a preset's name, or NAME=PRESET,key=value,... with overrides.
Prompts are drawn by the grammar from `--prompts-seed`; the reporting seed was never used for tuning.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from refcore_playground.judge import judge
from refcore_playground.sample import CATEGORIES, categorise, draw_prompts

REPORTING_SEED = 2026
TUNING_SEED = 1
ZOO = Path(__file__).parents[2] / "playground" / "zoo"


def sample_diffusion(prompts: Sequence[str], seed: int, guidance: float = 7.5, steps: int = 50) -> torch.Tensor:
    """DDIM samples of the embedded diffusion model, [N, 3, 64, 64] in [0, 1]; noise keyed by prompt and seed."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from refcore.randomness import keyed_generator

    folder = ZOO / "diffusion"
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps)
    side = unet.config.sample_size
    x = torch.stack([torch.randn(4, side, side, generator=keyed_generator(seed, 0, f"sampling/{p}")) for p in prompts])
    tokens = tokenizer(
        [""] * len(prompts) + list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    with torch.inference_mode():
        states = text(tokens.input_ids).last_hidden_state
        for t in scheduler.timesteps:
            without, given = unet(torch.cat([x, x]), t, states).sample.chunk(2)
            x = scheduler.step(without + guidance * (given - without), t, x).prev_sample
        return vae.decode(x / vae.config.scaling_factor).sample.add(1).div(2).clamp(0, 1)


def run_variant(variant: str, prompts: Sequence[str], seed: int) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """Images and referees' scores of one batch of prompts."""
    if variant == "sampling":
        return sample_diffusion(prompts, seed), [{} for _ in prompts]
    import refcore

    _, _, recipe = variant.rpartition("=") if "," not in variant else variant.partition("=")
    preset, *overrides = recipe.split(",")
    result = refcore.invert(list(prompts), preset=preset, overrides=overrides, seeds=[seed])
    return result.images.cpu(), [sample.scores for sample in result.samples]


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate."""
    if total == 0:
        return 0.0, 1.0
    z, p = 1.959964, right / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return centre - half, centre + half


def run(args: argparse.Namespace) -> None:
    prompts = draw_prompts(args.count, args.prompts_seed, split=args.split)
    for variant in args.variant:
        name = variant.partition("=")[0] if "=" in variant.partition(",")[0] else variant
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "rows.jsonl"
        done = len(log.read_text().splitlines()) if log.exists() else 0
        while done < len(prompts):
            batch = prompts[done : done + args.batch]
            begin = time.perf_counter()
            images, scores = run_variant(variant, batch, args.seed)
            seconds = (time.perf_counter() - begin) / len(batch)
            lines = []
            for i, (prompt, image) in enumerate(zip(batch, images, strict=True)):
                pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{done + i:03d}.png")
                row = {"prompt": prompt, "category": categorise(done + i), "split": args.split, "seed": args.seed}
                row |= judge(pixels, prompt).to_dict() | {"seconds": round(seconds, 3), "scores": scores[i]}
                lines.append(json.dumps(row) + "\n")
            with log.open("a") as file:
                file.writelines(lines)
            done += len(batch)
            right = sum(json.loads(line)["verdict"] for line in log.read_text().splitlines())
            print(f"{name}: {right} of {done} right, {seconds:.1f} s an image", flush=True)
        contact_sheet(folder)


def contact_sheet(folder: Path, columns: int = 10, scale: int = 2) -> None:
    """All images of a variant, unselected, with prompt number and the judge's verdict as the frame's colour."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    side = 64 * scale + 6
    sheet = Image.new("RGB", (columns * side, -(-len(rows) // columns) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        x, y = i % columns * side, i // columns * side
        draw.rectangle((x, y, x + side - 1, y + side - 1), fill="#2a9d4a" if row["verdict"] else "#d03030")
        image = Image.open(folder / f"{i:03d}.png").resize((64 * scale, 64 * scale), Image.Resampling.NEAREST)
        sheet.paste(image, (x + 3, y + 3))
    sheet.save(folder / "sheet.png")


def show(args: argparse.Namespace) -> None:
    variants = sorted(p.parent for p in args.out.glob("*/rows.jsonl"))
    tables = {v.name: [json.loads(line) for line in (v / "rows.jsonl").read_text().splitlines()] for v in variants}
    print("| category | " + " | ".join(tables) + " |\n| --- |" + " --- |" * len(tables))
    for category in (*CATEGORIES, "all"):
        cells = []
        for rows in tables.values():
            verdicts = [r["verdict"] for r in rows if category in (r["category"], "all")]
            low, high = wilson(sum(verdicts), len(verdicts))
            share = sum(verdicts) / max(len(verdicts), 1)
            cells.append(f"{share:.0%} ({low:.0%} to {high:.0%}, n = {len(verdicts)})")
        print(f"| {category} | " + " | ".join(cells) + " |")
    for label, value in (
        ("single facts", lambda r: sum(f["ok"] for f in r["facts"]) / len(r["facts"])),
        ("seconds an image", lambda r: r["seconds"]),
    ):
        means = [np.mean([value(r) for r in rows]) for rows in tables.values()]
        print(f"| {label} | " + " | ".join(f"{m:.1%}" if label == "single facts" else f"{m:.1f}" for m in means) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("out", type=Path)
    runner.add_argument("--variant", action="append", required=True)
    runner.add_argument("--count", type=int, default=100)
    runner.add_argument("--prompts-seed", type=int, default=REPORTING_SEED)
    runner.add_argument("--split", default="seen")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--batch", type=int, default=20)
    runner.set_defaults(call=run)
    shower = commands.add_parser("show")
    shower.add_argument("out", type=Path)
    shower.set_defaults(call=show)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
