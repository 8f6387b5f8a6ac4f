"""Image files to pixels and back. torch is imported on use, so that commands without tensors start at once."""

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
    """The pixels of an image file as a tensor [3, H, W], float32 in [0, 1], sRGB; otherwise as `read_levels`."""
    import torch

    return torch.from_numpy(read_levels(path)).permute(2, 0, 1).float().div(255).contiguous()


def read_levels(path: str | Path) -> Levels:
    """The pixels of an image file, rotated by its EXIF tag, with transparent areas on white.

    Raises:
        RefcoreError: the file is missing, truncated, or not an image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise RefcoreError(f'cannot read the image "{path}": not a known image format') from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RefcoreError(f'cannot read the image "{path}": {reason}') from error


def levels(pixels: Tensor) -> Levels:
    """Pixels [3, H, W] as levels: clamped to [0, 1] and rounded to the nearest; non-finite values become 0."""
    import torch

    finite = torch.nan_to_num(pixels.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
    return finite.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def png(levels: Levels) -> bytes:
    """The image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
