"""The `image-reward` referee: converted from the published layout, equal to the parts that the original is made of.

BLIP's image transformer is timm's, and its text encoder is BERT with cross-attention and without token types; so timm's
VisionTransformer and transformers' BertModel, given the tensors under their original names, say what is right.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny import loaded
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from refcore.errors import CheckpointError
from refcore_playground.training.tokens import bert_tokenizer
from refcore_plugins.referees.image_reward import MEAN, STD, ImageReward, convert_checkpoint

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares"]


class Original(nn.Module):
    """The published model with tiny sizes: heads are 64 wide, as in every BLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.visual_encoder = VisionTransformer(
            img_size=16, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=0, global_pool=""
        )
        config = BertConfig(
            vocab_size=len(bert_tokenizer()) + 1,  # [ENC]
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=40,
            is_decoder=True,
            add_cross_attention=True,
            attn_implementation="eager",
        )
        self.text_encoder = BertModel(config, add_pooling_layer=False)
        for layer in self.text_encoder.encoder.layer:  # the image's width is not the text's
            for name in ("key", "value"):
                setattr(layer.crossattention.self, name, nn.Linear(128, 64))
        self.mlp = nn.ModuleDict(
            {
                "layers": nn.Sequential(
                    *(nn.Linear(64, 32), nn.Dropout(0.2), nn.Linear(32, 16), nn.Dropout(0.2)),
                    *(nn.Linear(16, 8), nn.Dropout(0.1), nn.Linear(8, 4), nn.Linear(4, 1)),
                )
            }
        )

    def published(self) -> dict[str, Tensor]:
        """Its tensors as ImageReward.pt has them: without token types, with projections that nothing uses."""
        towers = {n: v for n, v in self.state_dict().items() if "token_type" not in n and not n.startswith("mlp")}
        extra = {
            "vision_proj.weight": torch.ones(4, 128),
            "text_encoder.embeddings.position_ids": torch.arange(40)[None],
        }
        head = {name: value for name, value in self.state_dict().items() if name.startswith("mlp")}
        return {**{f"blip.{name}": value for name, value in {**towers, **extra}.items()}, **head}

    @torch.no_grad()
    def reward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """[N] from normalised pixels and tokens, every word seeing every word of the prompt."""
        both = (mask[:, None, :] * torch.ones_like(mask)[:, :, None])[:, None].to(pixels.dtype)
        hidden = self.text_encoder(
            input_ids=ids,
            attention_mask=(1 - both) * torch.finfo(pixels.dtype).min,
            encoder_hidden_states=self.visual_encoder(pixels),
            use_cache=False,
        ).last_hidden_state
        return (self.mlp["layers"](hidden[:, 0]).squeeze(1) - MEAN) / STD


@pytest.fixture
def original() -> Original:
    torch.manual_seed(7)
    model = Original().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.text_encoder.embeddings.token_type_embeddings.weight.zero_()
    return model


@pytest.fixture
def folder(original, tmp_path) -> Path:
    torch.save(original.published(), tmp_path / "ImageReward.pt")
    folder = convert_checkpoint(tmp_path / "ImageReward.pt", tmp_path / "folder")
    bert_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> ImageReward:
    return loaded(ImageReward(model=str(folder), **fields), dtype)


def test_rewards_equal_those_of_timm_and_bert_under_the_original_names(original, folder, pixels):
    referee = load(folder)
    images, conditioning = pixels(referee.input_size), referee.read(PROMPTS)
    expected = original.reward(referee.normalise(images), conditioning["ids"], conditioning["mask"])
    torch.testing.assert_close(referee.score(images, conditioning), expected, atol=1e-5, rtol=1e-5)
    assert conditioning["ids"].shape == (2, 35)
    assert (expected[0] - expected[1]).abs() > 1e-3


def test_the_loss_is_that_of_being_preferred_over_the_average_image(folder, pixels):
    referee = load(folder)
    images, conditioning, prompt_index = pixels(referee.input_size), referee.read(PROMPTS), torch.arange(2)
    p = referee.score(images, conditioning).sigmoid()
    torch.testing.assert_close(referee.judge(images, conditioning, prompt_index), -p.log())
    torch.testing.assert_close(referee.judge(images, conditioning, prompt_index, wanted=False), -(1 - p).log())


def test_it_holds_the_contract(folder, holds_the_contract):
    holds_the_contract(load(folder, torch.float64))


def test_what_a_prompt_says_beyond_35_tokens_is_reported(folder):
    referee = load(folder)
    long = "a red circle and " * 9 + "a Blue square"
    conditioning = referee.read([long, "a red circle"])
    assert conditioning.truncated[0].endswith("a Blue square")
    assert conditioning.truncated[1] == ""
    assert referee.read([long.removesuffix(conditioning.truncated[0])]).truncated == ("",)


def test_missing_corrupt_and_foreign_checkpoints_are_refused_with_the_remedy(original, folder, tmp_path):
    with pytest.raises(CheckpointError, match="refcore convert image-reward-checkpoint"):
        load(tmp_path / "nowhere")
    torch.save({"blip.visual_encoder.cls_token": torch.ones(1, 1, 4)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="is not ImageReward"):
        convert_checkpoint(tmp_path / "other.pt", tmp_path / "out")
    state = original.published()
    state.pop("blip.text_encoder.encoder.layer.1.crossattention.self.key.weight")
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"lacks text\.encoder\.layer\.1\.crossattention\.self\.key\.weight"):
        convert_checkpoint(tmp_path / "less.pt", tmp_path / "out")
    headless = {name: value for name, value in original.published().items() if not name.startswith("mlp")}
    torch.save(headless, tmp_path / "headless.pt")
    with pytest.raises(CheckpointError, match="has no rating head"):
        convert_checkpoint(tmp_path / "headless.pt", tmp_path / "out")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


@pytest.mark.usefixtures("offline")
def test_without_its_vocabulary_it_says_where_to_get_it(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="set `tokenizer` to a folder with the files of google-bert"):
        load(folder)
