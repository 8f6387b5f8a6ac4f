"""Names of the shipped plugins; nothing heavy is imported here."""

from __future__ import annotations

from refcore.hooks import Register, hookimpl

_P = "refcore_plugins"


@hookimpl
def register_referees(register: Register) -> None:
    register(
        "clip",
        f"{_P}.referees.clip:Clip",
        summary="CLIP similarity: any open_clip model, hub id or local folder",
        conversions=("weights",),
    )
    register(
        "blip2",
        f"{_P}.referees.blip2:Blip2",
        summary="BLIP-2 first stage: matching, contrast and captioning losses",
        conversions=("itg",),
    )
    register(
        "imagenet",
        f"{_P}.referees.imagenet:Imagenet",
        summary="EfficientNet-Lite ImageNet classifiers; prompts name classes",
    )
    register("siglip", f"{_P}.referees.siglip:Siglip", summary="SigLIP and SigLIP 2, with their sigmoid loss")
    register("hf-clip", f"{_P}.referees.hf_clip:HfClip", summary="CLIP in transformers' layout, such as PickScore")
    register(
        "hpsv2",
        f"{_P}.referees.hpsv2:Hpsv2",
        summary="Human Preference Score v2, a tuned CLIP-H",
        conversions=("weights",),
    )
    register("owlv2", f"{_P}.referees.owlv2:Owlv2", summary="OWLv2 detector: things are there, counted and in place")
    register(
        "image-reward",
        f"{_P}.referees.image_reward:ImageReward",
        summary="ImageReward: what people prefer",
        conversions=("checkpoint",),
    )
    register(
        "aesthetic",
        f"{_P}.referees.aesthetic:Aesthetic",
        summary="LAION's aesthetic rating; reads no prompt",
        conversions=("head",),
    )
    register("vqa", f"{_P}.referees.vqa:Vqa", summary="VQAScore: the probability that a model says yes, it shows that")
    register("image", f"{_P}.referees.image:ImageSimilarity", summary="Likeness to a reference image: CLIP or DINOv2")
    register(
        "classifier", f"{_P}.referees.classifier:Classifier", summary="Any classifier of timm; prompts name classes"
    )


@hookimpl
def register_priors(register: Register) -> None:
    register("sds", f"{_P}.priors.sds:Sds", summary="Score distillation of a Stable Diffusion 1.x or 2.x folder")
    register("csd", f"{_P}.priors.csd:Csd", summary="Classifier score distillation: what the prompt adds")
    register("nfsd", f"{_P}.priors.nfsd:Nfsd", summary="Noise-free score distillation")
    register("sdi", f"{_P}.priors.sdi:Sdi", summary="Score distillation via DDIM inversion")
    register("vsd", f"{_P}.priors.vsd:Vsd", summary="Variational score distillation: an adapter learns on the way")
    register("gaussian", f"{_P}.priors.latent:Gaussian", summary="Likelihood of the latent's norm under a Gaussian")
    register("moments", f"{_P}.priors.latent:Moments", summary="Mean and spread of the latent's channels")
    register("tv", f"{_P}.priors.image:TotalVariation", summary="Total variation of the image")
    register("l2", f"{_P}.priors.image:L2", summary="Squared distance of the image from mid-grey")
    register("statistics", f"{_P}.priors.statistics:Statistics", summary="Feature statistics of ImageNet photographs")


@hookimpl
def register_augmentations(register: Register) -> None:
    geometric = f"{_P}.augmentations.geometric"
    photometric = f"{_P}.augmentations.photometric"
    register("affine", f"{geometric}:Affine", summary="Rotation, shift and scale")
    register("perspective", f"{geometric}:Perspective", summary="Random perspective")
    register("resized_crop", f"{geometric}:ResizedCrop", summary="Random crop, resized to the view")
    register("shift", f"{geometric}:Shift", summary="Random shift")
    register("color_jitter", f"{photometric}:ColorJitter", summary="Brightness, contrast, saturation and hue")
    register("erasing", f"{photometric}:Erasing", summary="Erases a random rectangle")
    register("coarse", f"{photometric}:Coarse", summary="No more detail than a small copy has")
    register("gaussian_noise", f"{photometric}:GaussianNoise", summary="Gaussian noise, its std drawn per view")


@hookimpl
def register_parsers(register: Register) -> None:
    register("spacy", f"{_P}.parsers.spacy:Spacy", summary="Parts of free English text, by spaCy's dependency parse")


@hookimpl
def register_canvases(register: Register) -> None:
    register("latent", f"{_P}.canvases.latent:Latent", summary="Latent of a diffusers autoencoder")
    register("pixel", f"{_P}.canvases.pixel:Pixel", summary="Pixels through a sigmoid")
    register("multires", f"{_P}.canvases.multires:Multires", summary="Sum of tensors at many resolutions")
    register("fourier", f"{_P}.canvases.fourier:Fourier", summary="Decorrelated colour and 1/f spectrum")
