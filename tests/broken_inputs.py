"""Difficult and broken picture files of every kind, for the tests of whatever reads photographs.

    expected = make_broken_inputs(tmp_path, face)  # {"jpeg_cmyk.jpg": "ok_or_no_face", "empty.jpg": "unreadable", …}

Made from one photograph by Pillow, numpy and struct; the same bytes at every call.
"""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, features

OK = "ok_or_no_face"
UNREADABLE = "unreadable"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112


def make_broken_inputs(folder: Path, face: np.ndarray) -> dict[str, str]:
    """Write one file of every kind below `folder`.

    Args:
        folder: an existing folder.
        face: (H, W, 3) uint8 RGB, a photograph of a face; about 200 pixels keep this quick.

    Returns:
        Path relative to `folder`, with slashes → `OK` (readable, face found or not) or `UNREADABLE`.
    """
    photo = Image.fromarray(face)
    readable = jpegs(photo) | pngs(photo) | other_formats(photo) | names(photo) | no_faces()
    unreadable = truncated(photo) | damaged(photo) | no_pictures()
    for name, data in (readable | unreadable).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return dict.fromkeys(readable, OK) | dict.fromkeys(unreadable, UNREADABLE) | special_files(folder, photo)


def encode(photo: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a file of Pillow's format `kind`."""
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A PNG file of filtered `rows`, uncompressed; colour types: 0 grey, 2 RGB, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_rows(pixels: np.ndarray) -> bytes:
    """Big-endian rows of (H, W, C) numbers, each after filter type 0 (none)."""
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in big)


def png_16(pixels: np.ndarray) -> bytes:
    """(H, W, C) uint16 as a PNG file; C is 1, 3 or 4."""
    height, width, channels = pixels.shape
    return png(width, height, png_rows(pixels), depth=16, colour={1: 0, 3: 2, 4: 6}[channels])


def png_interlaced(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 in the seven passes of Adam7, which Pillow does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(png_rows(pixels[y::dy, x::dx]) for y, x, dy, dx in passes)
    return png(pixels.shape[1], pixels.shape[0], rows, interlace=1)


def jpeg_ycck(photo: Image.Image) -> bytes:
    """What Photoshop writes for print: inverted CMYK whose inks C, M, Y are stored as Y, Cb, Cr."""
    cyan, magenta, yellow, black = photo.convert("CMYK").split()
    channels = [*Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split(), black]
    # Pillow inverts all four on the way out; only black should be.
    stored = [Image.eval(channel, lambda v: 255 - v) for channel in channels[:3]] + channels[3:]
    data = bytearray(encode(Image.merge("CMYK", stored), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2  # the transform of the Adobe marker: 0 CMYK, 2 YCCK
    return bytes(data)


def jpeg_of_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG, whose header claims another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def jpeg_with_thumbnail(photo: Image.Image) -> bytes:
    """A JPEG whose EXIF part holds a whole JPEG of its own, with an end marker of its own."""
    small = encode(photo.resize((16, 16)), "JPEG")
    data = encode(photo, "JPEG")
    segment = b"Exif\0\0" + small
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def jpegs(photo: Image.Image) -> dict[str, bytes]:
    plain = encode(photo, "JPEG", quality=95)
    middle = len(plain) // 2
    kinds = {
        "jpeg.jpg": plain,
        "jpeg_progressive.jpg": encode(photo, "JPEG", progressive=True),
        "jpeg_444.jpg": encode(photo, "JPEG", subsampling=0),
        "jpeg_restart_markers.jpg": encode(photo, "JPEG", restart_marker_rows=1),
        "jpeg_grey.jpg": encode(photo.convert("L"), "JPEG"),
        "jpeg_stored_as_rgb.jpg": encode(photo, "JPEG", keep_rgb=True),
        "jpeg_cmyk.jpg": encode(photo.convert("CMYK"), "JPEG", quality=95),
        "jpeg_cmyk_progressive.jpg": encode(photo.convert("CMYK"), "JPEG", progressive=True),
        "jpeg_ycck.jpg": jpeg_ycck(photo),
        "jpeg_icc_profile.jpg": encode(photo, "JPEG", icc_profile=srgb_profile()),
        "jpeg_two_pictures.mpo": encode(photo, "MPO", save_all=True, append_images=[photo.rotate(90)]),
        "jpeg_exif_nonsense.jpg": encode(photo, "JPEG", exif=exif(99)),
        "jpeg_exif_broken.jpg": encode(photo, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "jpeg_exif_thumbnail.jpg": jpeg_with_thumbnail(photo),
        "jpeg_trailing_bytes.jpg": plain + b"left behind by a telephone" * 100,
        "jpeg_changed_bytes.jpg": plain[:middle] + bytes(8) + plain[middle + 8 :],  # no checksum: cannot be noticed
    }
    return kinds | {f"jpeg_exif_{o}.jpg": encode(photo, "JPEG", exif=exif(o)) for o in range(1, 9)}


def srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the hour at which it was made
    return bytes(profile)


def with_alpha(photo: Image.Image, mode: str = "RGBA") -> Image.Image:
    """The photograph, fading out to the right."""
    ramp = np.linspace(255, 0, photo.width).astype(np.uint8)
    clear = photo.convert(mode)
    clear.putalpha(Image.fromarray(np.tile(ramp, (photo.height, 1))))
    return clear


def pngs(photo: Image.Image) -> dict[str, bytes]:
    pixels = np.asarray(photo)
    deep = pixels.astype(np.uint16) * 257
    opaque = np.full((*deep.shape[:2], 1), 65535, np.uint16)
    palette = photo.quantize(64)
    return {
        "png.png": encode(photo, "PNG"),
        "png_grey.png": encode(photo.convert("L"), "PNG"),
        "png_1_bit.png": encode(photo.convert("1"), "PNG"),
        "png_palette.png": encode(palette, "PNG"),
        "png_palette_transparent.png": encode(palette, "PNG", transparency=0),
        "png_rgb_transparent.png": encode(photo, "PNG", transparency=(255, 255, 255)),
        "png_alpha.png": encode(with_alpha(photo), "PNG"),
        "png_grey_alpha.png": encode(with_alpha(photo, "LA"), "PNG"),
        "png_all_transparent.png": encode(Image.new("RGBA", photo.size), "PNG"),
        "png_16_bit_grey.png": png_16(deep[..., 1:2]),
        "png_16_bit_rgb.png": png_16(deep),
        "png_16_bit_alpha.png": png_16(np.concatenate([deep, opaque], axis=2)),
        "png_interlaced.png": png_interlaced(pixels),
        "png_icc_profile.png": encode(photo, "PNG", icc_profile=srgb_profile()),
        "png_exif_6.png": encode(photo, "PNG", exif=exif(6)),
        "png_animated.apng": encode(photo, "PNG", save_all=True, append_images=[photo.rotate(90)]),
        "png_without_end.png": encode(photo, "PNG")[:-12],  # every pixel is there
        "png_too_few_rows.png": png(*photo.size, png_rows(pixels[:8])),  # well-formed all the same: the rest is black
    }


def other_formats(photo: Image.Image) -> dict[str, bytes]:
    grey = np.asarray(photo.convert("L"))
    unit = grey.astype(np.float32) / 255
    holes = unit.copy()
    holes[:4], holes[4:8], holes[8:12] = np.nan, np.inf, -np.inf
    turned = [photo.rotate(90), photo.rotate(180)]
    kinds = {
        "gif.gif": encode(photo, "GIF"),
        "gif_animated.gif": encode(photo, "GIF", save_all=True, append_images=turned),
        "gif_transparent.gif": encode(photo.quantize(64), "GIF", transparency=0),
        "bmp.bmp": encode(photo, "BMP"),
        "bmp_palette.bmp": encode(photo.quantize(64), "BMP"),
        "tga.tga": encode(photo, "TGA", compression="tga_rle"),
        "ppm.ppm": encode(photo, "PPM"),
        "pgm_16_bit.pgm": b"P5 %d %d 65535\n" % photo.size + (grey.astype(">u2") * 257).tobytes(),
        "pbm_in_letters.pbm": b"P1\n# a comment\n4 2\n1 0 1 0\n0 1 0 1\n",
        "tiff.tif": encode(photo, "TIFF"),
        "tiff_lzw.tiff": encode(photo, "TIFF", compression="tiff_lzw"),
        "tiff_deflate.tif": encode(photo, "TIFF", compression="tiff_adobe_deflate"),
        "tiff_jpeg.tif": encode(photo, "TIFF", compression="jpeg"),
        "tiff_fax.tif": encode(photo.convert("1"), "TIFF", compression="group4"),
        "tiff_cmyk.tif": encode(photo.convert("CMYK"), "TIFF"),
        "tiff_alpha.tif": encode(with_alpha(photo), "TIFF"),
        "tiff_exif_6.tif": encode(photo, "TIFF", exif=exif(6)),
        "tiff_pages.tif": encode(photo, "TIFF", save_all=True, append_images=turned),
        "tiff_16_bit.tif": encode(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"),
        "tiff_32_bit.tif": encode(Image.fromarray(grey.astype(np.int32)), "TIFF"),
        "tiff_float.tif": encode(Image.fromarray(unit), "TIFF"),
        "tiff_float_not_numbers.tif": encode(Image.fromarray(holes), "TIFF"),
    }
    optional = {
        "webp": {
            "webp.webp": {},
            "webp_lossless.webp": {"lossless": True},
            "webp_exif_6.webp": {"exif": exif(6)},
            "webp_animated.webp": {"save_all": True, "append_images": turned},
        },
        "jpg_2000": {"jpeg2000.jp2": {}},
        "avif": {"avif.avif": {}},
    }
    for codec, files in optional.items():
        if features.check(codec):
            kind = "JPEG2000" if codec == "jpg_2000" else codec.upper()
            kinds |= {name: encode(photo, kind, **options) for name, options in files.items()}
    return kinds


def names(photo: Image.Image) -> dict[str, bytes]:
    """Good pictures with awkward names, extensions and places."""
    jpeg, png_file = encode(photo, "JPEG"), encode(photo, "PNG")
    awkward = [
        "照片 二.jpg",
        "صورة.jpg",
        "фото.JPEG",
        "😀.jpg",
        "cafe\u0301.jpg",  # decomposed, as macOS writes it
        "UPPER.JPG",
        "two.dots.tar.jpg",
        " leading and trailing .jpg",
        "-rf.jpg",
        "100%s{0}$HOME.jpg",
        "quote'\"`;.jpg",
        "line\nbreak.jpg",
        ".hidden.jpg",
        "x" * 251 + ".jpg",
        "a/same_name.jpg",
        "b/same_name.jpg",
        "c/" * 20 + "deep.jpg",
        "folder.jpg/inside.jpg",
        os.fsdecode(b"not_utf8_\xff\xfe.jpg"),
    ]
    return dict.fromkeys(awkward, jpeg) | {"png_named.jpg": png_file, "jpeg_named.png": jpeg, "jpeg_named.tif": jpeg}


def no_faces() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return {
        "one_pixel.png": encode(Image.new("RGB", (1, 1)), "PNG"),
        "one_row.png": encode(Image.new("RGB", (4000, 1)), "PNG"),
        "one_column.jpg": encode(Image.new("RGB", (1, 4000)), "JPEG"),
        "black.jpg": encode(Image.new("RGB", (160, 120)), "JPEG"),
        "white.png": encode(Image.new("L", (160, 120), 255), "PNG"),
        "noise.png": encode(Image.fromarray(noise), "PNG"),
    }


def truncated(photo: Image.Image) -> dict[str, bytes]:
    whole = {
        "jpg": encode(photo, "JPEG"),
        "png": encode(photo, "PNG"),
        "gif": encode(photo, "GIF"),
        "bmp": encode(photo, "BMP"),
        "tif": encode(photo, "TIFF"),
        "ppm": encode(photo, "PPM"),
    }
    if features.check("webp"):
        whole["webp"] = encode(photo, "WEBP")
    jpeg, thumbnail = whole["jpg"], jpeg_with_thumbnail(photo)
    progressive = encode(photo, "JPEG", progressive=True)
    cmyk = encode(photo.convert("CMYK"), "JPEG")
    return (
        {f"half_a_{kind}.{kind}": data[: len(data) // 2] for kind, data in whole.items()}
        | {
            "jpeg_last_tenth_missing.jpg": jpeg[: len(jpeg) * 9 // 10],
            "jpeg_end_marker_missing.jpg": jpeg[:-2],
            "jpeg_second_half_zeros.jpg": jpeg[: len(jpeg) // 2].ljust(len(jpeg), b"\0"),  # a download that broke off
            "jpeg_header_only.jpg": jpeg[:20],
            "jpeg_marker_only.jpg": jpeg[:2],
            "half_a_progressive.jpg": progressive[: len(progressive) // 2],
            "half_a_cmyk.jpg": cmyk[: len(cmyk) // 2],
            "half_with_thumbnail.jpg": thumbnail[: len(thumbnail) * 3 // 4],
        }
    )


def damaged(photo: Image.Image) -> dict[str, bytes]:
    jpeg, png_file = encode(photo, "JPEG"), encode(photo, "PNG")
    middle = len(png_file) // 2
    flipped = bytes([png_file[middle] ^ 0xFF])
    nothing = np.full((8, 8), np.nan, np.float32)
    bitmap = encode(photo, "BMP")
    return {
        "png_crc_broken.png": png_file[:middle] + flipped + png_file[middle + 1 :],
        "png_header_crc_broken.png": png_file[:29] + b"\0\0\0\0" + png_file[33:],
        "png_without_pixels.png": PNG_SIGNATURE + png_file[8:33] + png_chunk(b"IEND", b""),
        "png_not_deflated.png": png(8, 8, b"").replace(zlib.compress(b"", 1), b"12345678"),
        "png_width_zero.png": png(0, 64, b"\0" * 64),
        "png_bomb.png": png(60000, 60000, b"\0" * 1000),
        "png_unknown_depth.png": png(8, 8, b"\0" * 200, depth=7),
        "jpeg_width_zero.jpg": jpeg_of_size(jpeg, 0, 64),
        "jpeg_bomb.jpg": jpeg_of_size(jpeg, 65500, 65500),
        "jpeg_without_tables.jpg": jpeg.replace(b"\xff\xdb", b"\xff\xee").replace(b"\xff\xc4", b"\xff\xee"),
        "bmp_bomb.bmp": bitmap[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + bitmap[26:],
        "tiff_directory_outside.tif": b"II*\0" + struct.pack("<I", 2**31),
        "tiff_directory_circular.tif": b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "tiff_no_number.tif": encode(Image.fromarray(nothing), "TIFF"),
        "ppm_negative.ppm": b"P6 -4 4 255\n" + bytes(48),
        "gif_header_only.gif": b"GIF89a\x40\0\x40\0\0\0\0;",
    }


def no_pictures() -> dict[str, bytes]:
    noise = np.random.default_rng(1).bytes(5000)
    return {
        "empty.jpg": b"",
        "empty.png": b"",
        "one_byte.jpg": b"\xff",
        "zeros.jpg": bytes(5000),
        "random_bytes.jpg": noise,
        "text.jpg": b"this is no picture\n",
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "page.png": b"\xef\xbb\xbf<html></html>",
        "data.jpg": b'{"error": "not found"}',
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "archive.jpg": b"PK\x03\x04" + noise[:100],
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        "video.jpg": b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(100),
        "telephone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "riff_only.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    }


def special_files(folder: Path, photo: Image.Image) -> dict[str, str]:
    """What is not a plain file with bytes in it."""
    (folder / "special").mkdir()
    place = folder / "special"
    jpeg = encode(photo, "JPEG")

    (place / "target.dat").write_bytes(jpeg)  # no picture's name: found through the link only
    (place / "link.jpg").symlink_to("target.dat")
    (place / "dangling_link.jpg").symlink_to("nowhere.dat")
    (place / "circular_link.jpg").symlink_to("circular_link.jpg")
    (place / "device.jpg").symlink_to(os.devnull)
    (place / "empty_folder.jpg").mkdir()
    os.mkfifo(place / "pipe.jpg")
    with (place / "sparse.jpg").open("wb") as file:
        file.truncate(2**31)  # two gigabytes that take no room on the disk
    locked = place / "locked.jpg"
    locked.write_bytes(jpeg)
    locked.chmod(0)

    expected = {
        "link.jpg": OK,
        "dangling_link.jpg": UNREADABLE,
        "circular_link.jpg": UNREADABLE,
        "device.jpg": UNREADABLE,
        "empty_folder.jpg": UNREADABLE,
        "pipe.jpg": UNREADABLE,
        "sparse.jpg": UNREADABLE,
        "locked.jpg": OK if os.access(locked, os.R_OK) else UNREADABLE,  # nothing is locked to root
    }
    # A folder with a picture's name is an input of its own, beside the picture in it (see `names`).
    return {f"special/{name}": outcome for name, outcome in expected.items()} | {"folder.jpg": UNREADABLE}
