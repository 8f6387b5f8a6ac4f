"""The `image-reward` referee: ImageReward, a BLIP with a head that predicts human preference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from refcore.checkpoints import offline_error
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import CheckpointError
from refcore.plugin import PluginConfig
from refcore.text_files import read_json
from refcore_plugins.models.blip_checkpoint import renamed, text_sizes, vision_sizes
from refcore_plugins.models.checkpoint_conversion import (
    make_folder,
    matched,
    read_pickled,
    refuse_written,
    write_json,
    write_safetensors,
)
from refcore_plugins.models.loaded_weights import refuse_broken
from refcore_plugins.models.preprocess import Fit, Normalise
from refcore_plugins.models.rating_head import RatingHead
from refcore_plugins.models.reward_loss import RewardLoss, reward_loss
from refcore_plugins.models.truncated_text import truncated_text
from refcore_plugins.models.untrusted_checkpoints import data_only, refuse_code

CONTEXT_LENGTH = 35
"""Tokens of a prompt, first and last included (max_length in the original)."""
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and std of the head's output over the authors' data; a reward is (output - MEAN) / STD."""
WEIGHTS, CONFIG, HEAD = "model.safetensors", "config.json", "reward_head.safetensors"
TOKENIZER = "google-bert/bert-base-uncased"
ORIGINAL = "the checkpoint of ImageReward (ImageReward.pt)"
REMEDY = f"refcore convert image-reward-checkpoint SOURCE FOLDER makes one from {ORIGINAL}"


class Blip(nn.Module):
    """BLIP's image transformer and image-grounded text encoder (arXiv 2201.12086), from transformers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.vision = BlipVisionModel(BlipVisionConfig(**config["vision"]))
        self.text = BlipTextModel(BlipTextConfig(**config["text"]), add_pooling_layer=False)


def convert_checkpoint(source: str | Path, out: str | Path) -> Path:
    """Writes the published checkpoint as a folder: config, weights under the names of transformers, and the head.

    The projections for BLIP's contrastive loss, which ImageReward does not use, are left out. Sizes come from the
    tensors, except the width of the attention heads, which is 64 in every BLIP.

    Args:
        source: The published file.
        out: The folder, created if missing.

    Raises:
        CheckpointError: `source` is missing, corrupt or of another model, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    refuse_written(out / HEAD, out / WEIGHTS, out / CONFIG)
    state = read_pickled(source, ORIGINAL)
    prefix = "blip." if any(name.startswith("blip.") for name in state) else ""
    blip = {
        re.sub(r"^text_encoder\.", "text.", renamed(name.removeprefix(prefix), "vision")): value
        for name, value in state.items()
    }
    try:
        config = _config_of(blip)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{source} is not ImageReward: {error} is missing; expected {ORIGINAL}") from error
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Blip(config).state_dict().items()}
    weights = matched(blip, shapes, source, ORIGINAL)
    head = {name.removeprefix("mlp."): value for name, value in state.items() if name.startswith("mlp.")}
    RatingHead.from_original(head, source, ORIGINAL).save(make_folder(out) / HEAD)
    write_safetensors(weights, out / WEIGHTS)
    write_json(config, out / CONFIG)
    return out


class ImageReward(Referee):
    """ImageReward (arXiv 2304.05977): the text encoder of a BLIP encodes prompt and image, and a head rates them.

    Rewards have mean 0 and standard deviation 1 over the authors' data. The training loss was -log sigmoid(r_i - r_j)
    for the preferred image i of a pair (eq. 1), so p = sigmoid(r) is the probability that an image is preferred over
    the average one. Wanted, the loss is -log p; not wanted, -log(1 - p). Both are bounded below by 0. `linear` is
    2 - r, as ReNO (arXiv 2406.04312) weights it: its gradient is not multiplied by 1 - p.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"model": "refcore convert image-reward-checkpoint SOURCE OUT writes one"})
        model: str = Field(description="Folder written by `refcore convert image-reward-checkpoint`.")
        tokenizer: str | None = Field(
            None,
            description=f"Hub id or folder of BERT's tokenizer; null: the one in `model`, or else {TOKENIZER}.",
        )
        loss: RewardLoss = Field(
            "saturating", description="saturating: softplus(best - r), -log p with best 0. linear: best - r."
        )
        best: float | None = Field(
            None,
            description="Reward at which `linear` is 0 and `saturating` bends; null: 2 for linear, 0 for saturating.",
        )

    name = "image-reward"
    conversions = MappingProxyType({"checkpoint": convert_checkpoint})
    score_unit: ClassVar[str] = "reward"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. BLIP is in `dtype`, the head in float32 (float64 with float64)."""
        folder = Path(expanduser(self.config.model))
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f'image-reward: there is no converted checkpoint at "{self.config.model}"; {REMEDY}')
        try:
            config = read_json(folder / CONFIG)
            model = Blip(config)
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f'image-reward: the checkpoint in "{self.config.model}" cannot be loaded: {reason}; {REMEDY}'
            ) from error
        refuse_broken(model, (), f'image-reward: the checkpoint in "{self.config.model}"', REMEDY)
        head = RatingHead.from_file(folder / HEAD, REMEDY)
        self.tokenizer: Any = self._load_tokenizer(folder)
        vocabulary = config["text"]["vocab_size"]
        if len(self.tokenizer) > vocabulary:
            raise CheckpointError(
                f"image-reward: the tokenizer has {len(self.tokenizer)} tokens, but the model only {vocabulary}; "
                f"set `tokenizer` to {TOKENIZER} or a copy of it"
            )
        self.model: Any = model.to(device, dtype).eval().requires_grad_(False)
        self.head = head.to(device, torch.promote_types(dtype, torch.float32))
        self.normalise = Normalise(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, device)
        self.input_size = (config["vision"]["image_size"],) * 2
        self.fit = Fit(self.input_size, "crop", rounds=True)  # torchvision's Resize and CenterCrop, as the authors
        self.device, self.dtype = device, dtype

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Tokens, `ids` and `mask` [P, 35]."""
        encoded = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        ).to(self.device)
        truncated = tuple(truncated_text(self.tokenizer, prompt, CONTEXT_LENGTH) for prompt in prompts)
        return Conditioning(tuple(prompts), {"ids": encoded.input_ids, "mask": encoded.attention_mask}, truncated)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        reward = self.reward(views, conditioning.select(prompt_index))
        best = self.config.best
        if best is None:
            best = 2.0 if self.config.loss == "linear" else 0.0
        return reward_loss(reward, self.config.loss, wanted, best)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The reward of each image, about -2 to 2."""
        return self.reward(images, conditioning.tensors)

    def reward(self, views: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        """[N] rewards of views [N, 3, H, W] and their tokens; differentiable."""
        image = self.model.vision(pixel_values=self.normalise(views).to(self.dtype)).last_hidden_state
        hidden = self.model.text(
            input_ids=text["ids"], attention_mask=text["mask"], encoder_hidden_states=image
        ).last_hidden_state[:, 0]
        output: Tensor = self.head(hidden.to(self.head.layers[0].weight.dtype))
        return (output - MEAN) / STD

    def _load_tokenizer(self, folder: Path) -> Any:
        beside = (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file()
        source = self.config.tokenizer or (str(folder) if beside else TOKENIZER)
        refuse_code(source, source, "image-reward")
        try:
            with data_only():
                return AutoTokenizer.from_pretrained(
                    source, padding_side="right", truncation_side="right", trust_remote_code=False
                )
        except Exception as error:
            remedy = f"connect to the network, or set `tokenizer` to a folder with the files of {TOKENIZER}"
            raise offline_error(source, error, remedy) from error


def _config_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configs of both transformers."""
    vision, text = vision_sizes(state, "vision"), text_sizes(state, "text")
    text |= {"encoder_hidden_size": vision["hidden_size"], "bos_token_id": None}  # no text is generated
    return {"vision": vision, "text": text}
