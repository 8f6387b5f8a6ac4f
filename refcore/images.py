"""Image files to pixels and back. torch is imported on use, so that a command which needs no tensor starts at once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from refcore.errors import RefcoreError

if TYPE_CHECKING:
    from torch import Tensor

Levels = NDArray[np.uint8]
"""[H, W, 3], 0..255, sRGB."""


def read(path: str | Path) -> Tensor:
    """[3, H, W] float32 in [0, 1], sRGB; otherwise as `read_levels`."""
    import torch

    return torch.from_numpy(read_levels(path)).permute(2, 0, 1).float().div(255).contiguous()


def read_levels(path: str | Path) -> Levels:
    """The pixels of an image file, turned upright by its EXIF tag; what is transparent is laid on white.

    Raises:
        RefcoreError: the file is missing, cut short, or no image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise RefcoreError(f'cannot read the image "{path}": it is in no image format that is known') from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RefcoreError(f'cannot read the image "{path}": {reason}') from error


def levels(pixels: Tensor) -> Levels:
    """[3, H, W] floats as levels: clamped to [0, 1] and rounded to the nearest; what is not finite becomes black."""
    import torch

    finite = torch.nan_to_num(pixels.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
    return finite.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def png(levels: Levels) -> bytes:
    """The PNG file of an image."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
