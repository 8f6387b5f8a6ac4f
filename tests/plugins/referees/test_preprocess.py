"""What a referee is given equals what its model's own processor would give it, on photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from transformers import BlipImageProcessor, BlipImageProcessorPil

from refcore.engine.views import resize
from refcore_plugins.models.preprocess import Normalise

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
LEVEL = 1 / 255 / min(STD)
"""One 8-bit level after normalisation, in the channel where it is largest."""


def ours(photograph: Image.Image, size: int) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None].float() / 255
    return Normalise(MEAN, STD, torch.device("cpu"))(resize(pixels, (size, size)))


def assert_within_rounding(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Ours rounds nothing; the processors round to 8 bits, after the horizontal pass and after the vertical one.

    So pixels differ by about a level at most, and by a quarter of one on average: the mean distance to the nearest
    level. A few beside highlights and deep shadows differ by more, since the processors clamp between the passes too.
    """
    gap = (ours - theirs).abs() / LEVEL
    assert gap.mean() < 0.3
    assert (gap > 1.1).float().mean() < 0.002
    assert gap.max() < 5


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("processor", [BlipImageProcessor, BlipImageProcessorPil])
def test_pixels_equal_those_of_blips_processor_up_to_its_rounding(processor, size, photographs):
    own = processor(size={"height": size, "width": size}, image_mean=MEAN, image_std=STD)
    for photograph in photographs:
        assert_within_rounding(ours(photograph, size), own(photograph, return_tensors="pt").pixel_values)


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_pixels_equal_those_of_open_clips_transform_up_to_its_rounding(mode, size, photographs):
    own = image_transform_v2(PreprocessCfg(size=size, mean=MEAN, std=STD, resize_mode=mode), is_train=False)
    for photograph in photographs:
        assert_within_rounding(ours(photograph, size), own(photograph)[None])


def test_a_checkpoint_made_for_bilinear_resizing_sees_nearly_the_same(photographs):
    """The engine resizes for all referees alike, with the bicubic filter that most models were trained with."""
    own = image_transform_v2(
        PreprocessCfg(size=64, mean=MEAN, std=STD, resize_mode="squash", interpolation="bilinear"), is_train=False
    )
    for photograph in photographs:
        assert (ours(photograph, 64) - own(photograph)[None]).abs().mean() < 4 * LEVEL


def test_normalising_keeps_the_dtype_and_scales_gradients_by_the_std():
    views = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    normalised = Normalise(MEAN, STD, torch.device("cpu"))(views)
    normalised.sum().backward()
    assert normalised.dtype == torch.float64
    expected = (1 / torch.tensor(STD, dtype=torch.float64)).view(1, 3, 1, 1).expand_as(views)
    torch.testing.assert_close(views.grad, expected)
