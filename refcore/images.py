"""Image files to pixels and back. torch is imported on use, so that commands without tensors start at once.

Whatever a file holds is read as 8-bit sRGB: the first frame of an animation, turned as its EXIF tag says, transparent
areas on white. Colours are converted where an ICC profile is embedded, and are taken for sRGB without one. Grey values
of more than 8 bits, whole or floating-point, are scaled to 0..255 (`white_of`).
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from refcore.errors import RefcoreError
from refcore.text_files import special

if TYPE_CHECKING:
    from torch import Tensor

Levels = NDArray[np.uint8]
"""[H, W, 3], 0..255, sRGB."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
"""Formats that are read. Pillow knows forty; some of them start other programs (EPS: Ghostscript), and most of their
readers are rarely tested on hostile files."""
OTHERS: Final[dict[bytes, str]] = {
    b"%!PS": "PostScript, which only a program can draw",
    b"\xc5\xd0\xd3\xc6": "PostScript, which only a program can draw",
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML document",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a Git LFS pointer without its picture; run `git lfs pull`",
    b"8BPS": "a Photoshop document",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
}
"""First bytes of files that are met instead, and what they are."""
HEIF: Final = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
BESIDE: Final = (".json", ".svg", ".txt")
"""Endings of the files that a canvas may have written beside the image of a sample."""
MOST_PIXELS: Final = 2**26
"""Pixels of the largest image that is read, 8192 x 8192: as float32 they are 0.8 GB. Larger ones serve no referee,
which sees some hundreds of pixels a side, and a file of a few kB can hold billions of them."""
MOST_BYTES: Final = 2**30
"""Size of the largest file that is read: 16-bit RGBA of MOST_PIXELS is half of it."""
MOST_SCANS: Final = 100
"""Scans of a JPEG: a progressive one has about ten, and each is a pass over all pixels that takes few bytes."""
SCAN: Final = b"\xff\xda"
"""Marker at the start of a scan, which cannot occur inside of one."""
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and a value of the second."""
SMALLER: Final = "scale it down"
AS_PNG: Final = "convert it to an 8-bit PNG"
ROUNDED: Final = 1.01
"""A maximum up to which floating-point values are those of [0, 1], overshoot of a filter included."""
DIMMEST: Final = 1 / 16
"""Share of full scale that the maximum of undeclared values must reach for the scale to be known by it."""


def read(path: str | Path) -> Tensor:
    """The pixels of an image file as a tensor [3, H, W], float32 in [0, 1], sRGB; otherwise as `read_levels`."""
    import torch

    return torch.from_numpy(read_levels(path)).permute(2, 0, 1).float().div(255).contiguous()


def read_levels(path: str | Path) -> Levels:
    """The pixels of an image file of `FORMATS`, as the module's docstring says.

    Raises:
        RefcoreError: the file is missing, special (a pipe, a device), truncated, larger than MOST_PIXELS, of another
            format, or its colours or levels cannot be known.
    """
    with _opened(path) as file:
        file.load()
        return _levels(_upright(file))


def decode(data: bytes, what: str) -> Levels:
    """The pixels of an image in memory, such as a cell of a table; otherwise as `read_levels`.

    Args:
        data: the bytes of a file of `FORMATS`.
        what: names it in a message: 'test.parquet, row 3, "jpg_0"'.

    Raises:
        RefcoreError: as for `read_levels`, naming `what`.
    """
    with _opened(io.BytesIO(data), what=what) as file:
        file.load()
        return _levels(_upright(file))


def check(path: str | Path) -> None:
    """Reads as much of an image file as says what it is; errors as for `read_levels`."""
    with _opened(path):
        pass


def picture(png: bytes) -> Image.Image:
    """A picture that a run wrote, RGB; the bytes may come from other people's results.

    Raises:
        RefcoreError: they are no PNG, or one larger than MOST_PIXELS.
    """
    with _opened(io.BytesIO(png), ("PNG",), "a picture of the results") as file:
        return file.convert("RGB")


@contextmanager
def _opened(
    path: str | Path | io.BytesIO, formats: tuple[str, ...] = FORMATS, what: str | None = None
) -> Iterator[Image.Image]:
    """The image in a file, with what goes wrong in reading it as a RefcoreError; `what` names it there."""
    try:
        if isinstance(path, io.BytesIO):
            _refuse_size(len(path.getbuffer()))
        else:
            _refuse_special(path)
        with warnings.catch_warnings():  # Pillow's, of broken EXIF tags and of sizes that `_refuse_large` bounds
            warnings.simplefilter("ignore")
            with Image.open(path, formats=tuple(formats)) as file:
                _refuse_large(file.size)
                if file.format in ("JPEG", "MPO"):
                    _refuse_scans(path)
                with _silent() if file.format == "TIFF" else contextlib.nullcontext():
                    yield file
                return
    except UnidentifiedImageError:
        reason = "it is no PNG" if formats == ("PNG",) else _instead(path)
    except Image.DecompressionBombError:
        reason = f"it has more than {MOST_PIXELS:,} pixels; {SMALLER}"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # on a corrupt file: of every kind, RuntimeError, struct.error and KeyError among them
        reason = str(error) or type(error).__name__
    what = what or f'the image "{path}"'
    raise RefcoreError(f"cannot read {what}: {' '.join(reason.split())}")


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


def white_of(values: NDArray[Any]) -> float:
    """The value that stands for white where a file does not declare it: that of the smallest scale that holds them.

    Floating-point values up to 1 are shares of white; other values up to 255 are levels of 8 bits, and up to 65535 of
    16 bits. A maximum below 1/16 of full scale says nothing: such an image is nearly black, or in other units.

    Raises:
        ValueError: values are negative, not finite, or fit no scale.
    """
    low, high = float(values.min()), float(values.max())
    whole = np.issubdtype(values.dtype, np.integer)
    if not np.isfinite([low, high]).all():
        raise ValueError(f"it holds NaN or infinite values; {AS_PNG}")
    if low >= (0 if whole else 1 - ROUNDED):
        if not whole and high <= ROUNDED:
            return 1.0
        if high <= 255 and (whole or high >= 255 * DIMMEST):
            return 255.0
        if 65535 * DIMMEST <= high <= 65535:
            return 65535.0
    raise ValueError(
        f"its values go from {low:g} to {high:g}, which tells neither black nor white; "
        f"expected 0..1, 0..255 or 0..65535: {AS_PNG}"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing on standard error, where libtiff says in its own words what is raised as an error in any case."""
    kept = None
    with contextlib.suppress(OSError):  # closed by the caller, so that nobody would hear it
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)


def _refuse_special(path: str | Path) -> None:
    """Raises unless the path is of a regular file of a bearable size: opening a pipe waits, and a device has no end."""
    if (kind := special(path)) is not None:
        raise ValueError(f"{kind}; expected an image file")
    _refuse_size(os.stat(path).st_size)


def _refuse_size(size: int) -> None:
    """Raises for a number of bytes that no image of a bearable size has."""
    if not size:
        raise ValueError("the file is empty")
    if size > MOST_BYTES:
        raise ValueError(f"the file has {size:,} bytes, more than {MOST_BYTES:,}; {SMALLER}")


def _refuse_large(size: tuple[int, int]) -> None:
    """Raises for a size, known before anything is decoded, that memory does not bear, and for one without pixels."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, more than {MOST_PIXELS:,} in all; {SMALLER}")
    if width * height == 0:
        raise ValueError(f"it has {width} x {height} pixels; expected at least one")


def _refuse_scans(path: str | Path | io.BytesIO) -> None:
    """Raises for a JPEG whose decoding would take minutes: hundreds of scans in a file of some hundred kB."""
    if isinstance(path, io.BytesIO):
        scans = _scans(path.getvalue())
    else:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scans = _scans(data)
    if scans <= MOST_SCANS:
        return
    raise ValueError(f"it has more than {MOST_SCANS} scans; save it as a JPEG again, or {AS_PNG}")


def _scans(data: bytes | mmap.mmap) -> int:
    """Scans in the bytes of a JPEG, counted up to one more than MOST_SCANS."""
    at = -1
    for found in range(MOST_SCANS + 1):
        at = data.find(SCAN, at + 1)
        if at < 0:
            return found
    return MOST_SCANS + 1


def _instead(path: str | Path | io.BytesIO) -> str:
    """What a file is that no reader of `FORMATS` takes."""
    if isinstance(path, io.BytesIO):
        start = path.getvalue()[:512]
    else:
        with open(path, "rb") as file:
            start = file.read(512)
    found = next((what for sign, what in OTHERS.items() if start.lstrip().startswith(sign)), "")
    if start[4:8] == b"ftyp" and start[8:12] in HEIF:
        found = "an HEIC photograph"
    kinds = ", ".join(FORMATS[:-1])
    if not found:
        return (
            f"not a known image format, or a kind of it that is not read; expected {kinds} or {FORMATS[-1]}: {AS_PNG}"
        )
    return f"it is {found}; {AS_PNG}"


def _upright(file: Image.Image) -> Image.Image:
    """The image, turned and mirrored as its EXIF tag says; as it is where the tags cannot be read."""
    with contextlib.suppress(Exception):  # tags are the least reliable part of a file; viewers pass over broken ones
        ImageOps.exif_transpose(file, in_place=True)
    return file


def _levels(image: Image.Image) -> Levels:
    """An image of any of Pillow's modes as levels, with its transparent parts on white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _shallow(image)
    if not image.has_transparency_data:
        return np.array(_srgb(image, profile))
    seen = image.convert("RGBA")
    colours = _srgb(seen.convert("RGB"), profile)
    colours.putalpha(seen.getchannel("A"))
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB"))


def _shallow(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits as an 8-bit image, L, or LA where one value is declared transparent."""
    values = np.array(image)
    tags = getattr(image, "tag_v2", {}) or {}
    if image.mode.startswith("I;16"):
        white = float(2 ** (tags.get(BITS_PER_SAMPLE) or (16,))[0] - 1)
    elif image.mode == "I" and image.format == "PPM":
        white = 65535.0  # Pillow scales every maximum above 255 to it
    else:
        white = white_of(values)
    shares = np.clip(values.astype(np.float32) / white, 0, 1)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        shares = 1 - shares
    shallow = Image.fromarray(np.rint(shares * 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        shallow.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return shallow


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An opaque image as RGB, its colours converted from the profile's space; unchanged where that is sRGB.

    Raises:
        ValueError: the profile is broken, or of another kind than the image.
    """
    if not profile or image.mode == "LAB":  # which is defined without one
        return image.convert("RGB")
    from PIL import ImageCms

    target = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not _is_grey(image)):
            raise ValueError(f"it is of {space} colours, and the image is {image.mode}")
        exact = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE  # else dark greys are 9 levels off
        transform = ImageCms.buildTransform(source, target, mode, "RGB", flags=exact)
        image = image.convert(mode)
        if mode == "CMYK" or not _changes_nothing(transform, mode):
            return ImageCms.applyTransform(image, transform)  # type: ignore[return-value]
        return image.convert("RGB")
    except Exception as error:  # PyCMSError, OSError, and what a profile's own lies bring about
        reason = f"its ICC profile cannot be used ({error}); save it in sRGB, without a profile"
        raise ValueError(reason) from error


def _is_grey(image: Image.Image) -> bool:
    """Whether an image is grey, if in three equal channels: Pillow reads 16-bit grey with alpha as those."""
    channels = np.array(image.convert("RGB"))
    return bool((channels == channels[..., :1]).all())


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether a transform moves no colour of a grid by more than the level that rounding may: a profile of sRGB."""
    from PIL import ImageCms

    side = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(side, side, side), -1).reshape(1, -1, 3) if mode == "RGB" else np.arange(256)[None]
    colours = Image.fromarray(grid.astype(np.uint8))
    moved = np.array(ImageCms.applyTransform(colours, transform)).astype(int) - np.array(colours.convert("RGB"))
    return bool(abs(moved).max() <= 1)
