"""Reading pictures: every kind of file has the outcome it should, and what is read looks as it should."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from broken_inputs import (
    OK,
    UNREADABLE,
    encode,
    exif,
    jpeg_with_thumbnail,
    jpeg_ycck,
    make_broken_inputs,
    png_16,
    with_alpha,
)
from SPPE.src.utils import imread
from SPPE.src.utils.imread import UnreadableImage, decode_image, find_images, load_image

T = Image.Transpose
# What a camera stores for each EXIF orientation: the reverse of what the viewer has to do.
STORED = {
    1: lambda p: p,
    2: lambda p: p.transpose(T.FLIP_LEFT_RIGHT),
    3: lambda p: p.transpose(T.ROTATE_180),
    4: lambda p: p.transpose(T.FLIP_TOP_BOTTOM),
    5: lambda p: p.transpose(T.TRANSPOSE),
    6: lambda p: p.transpose(T.ROTATE_90),  # anticlockwise, to be turned clockwise
    7: lambda p: p.transpose(T.TRANSVERSE),
    8: lambda p: p.transpose(T.ROTATE_270),
}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A face, 200 x 180: not square, so that a turned picture shows in its shape."""
    return Image.open(ROOT / "examples/imgs/eileen_collins.jpg").convert("RGB").crop((130, 0, 330, 180))


@pytest.fixture(scope="module")
def inputs(photo, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("inputs")
    return folder, make_broken_inputs(folder, np.asarray(photo))


def difference(image: np.ndarray, photo: Image.Image) -> float:
    """The mean difference in levels, 0 to 255."""
    return float(np.abs(image.astype(int) - np.asarray(photo.convert("RGB"))).mean())


def outcome(path: Path) -> str:
    try:
        image = load_image(path)
    except UnreadableImage as error:
        assert path.name in str(error) and len(str(error).splitlines()) == 1
        return UNREADABLE
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image.flags.c_contiguous and image.flags.writeable
    return OK


@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated", "ignore:Unknown feature")
def test_every_kind_has_the_expected_outcome(inputs):
    folder, expected = inputs
    assert len(expected) >= 60
    assert {name: outcome(folder / name) for name in expected} == expected


def test_every_kind_is_found(inputs):
    folder, expected = inputs
    assert {path.as_posix() for path in find_images(folder)} == set(expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [("JPEG", {"quality": 95}, 2), ("PNG", {}, 0), ("TIFF", {}, 0), ("WEBP", {"lossless": True}, 0)],
)
def test_orientation(photo, orientation, kind, options, tolerance):
    data = encode(STORED[orientation](photo), kind, exif=exif(orientation), **options)
    image = decode_image(data)
    assert image.shape == (180, 200, 3)
    assert difference(image, photo) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_opencv_and_pillow_agree(photo, orientation, monkeypatch):
    data = encode(STORED[orientation](photo), "JPEG", exif=exif(orientation))
    fast = decode_image(data)
    monkeypatch.setattr(imread, "_decode_jpeg", lambda picture, data: None)
    slow = decode_image(data)
    assert fast.shape == slow.shape
    assert np.abs(fast.astype(int) - slow).max() <= 1


def test_plain_jpeg_takes_the_fast_way(photo, monkeypatch):
    monkeypatch.setattr(imread, "picture_to_rgb", None)
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        decode_image(encode(photo, "JPEG", **options))
    decode_image(encode(photo.convert("L"), "JPEG"))
    decode_image(jpeg_with_thumbnail(photo))


def test_every_truncation_of_a_jpeg_is_noticed(photo):
    for progressive in (False, True):
        data = encode(photo, "JPEG", progressive=progressive)
        for size in range(0, len(data) - 1, 97):
            with pytest.raises(UnreadableImage):
                decode_image(data[:size])


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled(channels):
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64, 1).repeat(channels, axis=2)
    values[-1, -1] = 65535
    image = decode_image(png_16(values))
    assert (image[0, 0] == 0).all() and (image[-1, -1] == 255).all()
    assert np.abs(image - values * (255 / 65535)).max() <= 1


def test_16_bit_tiff_is_scaled_as_png_is(photo):
    grey = np.asarray(photo.convert("L"))
    image = decode_image(encode(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"))
    assert (image == grey[..., None]).all()


def test_floating_point():
    def read(values):
        return decode_image(encode(Image.fromarray(np.array(values, np.float32)), "TIFF"))[..., 0].tolist()

    assert read([[0, 0.2, 1]]) == [[0, 51, 255]]
    assert read([[0, 51, 255]]) == [[0, 51, 255]]
    assert read([[0, 13107, 65535]]) == [[0, 51, 255]]
    assert read([[-1, np.nan, 1], [np.inf, -np.inf, 0.2]]) == [[0, 0, 255], [255, 0, 51]]


def test_inks_become_the_right_colours(photo):
    assert difference(decode_image(encode(photo.convert("CMYK"), "JPEG", quality=95)), photo) < 3
    assert difference(decode_image(jpeg_ycck(photo)), photo) < 3
    assert difference(decode_image(encode(photo.convert("CMYK"), "TIFF")), photo) < 1


def test_colour_order_and_grey():
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    for kind in ("JPEG", "PNG"):
        assert np.abs(decode_image(encode(red, kind))[8, 8] - np.array([250, 10, 10])).max() <= 2
    grey = decode_image(encode(Image.new("L", (16, 16), 99), "JPEG"))
    assert grey.shape == (16, 16, 3) and (grey == 99).all()


def test_transparency_is_laid_over_white(photo):
    image = decode_image(encode(with_alpha(photo), "PNG"))
    assert (image[:, -1] == 255).all()
    assert (image[:, 0] == np.asarray(photo)[:, 0]).all()
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(encode(hidden, "PNG")) == 255).all()


def test_first_frame_of_an_animation(photo):
    for kind, options in [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]:
        data = encode(photo, kind, save_all=True, append_images=[photo.rotate(180)], **options)
        assert difference(decode_image(data), photo) < 6, kind  # 6: a GIF has 256 colours


def test_names_of_any_script(photo, tmp_path):
    for name in ("照片.jpg", "фото.jpg", "😀 ٣.png"):
        (tmp_path / name).write_bytes(encode(photo, "JPEG", quality=95))
        assert difference(load_image(tmp_path / name), photo) < 2
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UnreadableImage, match=f"{name}: the file is empty"):
            load_image(tmp_path / name)


def test_messages_name_the_file_and_can_be_printed(tmp_path):
    for name, shown in [("none.jpg", "none.jpg"), ("a\nb.jpg", r"a\nb.jpg"), ("\udcff.jpg", r"\udcff.jpg")]:
        with pytest.raises(UnreadableImage) as caught:
            load_image(tmp_path / name)
        assert str(caught.value) == f"{tmp_path}/{shown}: No such file or directory"
        assert str(caught.value).encode()
    with pytest.raises(UnreadableImage, match="null"):
        load_image("a\0b.jpg")


def test_a_file_closed_to_the_user(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "locked.jpg").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, who runs many tests, is refused nothing
    with pytest.raises(UnreadableImage, match=r"locked\.jpg: Permission denied"):
        load_image(tmp_path / "locked.jpg")


def test_the_exception_passes_between_processes():
    error = pickle.loads(pickle.dumps(UnreadableImage(Path("a.jpg"), "the file is empty")))
    assert str(error) == "a.jpg: the file is empty"


def test_find_images(tmp_path):
    for name in ["b/x.JPG", "a/x.jpg", "a/notes.txt", "B.png", "a.tif", ".git/x.jpg", ".x.jpg", "jpg", "ä.webp"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/again").symlink_to(tmp_path)
    expected = [".x.jpg", "B.png", "a.tif", "a/x.jpg", "b/x.JPG", "ä.webp"]
    assert [path.as_posix() for path in find_images(tmp_path)] == expected


def test_find_images_without_a_folder(tmp_path):
    assert find_images(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        find_images(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        find_images(tmp_path / "file")
