"""Decoding with limits, one normal form, square fits, contact sheets and PNG text."""

import base64
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from jedi_diffusion.errors import OutputError, PictureError, UsageError
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.pictures import (
    check_pixels,
    contact_sheet,
    fit_square,
    open_layer,
    open_mask,
    open_picture,
    picture_size,
    pictures_in,
    read_parameters,
    save_png,
    wrap,
)

COLORS = [[(200, 40, 40), (40, 200, 40)], [(40, 40, 200), (200, 200, 40)], [(40, 200, 200), (200, 40, 200)]]


def six_fields() -> Image.Image:
    """2 x 3 fields of 16 pixels, every one of another colour: shows any rotation or flip."""
    return Image.fromarray(np.array(COLORS, dtype=np.uint8).repeat(16, 0).repeat(16, 1))


def encoded(picture: Image.Image, kind: str, **settings: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **settings)
    return data.getvalue()


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: 8-bit gray, the chunks given between header and end."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = b""
    for kind, data in (header, *chunks, (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_all_formats_give_the_same_picture(kind: str, tmp_path: Path) -> None:
    settings = (
        {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    )
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(encoded(six_fields(), kind, **settings))
    picture = open_picture(path)
    assert picture.size == (32, 48)
    assert picture.info == {}
    assert np.abs(pixels(picture) - pixels(six_fields())).max() <= (6 if kind == "JPEG" else 0)
    assert (pixels(open_picture(path.read_bytes())) == pixels(picture)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """Stored as a camera would: the inverse of what its EXIF orders."""
    orders = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = six_fields()
    for order in orders.get(orientation, []):
        stored = stored.transpose(order)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, settings in (
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    ):
        picture = open_picture(encoded(stored, kind, exif=exif, **settings))
        assert np.abs(pixels(picture) - pixels(six_fields())).max() <= 6


def test_cmyk_and_other_spaces() -> None:
    for kind in ("JPEG", "TIFF"):
        for color in ((255, 255, 255), (0, 160, 40)):
            picture = open_picture(encoded(Image.new("RGB", (8, 8), color).convert("CMYK"), kind))
            assert np.abs(pixels(picture) - color).max() <= 6
    lab = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (150, 140, 90)])
    assert np.ptp(pixels(open_picture(encoded(lab, "TIFF")))[0, 0]) > 10
    gray = open_picture(encoded(Image.linear_gradient("L"), "PNG"))
    assert (pixels(gray) == np.arange(256)[:, None, None]).all()


def linear_light_profile(called: str = "linear light", gray: bool = False) -> bytes:
    """An ICC profile by hand: sRGB's primaries (D50-adapted) or gray, values proportional to light."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    name = called.encode() + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249),
    }
    primaries = {
        b"rXYZ": b"XYZ " + bytes(4) + fixed(0.4360, 0.2225, 0.0139),
        b"gXYZ": b"XYZ " + bytes(4) + fixed(0.3851, 0.7169, 0.0971),
        b"bXYZ": b"XYZ " + bytes(4) + fixed(0.1431, 0.0606, 0.7141),
    } | {tag: b"curv" + bytes(8) for tag in (b"rTRC", b"gTRC", b"bTRC")}
    tags |= {b"kTRC": b"curv" + bytes(8)} if gray else primaries
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(data), len(content))
        data += content
    size = start + len(data)
    header = (
        struct.pack(">II", size, 0)
        + b"\x02\x10\0\0"
        + b"mntr"
        + (b"GRAY" if gray else b"RGB ")
        + b"XYZ "
        + bytes(12)
        + b"acsp"
    )
    header += bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + table + data


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colours_are_converted_by_the_icc_profile(kind: str) -> None:
    settings = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(six_fields(), kind, icc_profile=linear_light_profile(), **settings)
    light = np.asarray(six_fields()) / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(pixels(open_picture(data)) - expected).max() <= 2
    # The reference picture itself is far from that.
    assert np.abs(pixels(six_fields()) - expected).max() > 50


def test_profiles_count_in_every_mode_and_under_every_name() -> None:
    gray = Image.new("L", (8, 8), 64)
    clear = Image.new("L", (8, 8), 255)
    clear.putpixel((0, 0), 0)
    color = Image.new("RGB", (8, 8), (64, 128, 200))
    layer = color.copy()
    layer.putalpha(clear)
    rgb, single = linear_light_profile("sRGB-elle-V2-g10.icc"), linear_light_profile(gray=True)
    wide = Image.fromarray(np.full((8, 8), 64 * 257, np.uint16))
    cases = [(each, rgb, (137, 188, 229)) for each in (color, color.quantize(4), layer)]
    cases += [(gray, rgb, (137,) * 3), (wide, single, (137,) * 3), (gray, single, (137,) * 3)]
    cases += [(Image.merge("LA", (gray, clear)), each, (137,) * 3) for each in (rgb, single)]
    for picture, profile, expected in cases:
        data = encoded(picture, "PNG", icc_profile=profile)
        for opened in (open_picture(data), open_layer(data)):
            shown = np.asarray(opened).astype(int)[4, 4, :3]
            assert np.abs(shown - expected).max() <= 2, (picture.mode, expected)
        if "A" in picture.getbands():
            assert (pixels(open_picture(data))[0, 0] == 255).all()
            assert np.asarray(open_layer(data))[0, 0, 3] == 0


def test_16_bits_are_converted_before_eight_are_dropped() -> None:
    dark = Image.fromarray(np.arange(0, 2048, 2, dtype=np.uint16)[None].repeat(4, 0))
    shades = pixels(open_picture(encoded(dark, "PNG", icc_profile=linear_light_profile(gray=True))))
    assert len(np.unique(shades)) > 40  # of 8 values that eight linear bits have here


def test_pictures_in_srgb_stay_as_they_are() -> None:
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for picture in (six_fields(), six_fields().convert("L"), Image.linear_gradient("L").convert("RGB")):
        data = encoded(picture, "PNG", icc_profile=plain)
        assert np.array_equal(pixels(open_picture(data)), pixels(picture.convert("RGB")))


def subject_on(ground: int, subject: int) -> np.ndarray:
    values = np.full((8, 8), ground, np.uint8)
    values[2:5, 1:7] = subject
    return values


CLEAR_CORNER = Image.new("L", (8, 8), 255)
CLEAR_CORNER.putpixel((0, 0), 0)
MASKS = {
    "gray": Image.fromarray(subject_on(0, 255)),
    "0 and 1": Image.fromarray(subject_on(0, 1)),
    "bits": Image.fromarray(subject_on(0, 255)).convert("1"),
    "16 bits": Image.fromarray(subject_on(0, 255).astype(np.uint16) * 257),
    "16 bits, 0 and 1": Image.fromarray(subject_on(0, 1).astype(np.uint16)),
    "white on clear": Image.merge("LA", [Image.fromarray(subject_on(0, 255))] * 2),
    "cut out": Image.merge("LA", (Image.fromarray(subject_on(9, 90)), Image.fromarray(subject_on(0, 255)))),
    "clear corner": Image.merge("LA", (Image.fromarray(subject_on(0, 255)), CLEAR_CORNER)),
    "palette": Image.fromarray(subject_on(0, 90)).convert("RGB").quantize(2),
}


@pytest.mark.parametrize("form", MASKS)
def test_masks_are_255_on_the_subject_whatever_their_form(form: str) -> None:
    mask = open_mask(encoded(MASKS[form], "PNG", icc_profile=linear_light_profile()))
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), subject_on(0, 255))


def test_soft_masks_stay_soft_and_empty_ones_empty() -> None:
    ramp = Image.linear_gradient("L")
    assert np.array_equal(np.asarray(open_mask(encoded(ramp, "PNG"))), np.asarray(ramp))
    assert open_mask(encoded(Image.new("L", (4, 4)), "PNG")).getextrema() == (0, 0)
    assert open_mask(encoded(Image.new("RGBA", (4, 4)), "PNG")).getextrema() == (0, 0)


@pytest.mark.parametrize("name", ["0.jfif", "0.JPE", "0.mpo", "0.avif"])
def test_other_endings_of_what_cameras_write_are_read(tmp_path: Path, name: str) -> None:
    kind = {"avif": "AVIF", "mpo": "MPO"}.get(name[2:], "JPEG")
    six_fields().save(tmp_path / name, kind, quality=95)
    (path,) = pictures_in(tmp_path)
    assert np.abs(pixels(open_picture(path)) - pixels(six_fields())).mean() < 6


HEIC = """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJp
bG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAADkAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAAB
AAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEA
AQArQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqSSmubgIaAggAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0AAYAA
AAAUaXNwZQAAAAAAAABAAAAAQAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAEFtZGF0AAAANSgBrxOAeNZT
VEf//sQ9b/u92f+xOUCtf/+mWKP5akn/3zWQG7M+NeoNy7Qvo2D6BDkv/LJg
"""
"""64 x 64 pixels, the upper half red, the lower blue."""


def test_heic_is_read_where_its_package_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    (tmp_path / "IMG_1.HEIC").write_bytes(base64.b64decode(HEIC))
    (path,) = pictures_in(tmp_path)
    shown = pixels(open_picture(path))
    assert np.abs(shown[[8, 56], 8] - [(200, 40, 40), (40, 40, 200)]).max() <= 3


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jedi_diffusion.pictures._reads_heif", lambda: False)
    with pytest.raises(PictureError, match=r"IMG_1 is a HEIC picture.*pip install 'jedi-diffusion\[heic\]'"):
        open_picture(base64.b64decode(HEIC), "IMG_1")


def test_a_50_megapixel_photo_is_read() -> None:
    check_pixels((8160, 6144), "photo")
    with pytest.raises(PictureError, match="60 megapixels"):
        check_pixels((8160, 8160), "photo")


def test_a_profile_leaves_transparency_alone() -> None:
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    half.info["icc_profile"] = linear_light_profile()
    assert np.abs(pixels(fit_square(half, 8)) - 127).max() <= 1


@pytest.mark.parametrize("profile", [b"no profile", linear_light_profile()[:200]])
def test_an_unusable_profile_is_left_aside(profile: bytes) -> None:
    data = encoded(six_fields(), "PNG", icc_profile=profile)
    assert np.array_equal(pixels(open_picture(data)), pixels(six_fields()))


def test_16_bit_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(4, 0)
    for kind in ("PNG", "TIFF"):
        picture = open_picture(encoded(Image.fromarray(ramp), kind))
        assert (pixels(picture)[..., 0] == ramp >> 8).all()


def test_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    for name, values in (
        ("float.tif", np.ones((4, 4), np.float32)),
        ("int.tif", np.full((4, 4), 10**6, np.int32)),
    ):
        path = tmp_path / name
        path.write_bytes(encoded(Image.fromarray(values), "TIFF"))
        with pytest.raises(PictureError, match=name):
            open_picture(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_comes_out_white(mode: str) -> None:
    picture = Image.new("RGBA", (4, 1), (100, 100, 100, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    if mode == "P":
        picture = picture.convert("RGB").quantize(4)
        picture.info["transparency"] = picture.getpixel((0, 0))
        settings = {"transparency": picture.getpixel((0, 0))}
    else:
        picture, settings = picture.convert(mode), {}
    result = pixels(open_picture(encoded(picture, "PNG", **settings)))
    assert (result[0, 0] == 255).all()
    assert (result[0, 1:] == 100).all()


def test_half_transparent_mixes_with_white() -> None:
    picture = open_picture(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG"))
    assert np.abs(pixels(picture) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    settings = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **settings)
    assert (pixels(open_picture(data)) == (255, 0, 0)).all()


def test_large_jpegs_are_decoded_at_a_reduced_scale() -> None:
    picture = open_picture(encoded(Image.new("RGB", (4200, 4400), (10, 120, 200)), "JPEG"))
    assert picture.size == (2100, 2200)


def test_broken_metadata_does_not_refuse_a_picture() -> None:
    data = encoded(six_fields(), "JPEG", exif=b"Exif\x00\x00II*\x00garbage and more garbage")
    assert open_picture(data).size == (32, 48)


# Faults 5, 6, 7


def test_pixel_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    for side in (50_000, 9_000):
        path = tmp_path / f"bomb{side}.png"
        path.write_bytes(png(side, side, (b"IDAT", zlib.compress(bytes(100_000)))))
        with pytest.raises(PictureError, match=rf"bomb{side}.*megapixels"):
            open_picture(path)


def test_pixel_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000, (b"IDAT", zlib.compress(bytes(10_000_000)))))
    script = (
        "import resource, sys\nfrom jedi_diffusion.pictures import open_picture\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "try: open_picture(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    kind, kilobytes = done.stdout.split()
    assert kind == "PictureError"
    assert int(kilobytes) < 50_000


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
@pytest.mark.parametrize("position", ["before", "after"])
def test_text_chunk_bomb_is_refused(kind: bytes, position: str, tmp_path: Path) -> None:
    text = zlib.compress(bytes(100_000_000))
    chunk = (kind, b"Comment\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0") + text)
    data = (b"IDAT", zlib.compress(bytes(5 * 4)))
    path = tmp_path / "bomb.png"
    path.write_bytes(png(4, 4, *((chunk, data) if position == "before" else (data, chunk))))
    with pytest.raises(PictureError, match=r"bomb\.png"):
        open_picture(path)


@pytest.mark.parametrize("kind", ["PPM", "PCX", "ICO", "SGI", "TGA", "EPS"])
def test_other_formats_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"  # the name does not help
    path.write_bytes(encoded(six_fields(), kind))
    with pytest.raises(
        PictureError, match=r"picture\.png is not a picture in one of the accepted formats \(PNG"
    ):
        open_picture(path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    cases = {"empty.png": b"", "words.jpg": b"this is not a picture", "zeros.png": bytes(1000)}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = encoded(noise, kind)
        cases[f"truncated.{kind.lower()}"] = whole[: len(whole) * 2 // 3]
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(PictureError) as caught:
            open_picture(path)
        assert name in str(caught.value)
    for path in (tmp_path / "missing.png", tmp_path, Path("/dev/null")):
        with pytest.raises(PictureError, match="is not a file"):
            open_picture(path)
    with pytest.raises(PictureError, match="uploaded picture"):
        open_picture(b"")


# Square fits


def test_crop_takes_the_centre_undistorted() -> None:
    wide = Image.new("RGB", (90, 30), "white")
    wide.paste((200, 0, 0), (30, 0, 60, 30))
    assert (pixels(fit_square(wide, 30)) == (200, 0, 0)).all()
    tall = fit_square(wide.transpose(Image.Transpose.ROTATE_90), 60, "crop")
    assert tall.size == (60, 60)
    assert (pixels(tall)[8:-8, 8:-8] == (200, 0, 0)).all()


def test_pad_keeps_all_undistorted() -> None:
    fitted = pixels(fit_square(Image.new("RGB", (300, 100), (200, 0, 0)), 60, "pad"))
    assert (fitted[20:40] == (200, 0, 0)).all()
    assert (fitted[:20] == 255).all()
    assert (fitted[40:] == 255).all()


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (7, 3)])
def test_extreme_shapes_fit(size: tuple[int, int], fit: str) -> None:
    assert fit_square(Image.new("RGB", size, "red"), 32, fit).size == (32, 32)


def test_unknown_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="stretch"):
        fit_square(six_fields(), 8, "stretch")


# Contact sheets


def test_contact_sheet_shows_every_picture_and_label() -> None:
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (300, 200), "blue")
    sheet = contact_sheet([[(red, "a"), (blue, "b")], [None, (red, "a robot " * 30)]], cell=128, title="Two")
    counted = {color: count for count, color in sheet.getcolors(1 << 24)}
    assert counted[(255, 0, 0)] == 2 * 128 * 128
    assert counted[(0, 0, 255)] >= 128 * 84
    assert sum(count for color, count in counted.items() if sum(color) < 200) > 100  # writing
    with pytest.raises(UsageError):
        contact_sheet([])


class Typewriter:
    def getlength(self, text: str) -> float:
        return 10.0 * len(text)


def test_labels_wrap_between_words() -> None:
    assert wrap("a robot on the beach", Typewriter(), 100) == ["a robot on", "the beach"]
    assert wrap("extraordinarily long", Typewriter(), 80) == ["extraord", "inarily", "long"]
    assert wrap("one two three four five", Typewriter(), 50, lines=2) == ["one", "two…"]
    assert wrap("", Typewriter(), 50) == []


# Writing


def test_parameters_travel_in_the_png(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    parameters = {
        "prompt": "ein Roboter über dem Meer 海",
        "seed": 3,
        "guidance": 1.5,
        "references": ["a", "b"],
    }
    save_png(path, six_fields(), parameters)
    assert read_parameters(path) == parameters
    assert (pixels(open_picture(path)) == pixels(six_fields())).all()
    save_png(path, six_fields())
    assert read_parameters(path) is None
    assert list(tmp_path.iterdir()) == [path]


def test_failed_writes_keep_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.png"
    save_png(path, six_fields(), {"seed": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"out\.png.*No space left"):
        save_png(path, six_fields(), {"seed": 2})
    assert read_parameters(path) == {"seed": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "out", tmp_path / "file", Path("/proc/out")):
        with pytest.raises(OutputError, match=str(folder)):
            make_folder(folder)
    with pytest.raises(OutputError, match="missing"):
        write_file(tmp_path / "missing" / "a.json", b"{}")
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_jpegs_are_decoded_no_smaller_than_asked_for() -> None:
    data = encoded(Image.new("RGB", (65, 130), "teal"), "JPEG")
    assert picture_size(data, "it") == open_picture(data).size == (65, 130)
    assert open_picture(data, decode_size=16).size == (17, 33)
    with pytest.raises(PictureError, match="it is not a picture"):
        picture_size(b"nothing", "it")


def test_layers_keep_their_alpha() -> None:
    layer = Image.new("RGBA", (4, 2), (200, 10, 20, 0))
    layer.putpixel((1, 1), (0, 255, 0, 128))
    again = open_layer(encoded(layer, "PNG"))
    assert again.mode == "RGBA"
    assert np.asarray(again).tolist() == np.asarray(layer).tolist()
    assert open_layer(encoded(layer.convert("RGB"), "PNG")).getextrema()[3] == (255, 255)


def test_layers_are_in_srgb_too() -> None:
    """As `open_picture` of the same picture, which has no transparency."""
    data = encoded(six_fields(), "PNG", icc_profile=linear_light_profile())
    layer = open_layer(data)
    assert np.asarray(layer)[..., :3].tolist() == np.asarray(open_picture(data)).tolist()
    assert np.asarray(layer)[..., :3].tolist() != np.asarray(six_fields()).tolist()


def test_parameters_may_name_files_that_are_not_utf8(tmp_path: Path) -> None:
    told = {"reference": os.fsdecode(b"caf\xe9.png"), "prompt": "größer"}
    save_png(tmp_path / "a.png", six_fields(), told)
    assert read_parameters(tmp_path / "a.png") == told


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.webp", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [each.name for each in pictures_in(tmp_path)] == ["a.webp", "b.JPG"]
