"""Image files that people have, each read rightly or refused in one line: every mode, depth, profile and format."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from refcore import images
from refcore.errors import RefcoreError

RAMP = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
"""[2, 256], every level."""
COLOURS = np.stack([RAMP, 255 - RAMP, np.roll(RAMP, 64, 1)], -1)
GREY = RAMP[..., None].repeat(3, -1)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
"""Red, green and blue of Display P3 as XYZ under D50."""
SRGB_CURVE = b"para\0\0\0\0\0\3\0\0" + b"".join(
    struct.pack(">i", round(x * 65536)) for x in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
)
LINEAR = b"curv\0\0\0\0\0\0\0\0"


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 4, of the tags (ICC.1:2022, clauses 7 and 10)."""
    tags = {
        b"desc": b"mluc\0\0\0\0\0\0\0\1\0\0\0\x0cenUS\0\0\0\2\0\0\0\x1c\0x\0\0",
        b"cprt": b"mluc\0\0\0\0\0\0\0\1\0\0\0\x0cenUS\0\0\0\2\0\0\0\x1c\0x\0\0",
        b"wtpt": xyz(0.9642, 1, 0.82491),
        **tags,
    }
    at, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", at + len(data), len(value))
        data += value
    header = struct.pack(">I4sI4s4s4s", at + len(data), b"\0" * 4, 0x04000000, b"mntr", space, pcs) + b"\0" * 12
    header += b"acsp" + b"\0" * 28 + xyz(0.9642, 1, 0.82491)[8:] + b"\0" * 48
    return header + struct.pack(">I", len(tags)) + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def display_p3() -> bytes:
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), SRGB_CURVE)
    return profile(b"RGB ", {name: xyz(*P3[i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))} | curves)


def print_profile() -> bytes:
    """CMYK whose full cyan is a middle grey (L* = 50), and every other ink black: a table that no formula gives."""
    inks = np.zeros((2, 2, 2, 2, 3), np.uint8)
    inks[..., 1:] = 128
    inks[0, 0, 0, 0, 0], inks[1, 0, 0, 0, 0] = 255, 128
    same = bytes(range(256))
    matrix = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    table = b"mft1\0\0\0\0\4\3\2\0" + matrix + same * 4 + inks.tobytes() + same * 3
    return profile(b"CMYK", {b"A2B0": table}, b"Lab ")


def saved(path: Path, pixels: np.ndarray | Image.Image, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


DEEP = {
    "16-bit.png": RAMP.astype(np.uint16) * 257,
    "16-bit-little.tif": RAMP.astype(np.uint16) * 257,
    "16-bit-big.tif": (RAMP.astype(np.uint16) * 257).astype(">u2"),
    "16-bit.pgm": RAMP.astype(np.uint16) * 257,
    "int32-of-bytes.tif": RAMP.astype(np.int32),
    "int32-of-words.tif": RAMP.astype(np.int32) * 257,
    "float-to-1.tif": RAMP.astype(np.float32) / 255,
    "float-to-255.tif": RAMP.astype(np.float32),
    "float-to-65535.tif": RAMP.astype(np.float32) * 257,
}


@pytest.mark.fault("3.1")
@pytest.mark.parametrize("name", DEEP)
def test_grey_of_more_than_8_bits_keeps_its_levels(tmp_path: Path, name: str) -> None:
    assert (images.read_levels(saved(tmp_path / name, DEEP[name])) == GREY).all()


@pytest.mark.fault("3.1")
def test_what_a_tiff_declares_of_its_levels_is_followed(tmp_path: Path) -> None:
    inverted = saved(tmp_path / "inverted.tif", Image.fromarray(RAMP.astype(np.uint16) * 257), tiffinfo={262: 0})
    with Image.open(inverted) as file:
        assert file.tag_v2[262] == 0
    assert (images.read_levels(inverted) == 255 - GREY).all()
    # 12 bits: two values of three bytes, 0xfff and 0x800
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 1)]
    entries += [(279, 4, 3)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    whole = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\0\0" + struct.pack("<H", len(entries)) + directory + b"\0" * 4
    (tmp_path / "12-bit.tif").write_bytes(whole)
    assert images.read_levels(tmp_path / "12-bit.tif")[0, :, 0].tolist() == [255, 128]


@pytest.mark.fault("3.1")
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (RAMP.astype(np.int32) * 10**5, "its values go from 0 to 2.55e+07"),
        (RAMP.astype(np.int32) - 1, "its values go from -1 to 254"),
        (RAMP.astype(np.float32) / 64, "its values go from 0 to 3.98438"),
        (RAMP.astype(np.float32) * 4, "its values go from 0 to 1020"),
        (np.full((2, 2), np.nan, np.float32), "it holds NaN or infinite values"),
    ],
)
def test_levels_whose_scale_nothing_tells_are_refused(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    told = refused(saved(tmp_path / "deep.tif", values))
    assert reason in told
    assert "convert it to an 8-bit PNG" in told


def test_overshoot_of_a_filter_is_not_taken_for_another_scale(tmp_path: Path) -> None:
    values = np.array([[-0.005, 0.5, 1.005]], np.float32)
    assert images.read_levels(saved(tmp_path / "f.tif", values))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("name", "mode", "near"),
    [
        ("one.png", "1", 0),
        ("grey.png", "L", 0),
        ("grey.webp", "L", 0),
        ("rgb.png", "RGB", 0),
        ("rgb.bmp", "RGB", 0),
        ("rgb.ppm", "RGB", 0),
        ("rgb.tif", "RGB", 0),
        ("cmyk.tif", "CMYK", 1),
        ("ycbcr.tif", "YCbCr", 2),
    ],
)
def test_every_mode_shows_its_colours(tmp_path: Path, name: str, mode: str, near: int) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    # Pillow 12.3 reads uncompressed YCbCr in TIFF with a byte too many for each pixel, and finds the file cut off.
    options = {"webp": {"lossless": True}, "ycbcr.tif": {"compression": "tiff_adobe_deflate"}}
    found = images.read_levels(saved(tmp_path / name, image, **options.get(name, options.get(name[-4:], {}))))
    assert found.shape == (2, 256, 3)
    assert abs(found.astype(int) - np.array(image.convert("RGB"))).max() <= near


def test_lab_is_read(tmp_path: Path) -> None:
    mild = np.array([[[200, 120, 90], [90, 140, 160], [128, 128, 128]]], np.uint8)
    lab = ImageCms.profileToProfile(
        Image.fromarray(mild), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert abs(images.read_levels(saved(tmp_path / "lab.tif", lab)).astype(int) - mild).max() <= 3


def test_sixteen_bits_a_channel_are_read_within_a_level(tmp_path: Path) -> None:
    wide = COLOURS.astype(">u2") * 257
    chunk = b"".join(b"\0" + row.tobytes() for row in wide)
    (tmp_path / "rgb48.png").write_bytes(png_of(256, 2, 16, 2, chunk))
    assert abs(images.read_levels(tmp_path / "rgb48.png").astype(int) - COLOURS).max() <= 1
    (tmp_path / "rgb48.tif").write_bytes(tiff_of(COLOURS.astype("<u2") * 257))
    assert abs(images.read_levels(tmp_path / "rgb48.tif").astype(int) - COLOURS).max() <= 1


def png_of(width: int, height: int, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of unfiltered rows, by the specification's chunks (W3C, clause 11)."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    clear = chunk(b"tRNS", extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + head + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of(pixels: np.ndarray) -> bytes:
    """A little-endian RGB TIFF of 16 bits a channel in one strip."""
    height, width, _ = pixels.shape
    data = pixels.tobytes()
    depths = 8 + len(data)
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, depths), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", depths + 6) + data + struct.pack("<HHH", 16, 16, 16) + directory + b"\0" * 4


@pytest.mark.fault("3.1")
def test_transparent_parts_lie_on_white_in_every_mode(tmp_path: Path) -> None:
    half = np.dstack([np.full((1, 2), 100, np.uint8), np.array([[0, 255]], np.uint8)])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([100, 100, 100] * 256)
    files = [
        saved(tmp_path / "la.png", Image.fromarray(half)),
        saved(tmp_path / "rgba.webp", Image.fromarray(half).convert("RGBA"), lossless=True),
        saved(tmp_path / "p.png", palette, transparency=0),
        saved(tmp_path / "p-alphas.png", palette, transparency=bytes([0, 255])),
        saved(tmp_path / "p.gif", palette, transparency=0),
    ]
    (tmp_path / "grey-key.png").write_bytes(png_of(2, 1, 8, 0, b"\0\7\x64", b"\0\7"))
    (tmp_path / "deep-key.png").write_bytes(png_of(2, 1, 16, 0, b"\0\7\7" + b"\x64\x64", b"\7\7"))
    (tmp_path / "deep-alpha.png").write_bytes(png_of(2, 1, 16, 4, b"\0" + b"\x64\x64\0\0" + b"\x64\x64\xff\xff"))
    for path in [*files, *(tmp_path / name for name in ("grey-key.png", "deep-key.png", "deep-alpha.png"))]:
        assert images.read_levels(path).tolist() == [[[255] * 3, [100] * 3]], path.name


@pytest.mark.fault("3.2")
@pytest.mark.parametrize("name", ["p3.png", "p3.jpg", "p3.tif", "p3.webp", "p3.avif", "alpha.png", "palette.png"])
def test_display_p3_becomes_srgb(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (16, 16), (234, 51, 35))
    image = image.quantize(2) if name == "palette.png" else image.convert("RGBA" if name == "alpha.png" else "RGB")
    lossless = {
        "p3.webp": {"lossless": True},
        "p3.jpg": {"quality": 100, "subsampling": 0},
        "p3.avif": {"quality": 100},
    }
    path = saved(tmp_path / name, image, icc_profile=display_p3(), **lossless.get(name, {}))
    near = 1 if name not in ("p3.jpg", "p3.avif") else 6
    assert abs(images.read_levels(path).astype(int) - (255, 0, 0)).max() <= near


@pytest.mark.fault("3.2")
def test_grey_and_cmyk_profiles_are_followed(tmp_path: Path) -> None:
    linear = profile(b"GRAY", {b"kTRC": LINEAR})
    right = np.where(RAMP / 255 > 0.0031308, 1.055 * (RAMP / 255) ** (1 / 2.4) - 0.055, 12.92 * RAMP / 255) * 255
    deep = RAMP.astype(np.uint16) * 257
    for name, pixels in (
        ("l.png", RAMP),
        ("rgb.png", GREY),
        ("deep.png", deep),
        ("la.png", np.dstack([RAMP, 0 * RAMP + 255])),
    ):
        found = images.read_levels(saved(tmp_path / name, pixels, icc_profile=linear))
        assert abs(found - right[..., None]).max() <= 1.5, name
    inks = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    found = images.read_levels(saved(tmp_path / "inks.tif", inks, icc_profile=print_profile()))
    assert abs(found.astype(int) - 119).max() <= 2  # L* = 50


@pytest.mark.fault("3.2")
def test_a_profile_of_srgb_changes_no_level(tmp_path: Path) -> None:
    assert (images.read_levels(saved(tmp_path / "srgb.png", COLOURS, icc_profile=SRGB)) == COLOURS).all()


@pytest.mark.fault("3.2")
@pytest.mark.parametrize(
    ("pixels", "broken"),
    [(COLOURS, b"no profile" * 20), (COLOURS, SRGB[:200]), (COLOURS, profile(b"GRAY", {b"kTRC": LINEAR})),
     (COLOURS, print_profile()), (COLOURS, profile(b"RGB ", {}))],
)  # fmt: skip
def test_a_profile_that_is_broken_or_of_another_kind_is_refused(tmp_path: Path, pixels, broken: bytes) -> None:
    told = refused(saved(tmp_path / "icc.png", pixels, icc_profile=broken))
    assert "its ICC profile cannot be used" in told
    assert told.endswith("save it in sRGB, without a profile")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_all_eight_orientations_are_turned_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    """The tag says at which sides of the picture row 0 and column 0 of the stored one are (Exif 3.0, 4.6.4.1)."""
    up = np.zeros((32, 48, 3), np.uint8)
    up[:16, :16] = 255  # the corner of top and left
    stored = {
        1: up, 2: up[:, ::-1], 3: up[::-1, ::-1], 4: up[::-1], 5: up.swapaxes(0, 1), 6: np.rot90(up, 1),
        7: up[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(up, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"turned.{kind}", np.ascontiguousarray(stored), exif=exif)
    found = images.read_levels(path)
    assert found.shape == up.shape
    assert abs(found.astype(int) - up)[4:12, 4:12].max() <= 8
    assert abs(found.astype(int) - up).mean() < 8


def test_broken_exif_leaves_an_image_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "exif.jpg", GREY, quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert images.read_levels(path).shape == GREY.shape


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    assert abs(images.read_levels(path).astype(int) - (255, 0, 0)).max() <= 4


def test_the_smallest_image_and_long_thin_ones_are_read(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 4000), (4000, 1)):
        assert images.read_levels(saved(tmp_path / "thin.png", Image.new("RGB", size))).shape == (*size[::-1], 3)


@pytest.mark.fault("5.6")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    for side, said in ((10_000, "10000 x 10000 pixels, more than 67,108,864"), (60_000, "more than 67,108,864 pixels")):
        (tmp_path / "bomb.png").write_bytes(png_of(side, side, 1, 0, b"\0"))
        assert said in refused(tmp_path / "bomb.png")
    with open(tmp_path / "sparse.tif", "wb") as file:
        file.truncate(images.MOST_BYTES + 1)
    assert "the file has 1,073,741,825 bytes" in refused(tmp_path / "sparse.tif")


@pytest.mark.fault("5.6")
def test_a_jpeg_of_hundreds_of_scans_is_refused_and_a_progressive_one_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "progressive.jpg", GREY, progressive=True, quality=100)
    assert abs(images.read_levels(path).astype(int) - GREY).max() <= 3
    whole = path.read_bytes()
    assert whole.count(images.SCAN) == 10
    last = whole[whole.rindex(images.SCAN) : -2]
    path.write_bytes(whole[:-2] + last * 91 + whole[-2:])
    assert "it has more than 100 scans" in refused(path)


@pytest.mark.fault("5.6")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.png").touch()
    for path, said in (
        (tmp_path / "pipe", "it is a pipe"), ("/dev/zero", "it is a device"), (tmp_path, "it is a folder"),
        (tmp_path / "empty.png", "the file is empty"), ("", "No such file"), ("a\0b", "null"),
    ):  # fmt: skip
        assert said in refused(path)


@pytest.mark.fault("5.8")
@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is PostScript"),
        (b"%PDF-1.7\n", "it is a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is an HEIC photograph"),
        (b'\n <svg xmlns="http://www.w3.org/2000/svg"/>', "it is an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        (b"8BPS\0\1", "it is a Photoshop document"),
        (b"words", "not a known image format"),
    ],
)
def test_other_formats_are_named_and_no_reader_of_theirs_is_started(tmp_path: Path, start: bytes, said: str) -> None:
    (tmp_path / "picture.png").write_bytes(start)
    told = refused(tmp_path / "picture.png")
    assert said in told
    assert told.endswith(images.AS_PNG)


@pytest.mark.fault("5.10")
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "bmp", "gif", "ppm", "avif"])
def test_corrupt_files_of_every_format_are_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, format=kind, **({"exif": b""} if kind == "avif" else {}))
    whole, random = buffer.getvalue(), np.random.default_rng(0)
    path = tmp_path / f"corrupt.{kind}"
    for turn in range(60):
        data = bytearray(whole)
        if turn % 2:
            data = data[: 1 + len(data) * turn // 60]
        else:
            for at in random.integers(0, len(data), 1 + turn // 6):
                data[at] = random.integers(256)
        path.write_bytes(data)
        said = ""
        try:
            assert images.read_levels(path).ndim == 3
        except RefcoreError as error:
            said = str(error)
        assert not said or said.startswith(f'cannot read the image "{path}": ')
        assert "\n" not in said


def test_no_warning_of_pillow_reaches_the_reader(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.png", Image.fromarray(RAMP).convert("P"), transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.read_levels(path)


def refused(path: str | Path) -> str:
    with pytest.raises(RefcoreError) as told:
        images.read_levels(path)
    line = str(told.value)
    assert line.startswith(f'cannot read the image "{path}": ')
    assert "\n" not in line
    return line


def test_a_broken_tiff_ends_in_one_line_and_libtiff_says_nothing_beside_it(tmp_path: Path, capfd) -> None:
    path = saved(tmp_path / "image.tif", COLOURS, compression="tiff_lzw")
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + b"\xff" * 40 + whole[48:])
    with pytest.raises(RefcoreError):
        images.read(path)
    assert capfd.readouterr().err == ""
    os.write(2, b"and now it is heard again\n")
    assert capfd.readouterr().err == "and now it is heard again\n"


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_bytes_in_memory_are_read_as_the_same_bytes_in_a_file(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / f"image.{kind}", COLOURS)
    assert (images.decode(path.read_bytes(), "a cell") == images.read_levels(path)).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"words", "not a known image format"),
        (b"%PDF-1.7\n", "it is a PDF document"),
        (png_of(2**16, 2**16, 8, 2, b""), "more than 67,108,864 pixels"),
    ],
)
def test_bytes_that_are_no_bearable_image_are_refused_by_the_name_of_their_cell(data: bytes, said: str) -> None:
    with pytest.raises(RefcoreError) as told:
        images.decode(data, 'test.parquet, row 3, "jpg_0"')
    assert str(told.value).startswith('cannot read test.parquet, row 3, "jpg_0": ')
    assert said in str(told.value)


def test_a_jpeg_in_memory_with_hundreds_of_scans_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "image.jpg", COLOURS).read_bytes()
    with pytest.raises(RefcoreError, match=f"more than {images.MOST_SCANS} scans"):
        images.decode(whole[:-2] + images.SCAN * (images.MOST_SCANS + 1) + whole[-2:], "a cell")
