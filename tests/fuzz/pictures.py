"""Image files of every kind that is met: all modes and formats, tiny, long, animated, rotated, broken, and bombs."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from fuzz.values import spoiled
from hypothesis import strategies as st
from PIL import Image

FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"),
    "JPEG": ("L", "RGB", "CMYK"),  # of sides up to 65,500
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I", "F"),
    "AVIF": ("RGB", "RGBA"),
    "ICO": ("RGBA",),
    "JPEG2000": ("L", "RGB"),
    "TGA": ("RGB",),
    "PDF": ("RGB",),
    "EPS": ("RGB",),
    "ICNS": ("RGBA",),
    "DDS": ("RGB",),
    "PCX": ("L",),
}
SIDES = (1, 2, 3, 8, 16, 63, 64, 65)
ENDS = ("png", "jpg", "webp", "tif", "bmp", "gif", "ppm", "avif", "txt", "", "svg", "PNG", "heic", "npy", "pt")


def picture(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """Noise in a mode."""
    rng = np.random.default_rng(seed)
    if mode in ("I", "F", "I;16"):
        values = rng.integers(0, 65535, (height, width))
        kinds: dict[str, Any] = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
        return Image.fromarray(values.astype(kinds[mode]))
    plain = Image.fromarray(rng.integers(0, 255, (height, width, 4), np.uint8), "RGBA")
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(plain.convert("RGB"), ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))  # type: ignore
    return plain.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else plain.convert(mode)


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    """A good file, mostly: some writers refuse some sizes."""
    kind = draw(st.sampled_from(sorted(FORMATS)))
    mode = draw(st.sampled_from(FORMATS[kind]))
    sides = st.sampled_from(SIDES)
    width, height = draw(st.one_of(st.tuples(sides, sides), st.sampled_from(((1, 20_000), (20_000, 1), (1, 65_000)))))
    image = picture(mode, width, height, draw(st.integers(0, 9)))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        exif = Image.Exif()
        exif[274] = draw(st.sampled_from((1, 2, 3, 5, 6, 8, 9, 0)))
        options["exif"] = exif
    if kind in ("GIF", "PNG", "WEBP", "TIFF") and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [image] * draw(st.sampled_from((1, 3, 50)))}
    if mode == "P" and draw(st.booleans()):
        options["transparency"] = draw(st.sampled_from((0, 200, b"\0\x80")))
    if kind == "JPEG":
        options["progressive"] = draw(st.booleans())
    if kind == "TIFF":
        more = ("jpeg",) if mode in ("L", "RGB", "CMYK") else ()  # of other modes, libtiff's writer harms the memory
        options["compression"] = draw(st.sampled_from((None, "tiff_lzw", "tiff_deflate", "packbits", *more)))
    if draw(st.integers(0, 3)) == 0:
        options["icc_profile"] = draw(st.one_of(st.just(b""), st.binary(max_size=200)))
    buffer = io.BytesIO()
    for given in (options, {}):
        try:
            buffer = io.BytesIO()
            image.save(buffer, kind, **given)
            return buffer.getvalue()
        except Exception:  # a format that does not write this mode, size or option
            continue
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def declared_png(
    width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b""
) -> bytes:
    """A PNG that claims a size, whatever its data holds."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(data or b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Files of a few kB that declare, or unfold to, gigabytes."""
    zeros = zlib.compress(b"\0" * 2**26, 9)
    profile = chunk(b"iCCP", b"x\0\0" + zeros)
    text = chunk(b"zTXt", b"Comment\0\0" + zeros) * 8
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + b"\0" * 6
    gif += b"," + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\x02\x02\x44\x01\0;"
    frames = b"," + struct.pack("<HHHH", 0, 0, 60000, 60000) + b"\0\x02\x02\x44\x01\0"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 64
    rle = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**30, 1, 1, 8, 1, 0, 0, 0, 0, 0) + b"\0" * 64
    tiff_tags = [(256, 4, 2**20), (257, 4, 2**20), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 4)]
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tiff_tags))
    tiff += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tiff_tags) + b"\0" * 4
    many = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + struct.pack("<HHII", 270, 7, 2**31, 8) + b"\0" * 4
    loop = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8)
    return {
        "declared.png": declared_png(2**31 - 1, 2**31 - 1),
        "wide.png": declared_png(2**27, 1),
        "unfolds.png": declared_png(8192, 8192, 1, 0, b"\0" * (1025 * 8192)),
        "profile.png": declared_png(4, 4, more=profile),
        "text.png": declared_png(4, 4, data=b"\0" * 52, more=text),
        "zero.png": declared_png(0, 0),
        "screen.gif": gif,
        "frames.gif": b"GIF89a" + struct.pack("<HH", 4, 4) + b"\x80\0\0" + b"\0" * 6 + frames * 3 + b";",
        "declared.bmp": bmp,
        "rle.bmp": rle,
        "declared.ppm": b"P6 99999 99999 255\n" + b"\0" * 100,
        "digits.ppm": b"P5 " + b"9" * 100_000 + b" 9 255\n",
        "ascii.pgm": b"P2 8000 8000 255\n" + b"1 " * 1000,
        "declared.tif": tiff,
        "count.tif": many,
        "loop.tif": loop,
        "vp8x.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6,
        "declared.jpg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xd9",
    }


BOMBS = bombs()


def files() -> st.SearchStrategy[bytes]:
    """Image files: half of them good, the others spoiled, of another kind, or bombs."""
    good = encoded()
    others = st.sampled_from(
        (b"", b"\0", b"<svg/>", b"%PDF-1.4", b"%!PS", b"version https://git-lfs.github.com/spec/v1")
    )
    return st.one_of(
        good, good.flatmap(spoiled), st.sampled_from(sorted(BOMBS.values())), others, st.binary(max_size=64)
    )
