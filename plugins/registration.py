"""Names, import paths and summaries of the shipped plugins; nothing heavy is imported here."""

from __future__ import annotations

from typing import Any

from refcore.hooks import API_VERSION, Register, hookimpl

api_version = API_VERSION
"""It is released together with refcore."""


@hookimpl
def register_referees(register: Register) -> None:
    at = "refcore_plugins.referees"
    register(
        "clip",
        f"{at}.clip:Clip",
        summary="CLIP similarity; any open_clip model, hub id or local folder",
        conversions=("weights",),
    )
    register(
        "blip2",
        f"{at}.blip2.referee:Blip2",
        summary="BLIP-2's matching, contrastive and captioning losses",
        conversions=("itg",),
    )
    register("imagenet", f"{at}.imagenet:Imagenet", summary="EfficientNet-Lite or SqueezeNet; prompts name classes")
    register("ocr", f"{at}.ocr:Ocr", summary="PP-OCRv4 or EasyOCR reads a line of text; prompts say or quote it")
    register("siglip", f"{at}.siglip:Siglip", summary="SigLIP and SigLIP 2, with their sigmoid loss")
    register("hf-clip", f"{at}.hf_clip:HfClip", summary="CLIP in the format of transformers, such as PickScore")
    register(
        "hpsv2",
        f"{at}.hpsv2:Hpsv2",
        summary="Human Preference Score v2, a CLIP-H fine-tuned on preferences",
        conversions=("weights",),
    )
    register("owlv2", f"{at}.owlv2.referee:Owlv2", summary="OWLv2 detector; presence, number and place of things")
    register(
        "image-reward",
        f"{at}.image_reward:ImageReward",
        summary="ImageReward, a model of human preferences",
        conversions=("checkpoint",),
    )
    register(
        "aesthetic",
        f"{at}.aesthetic:Aesthetic",
        summary="LAION's aesthetic rating; ignores the prompt",
        conversions=("head",),
    )
    register("vqa", f"{at}.vqa:Vqa", summary="VQAScore; probability that a model answers yes to the prompt")
    register("image", f"{at}.image.referee:ImageSimilarity", summary="Similarity to a reference image; CLIP or DINOv2")
    register(
        "image-layers", f"{at}.image.layers:ImageLayers", summary="A CLIP's layers, near those of a reference image"
    )
    register("classifier", f"{at}.classifier:Classifier", summary="Any classifier of timm; prompts name classes")
    register("onnx", f"{at}.onnx:Onnx", summary="Classifier or detector in an ONNX file; prompts name its labels")


@hookimpl
def register_priors(register: Register) -> None:
    at = "refcore_plugins.priors"
    register("sds", f"{at}.sds:Sds", summary="Score distillation sampling, from Stable Diffusion 1.x or 2.x")
    register("csd", f"{at}.csd:Csd", summary="Classifier score distillation; only what the prompt adds")
    register("nfsd", f"{at}.nfsd:Nfsd", summary="Noise-free score distillation")
    register("sdi", f"{at}.sdi:Sdi", summary="Score distillation via DDIM inversion")
    register("vsd", f"{at}.vsd.prior:Vsd", summary="Variational score distillation; trains an adapter during the run")
    register("gaussian", f"{at}.gaussian:Gaussian", summary="Likelihood of the latent's norm under a Gaussian")
    register("concentration", f"{at}.noise_statistics:Concentration", summary="How improbable optimised noise is")
    register("spectrum", f"{at}.noise_statistics:Spectrum", summary="Moments and power spectrum of optimised noise")
    register(
        "kl", f"{at}.noise_statistics:Kl", summary="Divergence of noise with learned mean and variance from N(0, 1)"
    )
    register("moments", f"{at}.moments:Moments", summary="Mean and standard deviation of the latent's channels")
    register("tv", f"{at}.tv:TotalVariation", summary="Total variation of the image")
    register("l2", f"{at}.l2:L2", summary="Squared distance of the image from a grey")
    register("statistics", f"{at}.statistics:Statistics", summary="Feature statistics of ImageNet photographs")
    register("ffdnet", f"{at}.ffdnet:Ffdnet", summary="Score distillation in pixels, from the denoiser FFDNet")


@hookimpl
def register_augmentations(register: Register) -> None:
    geometric = "refcore_plugins.augmentations.geometric"
    photometric = "refcore_plugins.augmentations.photometric"
    register("affine", f"{geometric}:Affine", summary="Random rotation, shift and scale")
    register("perspective", f"{geometric}:Perspective", summary="Random perspective")
    register("resized_crop", f"{geometric}:ResizedCrop", summary="Random crop, resized to the view")
    register("shift", f"{geometric}:Shift", summary="Random shift")
    register("window", f"{geometric}:Window", summary="A fixed part of the image")
    register("color_jitter", f"{photometric}:ColorJitter", summary="Random brightness, contrast, saturation and hue")
    register("erasing", f"{photometric}:Erasing", summary="Erases a random rectangle")
    register("coarse", f"{photometric}:Coarse", summary="Limits detail to that of a small copy")
    register("gaussian_noise", f"{photometric}:GaussianNoise", summary="Gaussian noise with a random std for each view")
    register("uniform_noise", f"{photometric}:UniformNoise", summary="Uniform noise, of any mean")


@hookimpl
def register_parsers(register: Register) -> None:
    register("spacy", "refcore_plugins.parsers.spacy:Spacy", summary="Phrases and relations of free English text")


@hookimpl
def register_canvases(register: Register) -> None:
    at = "refcore_plugins.canvases"
    register("latent", f"{at}.latent:Latent", summary="Latent of a diffusers autoencoder")
    register("pixel", f"{at}.pixel:Pixel", summary="Pixels through a sigmoid")
    register("multires", f"{at}.multires:Multires", summary="Sum of tensors at many resolutions")
    register("noise", f"{at}.noise:Noise", summary="Noise from which a generator makes the image")
    register("fourier", f"{at}.fourier:Fourier", summary="Fourier spectrum, 1/f amplitudes, decorrelated colours")
    register("inr", f"{at}.inr:Inr", summary="Coordinate network, SIREN or FINER, for each sample")
    register("vq", f"{at}.vq:Vq", summary="Codebook entries of a VQGAN, in diffusers' VQModel")

    register("strokes", f"{at}.strokes:Strokes", summary="Bezier strokes and filled shapes; opens and writes SVG")


@hookimpl
def register_transforms(register: Register) -> None:
    at = "refcore_plugins.transforms"
    register("clip", f"{at}.norms:Clip", summary="A maximum norm of a sample's gradient")
    register("normalize", f"{at}.norms:Normalize", summary="A given norm of a sample's gradient")
    register("clamp", f"{at}.elements:Clamp", summary="A maximum magnitude of every element of a gradient")
    register("sign", f"{at}.elements:Sign", summary="The sign of every element of a gradient")
    register(
        "white_noise", f"{at}.white_noise:WhiteNoise", summary="The nearest tensor with the spectrum of white noise"
    )
    register("spectral", f"{at}.spectral:Spectral", summary="A gradient with less of the high frequencies")
    register("renormalize", f"{at}.norms:Renormalize", summary="The norm of the parameters before an update")


@hookimpl
def register_trackers(register: Register) -> None:
    at = "refcore_plugins.trackers"
    register("tensorboard", f"{at}.tensorboard:TensorBoard", summary="Event files of TensorBoard")
    register("wandb", f"{at}.wandb:WeightsAndBiases", summary="A run of Weights & Biases, offline by default")
    register("mlflow", f"{at}.mlflow:MLflow", summary="A run of MLflow, in a local store by default")


@hookimpl
def register_metrics(register: Register) -> None:
    at = "refcore_plugins.metrics"
    register("2d-owlv2", f"{at}.spatial_2d:Spatial2d", summary="T2I-CompBench's 2-D relations, by OWLv2's boxes")
    register("3d-owlv2", f"{at}.spatial_3d:Spatial3d", summary="T2I-CompBench's order in depth, by OWLv2 and MiDaS")
    register("3-in-1", f"{at}.three_in_one:ThreeInOne", summary="T2I-CompBench's score of complex prompts")
    register(
        "blip-vqa",
        f"{at}.blip_vqa:BlipVqa",
        summary="T2I-CompBench's BLIP-VQA; a question for each noun phrase",
        conversions=("checkpoint",),
    )
    register("clip-score", f"{at}.clip_score:ClipScore", summary="Cosine of CLIP ViT-B/32, or CLIPScore")
    register("dpg", f"{at}.dpg:Dpg", summary="DPG-Bench's share of questions answered with yes, by any VQA model")
    register("geneval", f"{at}.geneval:GenEval", summary="GenEval's things, numbers, colours and places")
    register("numeracy-owlv2", f"{at}.numeracy:Numeracy", summary="T2I-CompBench's numbers of things, by OWLv2's boxes")
    register("soft-tifa", f"{at}.soft_tifa:SoftTifa", summary="GenEval 2's mean probability of the right answers")
    register("vqa-score", f"{at}.vqa_score:VqaScore", summary="VQAScore of GenAI-Bench, by any VQA model")


@hookimpl
def load_without_weights(plugin: Any, device: Any, dtype: Any, size: tuple[int, int] | None) -> Any:
    from refcore_plugins import without_weights  # the model libraries, when something is counted

    return without_weights.load(plugin, device, dtype, size)
