"""The `clip` referee: equal to open_clip, differentiable, frozen, and clear about what it cannot load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from pydantic import ValidationError
from tiny import loaded, refusal_of
from torch import nn
from torchvision.transforms.functional import to_tensor

from refcore.checkpoints import zoo
from refcore.engine.views import resize
from refcore_plugins.models.attention import PlainAttention, write_out_attention
from refcore_plugins.referees.clip import Clip

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares", "a striped green star left of a yellow heart"]


def load(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> Clip:
    return loaded(Clip(model=f"local-dir:{folder}", **fields), dtype)


@pytest.fixture(scope="module")
def exact(clip_folder):
    """In float64, where equalities are equalities."""
    return load(clip_folder, torch.float64)


@pytest.fixture
def views():
    return torch.rand(4, 3, 16, 16, dtype=torch.float64)


@pytest.mark.parametrize("folder", ["tiny", "embedded"])
def test_scores_equal_open_clips_cosines(folder, clip_folder, photographs):
    """The same pixels give the same cosine to 1e-5; through open_clip's own 8-bit preprocessing, to 0.02."""
    folder = clip_folder if folder == "tiny" else zoo() / "clip"
    if not (folder / "open_clip_model.safetensors").is_file():
        pytest.skip("the embedded checkpoint is not there")
    referee = load(folder)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS[:2])
    images = torch.stack([resize(to_tensor(photograph)[None], referee.input_size)[0] for photograph in photographs])
    with torch.no_grad():
        text = model.encode_text(tokens, normalize=True)
        same_pixels = model.encode_image(referee.towers.normalise(images), normalize=True)
        own_pixels = model.encode_image(torch.stack([preprocess(p) for p in photographs]), normalize=True)
    score = referee.score(images, referee.read(PROMPTS[:2]))
    torch.testing.assert_close(score, (same_pixels * text).sum(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(score, (own_pixels * text).sum(-1), atol=0.02, rtol=0)


def test_the_constants_come_from_the_checkpoint(exact):
    assert exact.input_size == (16, 16)
    torch.testing.assert_close(
        exact.towers.normalise.mean.flatten(), torch.tensor([0.48, 0.46, 0.41], dtype=torch.float64)
    )
    torch.testing.assert_close(
        exact.towers.normalise.std.flatten(), torch.tensor([0.27, 0.26, 0.28], dtype=torch.float64)
    )


def test_the_loss_is_one_minus_the_score(exact, views):
    conditioning = exact.read(PROMPTS)
    prompt_index = torch.arange(3)
    score = exact.score(views[:3], conditioning)
    torch.testing.assert_close(exact.judge(views[:3], conditioning, prompt_index), 1 - score)


def test_the_spherical_loss_is_half_the_squared_angle(clip_folder, views):
    referee = load(clip_folder, torch.float64, loss="spherical")
    conditioning = referee.read(PROMPTS)
    angle = referee.score(views[:3], conditioning).acos()
    torch.testing.assert_close(referee.judge(views[:3], conditioning, torch.arange(3)), angle**2 / 2)


@pytest.mark.parametrize("loss", ["cosine", "spherical"])
def test_an_unwanted_prompt_is_pushed_away_until_it_is_absent(loss, clip_folder, views):
    conditioning = load(clip_folder, torch.float64).read(PROMPTS)
    prompt_index = torch.tensor([0, 1, 2, 0])
    cosine = load(clip_folder, torch.float64).judge(views, conditioning, prompt_index).neg() + 1
    seen = load(clip_folder, torch.float64, loss=loss, absent_below=float(cosine.min()) - 0.1)
    x = views.clone().requires_grad_()
    unwanted = seen.judge(x, conditioning, prompt_index, wanted=False)
    assert (unwanted > 0).all()
    (away,) = torch.autograd.grad(unwanted.sum(), x)
    (toward,) = torch.autograd.grad(seen.judge(x, conditioning, prompt_index).sum(), x)
    torch.testing.assert_close(away, -toward)
    absent = load(clip_folder, torch.float64, loss=loss, absent_below=float(cosine.max()) + 1e-3)
    assert (absent.judge(views, conditioning, prompt_index, wanted=False) == 0).all()


@pytest.mark.parametrize("fields", [{}, {"loss": "spherical"}])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_gradient_is_the_slope_of_the_loss(fields, wanted, clip_folder, views, slope):
    referee = load(clip_folder, torch.float64, absent_below=-0.99, **fields)
    conditioning, prompt_index = referee.read(PROMPTS), torch.tensor([2, 0, 1, 2])
    by_autograd, by_difference = slope(lambda x: referee.judge(x, conditioning, prompt_index, wanted), views)
    assert by_difference != 0
    assert by_autograd == pytest.approx(by_difference, rel=1e-6)


def test_rows_say_which_prompt_each_view_is_judged_against(exact, views):
    conditioning = exact.read(PROMPTS)
    table = torch.stack([exact.judge(views, conditioning, torch.full((4,), row)) for row in range(3)])
    prompt_index = torch.tensor([2, 0, 1, 2])
    torch.testing.assert_close(exact.judge(views, conditioning, prompt_index), table[prompt_index, torch.arange(4)])
    assert table.std(0).min() > 1e-3


def test_a_view_is_judged_alike_whatever_its_batch_mates(exact, views):
    together = exact.judge(views, exact.read(PROMPTS), torch.tensor([2, 0, 1, 2]))
    for i, row in enumerate([2, 0, 1, 2]):
        alone = exact.judge(views[i : i + 1], exact.read([PROMPTS[row]]), torch.tensor([0]))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-12, rtol=0)


def test_judging_leaves_the_weights_frozen_and_unchanged(clip_folder, views):
    referee = load(clip_folder)
    before = {name: value.clone() for name, value in referee.towers.model.state_dict().items()}
    x = views.float().requires_grad_()
    referee.judge(x, referee.read(PROMPTS), torch.tensor([0, 1, 2, 0])).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(module.training for module in referee.towers.model.modules())
    assert all(p.grad is None and not p.requires_grad for p in referee.towers.model.parameters())
    for name, value in referee.towers.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_loss_is_float32_and_close_in_bfloat16(clip_folder, views):
    prompt_index = torch.tensor([0, 1, 2, 0])
    full = load(clip_folder)
    expected = full.judge(views.float(), full.read(PROMPTS), prompt_index)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = full.judge(views.float(), full.read(PROMPTS), prompt_index)
    half = load(clip_folder, torch.bfloat16)
    low = half.judge(views.float(), half.read(PROMPTS), prompt_index)
    assert expected.dtype == mixed.dtype == low.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, atol=0.05, rtol=0)
    torch.testing.assert_close(low, expected, atol=0.05, rtol=0)


def test_what_a_prompt_says_beyond_the_context_is_reported(exact):
    """Twelve tokens, ten of them words; words past the grammar's are read letter by letter."""
    long = "a red circle, a blue square, a green star and a Striped Yellow heart"
    conditioning = exact.read(["a red circle", long])
    assert conditioning.truncated == ("", "star and a Striped Yellow heart")
    kept = exact.read([long.removesuffix(conditioning.truncated[1])])
    assert kept.truncated == ("",)
    torch.testing.assert_close(kept["text"][0], conditioning["text"][1])


def test_attention_written_out_equals_the_librarys():
    attention = nn.MultiheadAttention(16, 2, batch_first=True).double().eval()
    x, mask = torch.randn(3, 5, 16, dtype=torch.float64), torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
    for attn_mask in (None, mask):
        expected = attention(x, x, x, need_weights=False, attn_mask=attn_mask)[0]
        torch.testing.assert_close(PlainAttention(attention)(x, x, x, attn_mask=attn_mask)[0], expected)


def test_only_self_attention_is_written_out(exact):
    blocks = nn.ModuleList([ResidualAttentionBlock(16, 2, is_cross_attention=crossed) for crossed in (False, True)])
    write_out_attention(blocks)
    assert type(blocks[0].attn) is PlainAttention
    assert type(blocks[1].attn) is nn.MultiheadAttention
    assert type(exact.towers.model.visual.transformer.resblocks[1].attn) is PlainAttention


def refusal(**fields: object) -> str:
    return refusal_of(Clip(**fields))


def test_names_that_cannot_be_loaded_are_refused_with_the_remedy(tmp_path):
    assert "does not exist" in refusal(model=f"local-dir:{tmp_path}/nowhere")
    assert "has no open_clip_config.json" in refusal(model=f"local-dir:{tmp_path}")
    assert 'unknown model "ViT-B32"; did you mean' in refusal(model="ViT-B32")
    message = refusal(model="ViT-B-32")
    assert "needs `pretrained`" in message
    assert "openai" in message
    assert "got 'opnai'" in refusal(model="ViT-B-32", pretrained="opnai")


@pytest.mark.usefixtures("offline")
def test_what_is_out_of_reach_is_named_with_the_remedy():
    message = refusal(model="hf-hub:nobody/no-such-clip")
    assert '"nobody/no-such-clip" is not on this machine' in message
    assert "hf download nobody/no-such-clip" in message
    message = refusal(model="RN50", pretrained="yfcc15m")
    assert '"RN50 (yfcc15m)" is not on this machine' in message
    assert "set `pretrained` to a file" in message


def test_a_corrupt_or_foreign_checkpoint_is_refused(clip_folder, tmp_path):
    broken = shutil.copytree(clip_folder, tmp_path / "broken")
    weights = broken / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert str(broken) in refusal(model=f"local-dir:{broken}")
    assert "corrupt or belong to another model" in refusal(model=f"local-dir:{broken}")

    other = shutil.copytree(clip_folder, tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 24
    (other / "open_clip_config.json").write_text(json.dumps(config))
    assert "size mismatch" in refusal(model=f"local-dir:{other}")

    (other / "open_clip_config.json").write_text("{")
    assert "corrupt or belong to another model" in refusal(model=f"local-dir:{other}")

    weights.unlink()
    assert str(broken) in refusal(model=f"local-dir:{broken}")


def test_settings_out_of_range_are_refused():
    for fields in ({"loss": "euclidean"}, {"absent_below": 1.0}, {"modle": "x"}):
        with pytest.raises(ValidationError):
            Clip(**fields)
