"""`python -m refcore_playground.train RECIPE`: trains an embedded checkpoint, resumable, in its native format."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refcore_playground.train", description=__doc__)
    parser.add_argument("recipe", choices=("clip", "blip2", "autoencoder", "diffusion"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, in its native format")
    parser.add_argument("--state", type=Path, help="folder for resumable state and log (default: OUT/../NAME.training)")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time; the learning rate follows it")
    parser.add_argument("--warm", action="store_true", help="start from the weights in OUT instead of from noise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    state = args.state or args.out.with_name(args.out.name + ".training")

    if args.recipe == "clip":
        from refcore_playground.training.clip import ClipRecipe as Recipe
    elif args.recipe == "blip2":
        from refcore_playground.training.blip2 import Blip2Recipe as Recipe
    elif args.recipe == "autoencoder":
        from refcore_playground.training.diffusion import AutoencoderRecipe as Recipe
    else:
        from refcore_playground.training.diffusion import DiffusionRecipe as Recipe
    from refcore_playground.training.loop import train

    recipe = Recipe(args.out, args.seed)
    if args.warm:
        recipe.warm_start()
    train(recipe, state, minutes=args.minutes, seed=args.seed)


if __name__ == "__main__":
    main()
