"""`python -m refcore_playground.train RECIPE`: trains an embedded checkpoint and saves it in its native format."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import torch

RECIPES: dict[str, str] = {
    "clip": "refcore_playground.training.clip:ClipRecipe",
    "blip2": "refcore_playground.training.blip2:Blip2Recipe",
    "autoencoder": "refcore_playground.training.diffusion:AutoencoderRecipe",
    "diffusion": "refcore_playground.training.diffusion:DiffusionRecipe",
    "turbo": "refcore_playground.training.turbo:TurboRecipe",
    "vq": "refcore_playground.training.vq:VqRecipe",
    "owlv2": "refcore_playground.training.owlv2:Owlv2Recipe",
}
"""Name -> recipe, imported on use. Train the autoencoder before diffusion, which works on its latents; turbo is
distilled from the embedded diffusion model."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refcore_playground.train", description=__doc__)
    parser.add_argument("recipe", choices=tuple(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--state", type=Path, help="folder of the resumable state and the log (default: OUT.training)")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time; sets the learning rate schedule")
    parser.add_argument("--warm", action="store_true", help="start from the weights in OUT instead of random ones")
    parser.add_argument("--lr", type=float, help="peak learning rate (default: the recipe's), lower with --warm")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    state = args.state or args.out.with_name(args.out.name + ".training")

    from refcore_playground.training.loop import train  # late: transformers and diffusers are not needed for --help

    module, _, name = RECIPES[args.recipe].partition(":")
    recipe = getattr(import_module(module), name)(args.out, args.seed)
    if args.lr is not None:
        recipe.lr = args.lr
    if args.warm:
        recipe.warm_start()
    train(recipe, state, minutes=args.minutes, seed=args.seed)


if __name__ == "__main__":
    main()
