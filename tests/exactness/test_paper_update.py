"""The paper's update and averaging, transcribed here from its equations alone, are the preset's, step for step.

Models are loaded by diffusers and transformers themselves. What the transcription shares with a run is what the
equations leave open: the numbers drawn, and the views that are cut from an image with them.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from toys import toy_config
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval, BlipImageProcessor, CLIPTextModel, CLIPTokenizer

from refcore.checkpoints import zoo
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.moment import Moment
from refcore.rng import Rng

STEPS, SDS_ONLY, WARM_UP = 20, 15, 10
"""160, 150 and 10 in the paper."""
EMA_START, EMA_RESTART = 6, 6
"""40 and 60 in the paper; see `restarts_after`."""
PROMPTS, SEED = ["a red circle", "a striped green star above a blue square"], 3
GUIDANCE, SIDE = 30.0, 64
WEIGHT = 800.0 * (16 / 64) ** 2
"""Of SDS, 800 for latents of 64 x 64: as much for each number of a smaller latent, whose gradient is divided by h w."""
LAST = 20
"""Where the cosines end: at the run's last step, as the paper's do."""


def recipe() -> RunConfig:
    """The preset `vlminv` on the embedded models, with its windows, schedules and restarts moved into 20 steps."""
    settings = presets.get("vlminv").settings
    settings["canvas"]["config"]["model"] = settings["priors"][0]["config"]["model"] = "playground:diffusion"
    settings["referees"][0]["config"] |= {"model": "playground:blip2", "itg_head": None}
    settings["referees"][0]["window"] = [0, SDS_ONLY]
    settings["priors"][0]["weight"] |= {"start": WEIGHT, "end": WEIGHT / 2, "last": LAST}
    settings["combine"]["factor"]["last"] = LAST
    first = settings["noise"]["pieces"][0]
    first["until"] = SDS_ONLY
    first["value"]["of"][1]["last"] = LAST
    settings["ema"]["restarts"] = [5, 11]
    settings["views"]["main"] |= {"count": 3, "hardest": None}
    return RunConfig.from_settings(
        {**settings, "size": SIDE, "steps": STEPS, "prompts": PROMPTS, "seeds": [SEED], "dtype": "float64",
         "device": "cpu"}
    )  # fmt: skip


class Transcription:
    """The equations, in float64, on the libraries' own models."""

    def __init__(self) -> None:
        folder, blip2 = zoo() / "diffusion", zoo() / "blip2"
        plain: dict[str, Any] = {"low_cpu_mem_usage": False}

        def frozen(model: torch.nn.Module) -> Any:
            return model.double().eval().requires_grad_(False)

        self.vae = frozen(AutoencoderKL.from_pretrained(folder, subfolder="vae", **plain))
        self.unet = frozen(UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **plain))
        scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        self.alpha_bar = scheduler.alphas_cumprod.double()
        self.predicts_velocity = scheduler.config.prediction_type == "v_prediction"
        self.blip2 = frozen(Blip2ForImageTextRetrieval.from_pretrained(blip2, attn_implementation="sdpa"))
        self.head = {name.split("predictions.")[1]: t.double() for name, t in
                     load_file(blip2 / "itg_head.safetensors").items()}  # fmt: skip
        processor = BlipImageProcessor.from_pretrained(blip2)
        self.constants = processor.image_mean, processor.image_std
        self.words = AutoTokenizer.from_pretrained(blip2)
        encoder = frozen(CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"))
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")

        def features(texts: list[str]) -> Tensor:
            length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
            ids = tokenizer(
                texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).input_ids
            return encoder(ids).last_hidden_state

        self.text = features([f"A photo exactly contains {prompt}" for prompt in PROMPTS])
        self.empty = features([""] * len(PROMPTS))

    def image(self, z: Tensor) -> Tensor:
        """x = D(z), clamped to [0, 1]."""
        return (self.vae.decode(z / self.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)

    def referee_loss(self, view: Tensor, prompt: str) -> Tensor:
        """ITM + ITG of one view."""
        mean, std = (torch.tensor(c, dtype=torch.float64).view(3, 1, 1) for c in self.constants)
        pixels = ((view - mean) / std)[None]
        tokens = self.words(prompt, return_tensors="pt", truncation=True, max_length=32)
        logits = self.blip2(pixel_values=pixels, **tokens, use_image_text_matching_head=True).logits_per_image
        match = -torch.log(logits.softmax(-1)[0, 1] + 1e-8)

        ids = tokens.input_ids.clone()
        ids[0, 0] = self.words.bos_token_id
        q, n = self.blip2.config.num_query_tokens, ids.shape[1]
        allowed = torch.zeros(q + n, q + n, dtype=torch.bool)
        allowed[:, :q] = True
        allowed[:q, q:] = False
        allowed[q:, q:] = torch.ones(n, n).tril().bool()
        hidden = self.blip2.qformer(
            query_embeds=torch.cat([self.blip2.query_tokens, self.blip2.embeddings(input_ids=ids)], 1),
            query_length=q,
            attention_mask=torch.zeros(1, 1, q + n, q + n, dtype=torch.float64).masked_fill(~allowed, -1e9),
            encoder_hidden_states=self.blip2.vision_model(pixels).last_hidden_state,
        ).last_hidden_state[:, q:-1]
        head = self.head
        hidden = F.gelu(hidden @ head["transform.dense.weight"].T + head["transform.dense.bias"])
        hidden = F.layer_norm(
            hidden, hidden.shape[-1:], head["transform.LayerNorm.weight"], head["transform.LayerNorm.bias"],
            self.blip2.config.qformer_config.layer_norm_eps,
        )  # fmt: skip
        log_p = (hidden @ head["decoder.weight"].T + head["decoder.bias"]).log_softmax(-1)[0]
        target = ids[0, 1:]
        likelihood = -log_p[torch.arange(n - 1), target]
        return match + (0.9 * likelihood + 0.1 * -log_p.mean(-1)).mean()

    def sds(self, z: Tensor, step: int) -> Tensor:
        """weight * w (eps_hat - eps) / (h w), with w = 2, guidance 30 and the outer weight falling to half."""
        rng = Rng([SEED] * len(z), step, "prior/sds")
        t = rng.integers(50, 949)
        noise = rng.normal(*z.shape[1:]).double()
        a = self.alpha_bar[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * z + (1 - a).sqrt() * noise
        without = self.unet(noisy, t, self.empty).sample
        given = self.unet(noisy, t, self.text).sample
        if self.predicts_velocity:
            without, given = (a.sqrt() * v + (1 - a).sqrt() * noisy for v in (without, given))
        outer = WEIGHT / 2 + WEIGHT / 2 * (1 + math.cos(math.pi * step / LAST)) / 2
        return outer * 2 * (without + GUIDANCE * (given - without) - noise) / (z.shape[2] * z.shape[3])


def eta(t: int) -> float:
    """(t + 1) / 10 for t < 10, then a cosine from 1 to 0.5."""
    if t < WARM_UP:
        return (t + 1) / WARM_UP
    return 0.5 + 0.5 * (1 + math.cos(math.pi * (t - WARM_UP) / (LAST - WARM_UP))) / 2


def restarts_after(it: int, ema_start: int, ema_restart: int, last: int) -> bool:
    """The public code's own counter, `it` from 0; only while the referee judges."""
    return it + 1 >= ema_start and (it + 1 - ema_start) % ema_restart == 0 and it + 1 <= last


@pytest.mark.fault("1.1")
@pytest.mark.fault("1.2")
@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("preset", ["vlminv", "vlminv-itm"])
def test_all_160_steps_of_the_preset_are_the_public_codes_loop(preset: str) -> None:
    """Every schedule of the preset, untouched, around toy networks; the loop is transcribed with its own counters.

    Settings of the public code: lr 1 to 0.5, warm-up 10; SDS 800 to 400; z_noise 0.2; blip_range 0 to 150; ema_decay
    0.95, ema_start 40, ema_restart 60. Its average and z share memory for half a step after a restart, an effect of
    0.25 % of what the average moves; that is left out.
    """
    settings = presets.get(preset).settings
    weight = settings["priors"][0]["weight"]
    weight |= {"start": weight["start"] / 1000, "end": weight["end"] / 1000}  # toy gradients are not divided by h w
    inversion = Inversion(
        toy_config(
            referees=[{"name": "toy", "weight": 1.0, "window": settings["referees"][0]["window"]}],
            priors=[{"name": "toy_sds", "weight": weight}],
            views={"main": {"count": 1}},
            **{field: settings[field] for field in ("combine", "optimizer", "steps", "noise", "ema", "output")},
        )
    )
    referee, prior = inversion.engine.panel.referees[0], inversion.engine.priors[0]
    z = inversion.params["latent"].detach().clone()
    average, checked = z.clone(), []
    for it in range(160):
        lr = (it + 1) / 10 if it < 10 else 0.5 * (1 + math.cos(math.pi * (it - 10) / (160 - 10))) * (1 - 0.5) + 0.5
        sd_weight = (0.5 * (1 + math.cos(math.pi * it / 160)) * (800 - 400) + 400) / 1000
        g_sds = (
            sd_weight
            * prior.prior.gradient(z, prior.conditioning, Moment(it, 160), Rng([3, 3], it, "prior/toy_sds"))[0]
        )
        noise = Rng([3, 3], it, "noise/latent").normal(*z.shape[1:]).double()
        if it < 150:
            leaf = z.clone().requires_grad_()
            image = inversion.engine.canvas.decode({"latent": leaf}, inversion.engine.end)
            view = F.interpolate(image, (16, 16), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
            loss = -F.logsigmoid(referee.referee.logits(view, referee.conditioning["text"]))
            g_ref = torch.autograd.grad(loss.sum(), leaf)[0]
            scale = 2 * g_sds.flatten(1).norm(dim=1) / g_ref.flatten(1).norm(dim=1)
            # The noises of the two halves, -lr 0.2 n1 and 0.2 n2, are parts of one draw with the variance of their sum.
            n1, n2 = -noise * lr / math.hypot(lr, 1), noise / math.hypot(lr, 1)
            z = z - lr * (scale.view(-1, 1, 1, 1) * g_ref + 0.2 * n1)
            z = z - g_sds + 0.2 * n2
        else:
            z = z - g_sds + 0.01 * noise
        average = z.clone() if it == 0 else 0.95 * average + 0.05 * z
        if restarts_after(it, 40, 60, 150):
            z = average.clone()
        next(inversion)
        apart = float((inversion.params["latent"].detach() - z).abs().max() / z.abs().max())
        assert apart < 1e-13, f"step {it}: {apart:.1e}"
        assert inversion.tracks.ema is not None
        assert float((inversion.tracks.ema["latent"] - average).abs().max()) < 1e-12, f"average of step {it}"
        checked.append(apart)
    assert inversion.done
    assert max(checked[it] for it in (39, 40, 99, 159)) < 1e-14


@pytest.mark.slow
def test_the_preset_is_the_papers_update_on_the_embedded_models() -> None:
    inversion = Inversion(recipe())
    paper = Transcription()
    group = inversion.engine.panel.groups["main"]
    z = inversion.params["latent"].detach().clone()
    average = z.clone()
    moved = 0.0
    for t in range(STEPS):
        with torch.no_grad():
            g_sds = paper.sds(z, t)
        # One draw of std 0.2 sqrt(1 + eta^2) stands for 0.2 eta n1 + 0.2 n2, which the update adds in two halves.
        n = Rng([SEED] * len(z), t, "noise/latent").normal(*z.shape[1:]).double()
        if t < SDS_ONLY:
            g_ref = torch.zeros_like(z)
            for b, prompt in enumerate(PROMPTS):
                leaf = z[b : b + 1].clone().requires_grad_()
                opened = group.open(paper.image(leaf), (SIDE, SIDE), [SEED], Moment(t, 160))
                opened.source = opened.small  # the whole graph, without the engine's cut
                views = opened.make(range(3))
                loss = torch.stack([paper.referee_loss(view, prompt) for view in views]).mean()
                g_ref[b] = torch.autograd.grad(loss, leaf)[0][0]
            scale = g_sds.flatten(1).norm(dim=1) / g_ref.flatten(1).norm(dim=1)
            z = z - eta(t) * 2 * scale.view(-1, 1, 1, 1) * g_ref
            z = z - g_sds + 0.2 * math.sqrt(1 + eta(t) ** 2) * n
        else:
            z = z - g_sds + 0.01 * n
        average = z.clone() if t == 0 else 0.95 * average + 0.05 * z
        if restarts_after(t, EMA_START, EMA_RESTART, SDS_ONLY):
            z = average.clone()
        before = inversion.params["latent"].detach().clone()
        next(inversion)
        now = inversion.params["latent"].detach()
        moved = max(moved, float((now - before).abs().max()))
        assert float((now - z).abs().max()) < 1e-4, f"step {t}"
        assert inversion.tracks.ema is not None
        assert float((inversion.tracks.ema["latent"] - average).abs().max()) < 1e-4, f"average of step {t}"
    assert inversion.done
    assert moved > 0.1, "the run stood still: nothing was compared"
    assert torch.allclose(inversion.images("current"), paper.image(z), atol=1e-4)
