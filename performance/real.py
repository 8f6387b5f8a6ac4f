"""The paper's recipe at its real sizes, with random weights: its memory and its time.

    python -m performance.real plan                  # counted on tensors without data, takes a minute
    python -m performance.real make FOLDER           # 9 GB of checkpoints, in their native formats
    python -m performance.real run FOLDER            # `refcore invert --preset vlminv`, two steps
    python -m performance.real one-graph FOLDER 2    # the same step with 2 views in one graph

Random weights take as much memory and time as trained ones. The last two commands print one line of JSON each. Memory
is the peak resident size of the process, including its weights and the pages of their files.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from refcore.contracts.conditioning import Conditioning
from refcore.engine.memory import peak_storages
from refcore_plugins.models.generators.without_weights import VAE
from refcore_plugins.without_weights import blip2_config

BLIP2, DIFFUSION, CLIP_H = "blip2-itm-vit-g", "stable-diffusion-v1-5", "clip-vit-h-14"
PROMPT = "a red circle left of a blue square"
SIDE, STEPS = 512, 2
UNIT = 1024 if sys.platform == "linux" else 1
"""Bytes per unit of ru_maxrss."""


def random_weights(make: Callable[[], Any], seed: int = 0) -> Any:
    """A model with random weights, small enough for finite activations, made without its slow initialisation."""
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2**22, generator=generator) * 0.02
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                value.copy_(torch.arange(value.numel()).view(value.shape))  # position ids
            elif value.dim() > 1:
                value.copy_(noise.repeat(-(-value.numel() // len(noise)))[: value.numel()].view(value.shape))
            else:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
    return model.eval()


def make(folder: Path) -> None:
    """Writes the missing checkpoints: BLIP-2 (4.7 GB), Stable Diffusion 1.5 (4.3 GB), ViT-H (3.9 GB)."""
    for name, write in ((BLIP2, _blip2), (DIFFUSION, _diffusion), (CLIP_H, _clip)):
        if not (folder / name / "done").is_file():
            (folder / name).mkdir(parents=True, exist_ok=True)
            write(folder / name)
            (folder / name / "done").touch()
            print(f"{folder / name}: written")


def _blip2(folder: Path) -> None:
    """The first stage of BLIP-2: EVA ViT-g at 224 px, a Q-Former the size of BERT with 32 queries, captioning head."""
    from safetensors.torch import save_file
    from transformers import Blip2ForImageTextRetrieval, BlipImageProcessor

    from refcore_playground.training.tokens import bert_tokenizer, save_bert_tokenizer

    config = blip2_config()
    random_weights(lambda: Blip2ForImageTextRetrieval(config)).save_pretrained(folder)
    save_bert_tokenizer(bert_tokenizer(), folder)
    BlipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    width, vocabulary = 768, 30523
    shapes = {"transform.dense.weight": (width, width), "transform.dense.bias": (width,),
              "transform.LayerNorm.weight": (width,), "transform.LayerNorm.bias": (width,),
              "decoder.weight": (vocabulary, width), "decoder.bias": (vocabulary,)}  # fmt: skip
    head = {f"cls.predictions.{name}": 0.02 * torch.randn(shape) for name, shape in shapes.items()}
    save_file(head, folder / "itg_head.safetensors")


def _diffusion(folder: Path) -> None:
    """Stable Diffusion 1.5: UNet (860 M), autoencoder (84 M), CLIP ViT-L's text tower (123 M)."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from refcore_playground.training.tokens import clip_tokenizer

    unet = random_weights(lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768))
    unet.save_pretrained(folder / "unet")
    vae = random_weights(lambda: AutoencoderKL(**VAE))
    vae.save_pretrained(folder / "vae")
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        max_position_embeddings=77, eos_token_id=49407, bos_token_id=49406, pad_token_id=1,
    )  # fmt: skip
    random_weights(lambda: CLIPTextModel(text)).save_pretrained(folder / "text_encoder")
    small = clip_tokenizer()
    vocabulary = small.get_vocab()
    merges = json.loads(small.backend_tokenizer.to_str())["model"]["merges"]
    CLIPTokenizer(vocab=vocabulary, merges=[tuple(m) for m in merges], model_max_length=77).save_pretrained(
        folder / "tokenizer"
    )
    DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def _clip(folder: Path) -> None:
    """CLIP ViT-H/14, the size of PickScore and HPSv2."""
    from performance.models import random_clip  # late: `plan` and `run` do not need open_clip

    random_clip("ViT-H-14", folder, random_weights)


def plan() -> dict[str, Any]:
    """Gigabytes of the step's parts, counted on fake tensors, without the temporary buffers of kernels.

    decoder: by `recompute`, the peak of decode and pull-back, and the memory held while the referees judge.
    referee: by n, the peak of judging n views at once, forward and backward.
    """
    from diffusers import AutoencoderKL
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import Blip2ForImageTextRetrieval, PreTrainedModel

    from refcore.contracts.canvas import LatentSpace
    from refcore.engine.memory import graph_bytes
    from refcore.moment import Moment
    from refcore_plugins.canvases.latent import Latent
    from refcore_plugins.models.autoencoder import Autoencoder
    from refcore_plugins.models.preprocess import Normalise
    from refcore_plugins.referees.blip2.itg_head import ItgHead
    from refcore_plugins.referees.blip2.referee import Blip2

    found: dict[str, Any] = {"decoder": {}, "referee": {}}
    with FakeTensorMode():
        vae = AutoencoderKL(**VAE).requires_grad_(False).eval()
        for recompute in ("nothing", "blocks", "image"):
            canvas = Latent(recompute=recompute)
            canvas.autoencoder = Autoencoder(vae, LatentSpace("fake", 4, 0.18215), (SIDE, SIDE))
            z = torch.randn(1, 4, SIDE // 8, SIDE // 8).requires_grad_()

            def step(canvas: Latent = canvas, z: Tensor = z) -> None:
                torch.autograd.grad(canvas.decode({"latent": z}, Moment.end(1)).sum(), z)

            def held(canvas: Latent = canvas, z: Tensor = z) -> Tensor:
                return canvas.decode({"latent": z}, Moment.end(1))

            kept = graph_bytes(held) if recompute != "image" else 0
            found["decoder"][recompute] = {"peak_gb": peak_storages(step) / 1e9, "held_gb": kept / 1e9}
        referee = Blip2(label_smoothing=0.0)
        with patch.object(PreTrainedModel, "init_weights"):  # it would read the tensors' values
            model = Blip2ForImageTextRetrieval._from_config(blip2_config(), attn_implementation="eager")
        referee.model = model.requires_grad_(False).eval()
        referee.head = ItgHead(768, 30523).requires_grad_(False)
        referee.normalise = Normalise((0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
        referee.dtype = torch.float32
        referee.tokenizer = type("Tokenizer", (), {"bos_token_id": 1})()
        words = {"ids": torch.ones(1, 12, dtype=torch.int64), "mask": torch.ones(1, 12, dtype=torch.bool)}
        conditioning = Conditioning((PROMPT,), words)
        for n in (1, 2, 4, 10):
            views = torch.rand(n, 3, 224, 224).requires_grad_()

            def judged(views: Tensor = views) -> None:
                losses = referee.judge(views, conditioning, torch.zeros(len(views), dtype=torch.int64))
                torch.autograd.grad(losses.sum(), views)

            found["referee"][n] = peak_storages(judged) / 1e9
    return found


def run(folder: Path, extra: Sequence[str], out: Path, threads: int) -> dict[str, Any]:
    """Time and memory of `refcore invert --preset vlminv` in a process of its own."""
    sets = [
        f"canvas.config.model={folder / DIFFUSION}", f"priors.0.config.model={folder / DIFFUSION}",
        f"referees.0.config.model={folder / BLIP2}", "referees.0.config.itg_head=null",
        f"steps={STEPS}", "device=cpu", *extra,
    ]  # fmt: skip
    program = f"import torch; torch.set_num_threads({threads}); from refcore.cli import main; main()"
    command = [sys.executable, "-c", program, "invert", PROMPT, "--preset", "vlminv", "--seed", "0", "--json"]
    command += ["--out", str(out)]
    for assignment in sets:
        command += ["--set", assignment]
    began = time.perf_counter()
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return {
        "what": "refcore invert --preset vlminv",
        "set": list(extra),
        "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT / 1e9,
        "seconds": time.perf_counter() - began,
        "load_seconds": result["timings"]["load"],
        "step_seconds": [record["seconds"] for record in history],
        "chunks": result["chunks"],
        "halved": result["halved"],
        "threads": threads,
    }


def one_graph(folder: Path, views: int, threads: int) -> dict[str, Any]:
    """A step as it is usually written: decoder, all views and the referee in one graph, then one backward."""
    from refcore_plugins.models.autoencoder import load_autoencoder
    from refcore_plugins.models.diffusers_folder import DiffusersFolder
    from refcore_plugins.models.stable_diffusion import StableDiffusion
    from refcore_plugins.referees.blip2.referee import Blip2

    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    diffusion = DiffusersFolder(str(folder / DIFFUSION))
    autoencoder = load_autoencoder(diffusion, cpu, torch.float32)
    model = StableDiffusion(diffusion, cpu, torch.float32)
    referee = Blip2(model=str(folder / BLIP2))
    referee.load(cpu, torch.float32)
    conditioning, text = referee.read([PROMPT]), model.encode_text(["", PROMPT])
    z = torch.randn(1, 4, SIDE // 8, SIDE // 8).requires_grad_()
    began = time.perf_counter()
    image = autoencoder.decode(z).clamp(0, 1)
    small = F.interpolate(image, referee.input_size, mode="area").expand(views, -1, -1, -1)
    noisy: Tensor = small + 0.2 * torch.randn_like(small)
    loss = referee.judge(noisy, conditioning, torch.zeros(views, dtype=torch.int64)).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    with torch.no_grad():
        model.noise(torch.cat([z, z]), torch.tensor([500, 500]), text)
    assert gradient.isfinite().all()
    return {
        "what": "one graph",
        "views": views,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1e9,
        "step_seconds": time.perf_counter() - began,
        "threads": threads,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m performance.real", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("command", choices=["plan", "make", "run", "one-graph"])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("scratch"), help="folder of the checkpoints")
    parser.add_argument("views", type=int, nargs="?", default=1, help="views of one-graph")
    parser.add_argument("--set", action="append", default=[], dest="extra", metavar="FIELD=VALUE",
                        help="override a field of the run's config")  # fmt: skip
    parser.add_argument("--out", type=Path, help="run folder (default: a new one in FOLDER)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    given = parser.parse_args(argv)
    if given.command == "plan":
        print(json.dumps(plan()))
        return
    if given.command == "make":
        make(given.folder)
        return
    out = given.out or given.folder / f"run-{int(time.time())}"
    found = (
        run(given.folder, given.extra, out, given.threads)
        if given.command == "run"
        else one_graph(given.folder, given.views, given.threads)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
