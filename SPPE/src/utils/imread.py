"""Picture files to RGB arrays: the one place where this project decodes photographs.

    image = load_image("photo.jpg")        # (H, W, 3) uint8, RGB, upright
    for path in find_images("photos"):     # relative paths, folders walked
        image = load_image(Path("photos") / path)

Whatever cannot be decoded in full raises `UnreadableImage`, with one sentence that names the file: a picture that is
half there is worse than none, since a network finds points on it all the same.
"""

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "UnreadableImage",
    "decode_image",
    "find_images",
    "load_image",
    "picture_to_rgb",
]

# What a folder walk takes for a picture. HEIC is listed although Pillow needs a plug-in for it: a telephone's
# photograph then gets its record, "unreadable", instead of being left out in silence.
# fmt: off
IMAGE_EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx",
    ".png", ".apng", ".gif", ".webp", ".avif", ".heic", ".heif",
    ".tif", ".tiff", ".bmp", ".dib", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
})
# fmt: on

# Pillow's own bound for a decompression bomb (twice its default warning level), as a constant that does not move when
# other code changes Pillow's: 179 megapixels, 537 MB decoded. Only stitched panoramas and a few sensors go beyond.
MAX_PIXELS = 178_956_970
MAX_BYTES = 8 * MAX_PIXELS  # the largest that MAX_PIXELS can fill: four uncompressed 16-bit channels
DRAWINGS = ("EPS", "WMF")  # no photographs, and Pillow would start another program, Ghostscript, to draw them
PAPER = (255, 255, 255, 255)  # behind transparency: cut-out portraits are made to lie on a white page

# The bound above is the one that counts: Pillow's warning at half of it would only clutter a run.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# EXIF orientation → what makes the stored pixels upright. OpenCV's: they copy turned rows far faster than numpy does.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: cv2.flip(a, 1),
    3: lambda a: cv2.rotate(a, cv2.ROTATE_180),
    4: lambda a: cv2.flip(a, 0),
    5: cv2.transpose,
    6: lambda a: cv2.rotate(a, cv2.ROTATE_90_CLOCKWISE),
    7: lambda a: cv2.transpose(cv2.rotate(a, cv2.ROTATE_180)),
    8: lambda a: cv2.rotate(a, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
ORIENTATION_TAG = 0x0112


class UnreadableImage(ValueError):
    """A picture that cannot be decoded in full; the message is one sentence that names it and says what is wrong."""

    def __init__(self, name: str | os.PathLike, reason: str):
        super().__init__(os.fspath(name), reason)  # both, so that the exception can be passed between processes

    def __str__(self) -> str:
        name, reason = self.args
        # Names on disk may hold line breaks, or bytes that are no UTF-8 and would make printing the message fail.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) + f": {reason}"


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Read and decode a picture file.

    Returns:
        (H, W, 3) uint8, RGB, C-contiguous, upright (see `decode_image`).

    Raises:
        UnreadableImage: the file is missing, not to be opened, no regular file (a folder, a pipe), or no whole picture.
    """
    try:
        data = _read_file(Path(path))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise UnreadableImage(path, getattr(error, "strerror", None) or str(error)) from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "image") -> np.ndarray:
    """Decode the bytes of a picture file of any kind that Pillow knows; the extension of its name plays no part.

    The EXIF orientation is applied. Transparency is laid over white. Of an animation the first frame counts. Sixteen
    bits a channel come down to eight (65535 → 255; colour keeps its high byte), floating point as `_grey_from_numbers`
    says. Colour profiles are ignored: they shift hues, never shapes.

    A file is whole when its data goes to its end, a JPEG's to the end marker. Bytes changed inside a JPEG's scan or in
    a format without checksums cannot be told from a picture and are decoded as they stand.

    Args:
        data: the whole file.
        name: what error messages call it.

    Returns:
        (H, W, 3) uint8, RGB, C-contiguous.

    Raises:
        UnreadableImage: not a picture, truncated, broken, or of more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    try:
        return _decode(data)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(name, f"not a picture that Pillow can read; it begins with {data[:16]!r}") from error
    except Exception as error:  # hostile bytes bring out a dozen kinds of error, from struct.error to MemoryError
        raise UnreadableImage(name, f"cannot be decoded: {str(error) or type(error).__name__}") from error


def find_images(folder: str | os.PathLike) -> list[Path]:
    """List everything below a folder that is named like a picture.

    Extensions count in any case. Whatever carries a picture's name is listed, be it a hidden file, a dangling link, a
    pipe or a folder: `load_image` then says what is wrong with it, and nothing drops out in silence. Folders are
    entered, except those whose name begins with a dot (`.git`, `.thumbnails`: another program's) and symbolic links to
    folders, which could lead round in a circle.

    Returns:
        Paths relative to `folder`, so that the same name in two sub-folders stays apart, sorted by their bytes.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: there is no such folder, or it cannot be listed.
    """
    folder = Path(folder)
    next(folder.iterdir(), None)  # raises; os.walk would take a missing folder for an empty one
    found = []
    for parent, folders, files in os.walk(folder, onerror=_warn_of_folder):
        found += [Path(parent, name) for name in folders + files if Path(name).suffix.lower() in IMAGE_EXTENSIONS]
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted((path.relative_to(folder) for path in found), key=os.fsencode)


def _warn_of_folder(error: OSError) -> None:
    warnings.warn(f"folder left out: {error}", stacklevel=2)


def _read_file(path: Path) -> bytes:
    """The bytes of a regular file. Looks before it opens: opening a pipe that nobody writes to would wait for ever."""
    if path.is_symlink() and not path.exists():
        raise OSError("a symbolic link that leads nowhere")
    size = path.stat().st_size
    if path.is_dir():
        raise OSError("a folder, not a file")
    if not path.is_file():
        raise OSError("not a regular file but a pipe, a socket or a device")
    if size > MAX_BYTES:
        raise OSError(f"{size:,} bytes, more than a picture can have ({MAX_BYTES:,})")
    return path.read_bytes()


def _decode(data: bytes) -> np.ndarray:
    """`decode_image` with the decoders' own exceptions."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.format in DRAWINGS:
            raise ValueError(f"a drawing ({picture.format}), not a photograph")
        width, height = picture.size
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, where 1 to {MAX_PIXELS:,} are allowed")
        pixels = _decode_jpeg(picture, data)
        if pixels is None:
            pixels = picture_to_rgb(picture)
        orientation = _orientation(picture)
    return np.ascontiguousarray(UPRIGHT[orientation](pixels) if orientation in UPRIGHT else pixels)


def _decode_jpeg(picture: Image.Image, data: bytes) -> np.ndarray | None:
    """The common case at twice Pillow's speed: (H, W, 3) uint8 RGB as stored; None where OpenCV's word is not enough.

    Of a truncated file OpenCV returns the missing part in grey and says nothing; Pillow raises. So only a file that has
    its end-of-image marker comes this way. CMYK is left to Pillow, which knows Adobe's inverted inks, and so is PNG:
    that it checks every CRC is worth half as much time again.
    """
    if picture.format not in ("JPEG", "MPO") or picture.mode not in ("L", "RGB") or not _has_jpeg_end(data):
        return None
    stored = np.frombuffer(data, np.uint8)
    return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _has_jpeg_end(data: bytes) -> bool:
    """Whether an end-of-image marker follows the start of the scan (a thumbnail in the EXIF data has its own)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:
            return data.find(b"\xff\xd9", position) != -1
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def picture_to_rgb(picture: Image.Image) -> np.ndarray:
    """A Pillow picture of any mode -> (H, W, 3) uint8 RGB as it stands; transparency, numbers: see `decode_image`."""
    picture.load()
    if picture.mode.startswith("I;16"):
        return _grey_to_rgb(_grey_from_numbers(np.asarray(picture), full_scale=65535))
    if picture.mode in ("I", "F"):
        return _grey_to_rgb(_grey_from_numbers(np.asarray(picture)))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, PAPER), layer)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))  # a copy, hence writable


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)  # (H, W) → (H, W, 3)


def _grey_from_numbers(values: np.ndarray, full_scale: float | None = None) -> np.ndarray:
    """(H, W) numbers to (H, W) uint8: 0 → 0, `full_scale` → 255, rounded and clipped; what is no number becomes 0.

    Where the format does not say what white is (32-bit integers, floating point), white is the smallest of 1 (floating
    point only), 255 and 65535 that no pixel passes, or else the brightest pixel.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel is a number")
    if full_scale is None:
        brightest = float(finite.max())
        scales = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
        full_scale = next((scale for scale in scales if brightest <= scale), brightest)
    scaled = np.nan_to_num(values.astype(np.float32) * np.float32(255 / full_scale), nan=0, posinf=255, neginf=0)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, asked for after loading (PNG may store it last); 1, upright, where EXIF is broken."""
    try:
        return picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # garbled metadata is no reason to lose a good picture
        return 1
