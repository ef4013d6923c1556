"""LaPa (Liu et al., AAAI 2020), 106 points: ROOT/{train,val,test}/{images/NAME.jpg, landmarks/NAME.txt}."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from SPPE.src.landmarks import NUM_POINTS
from SPPE.src.utils.imread import find_images

from .base import Annotations, Face, collect

ALL_VISIBLE = np.full(NUM_POINTS, 2, np.uint8)


def load(root: Path, split: str) -> Annotations:
    """Read one split.

    Raises:
        FileNotFoundError: a folder or a picture is missing.
        ValueError: a landmark file is malformed; names it and the line.
    """
    return collect(read_folder(root / split / "landmarks", root / split / "images"))


def read_folder(landmarks: Path, images: Path) -> Iterator[Face]:
    """The faces of a folder of .txt files, each beside a picture of the same name in `images`."""
    for path, picture in pair_files(landmarks, images, ".txt"):
        yield Face(picture, read_txt(path), ALL_VISIBLE, str(path))


def read_txt(path: Path) -> np.ndarray:
    """Read a LaPa landmark file: the count, 106, then a line `x y` a point. (106, 2) float32, image pixels.

    Raises:
        ValueError: malformed; names the file and the line.
    """
    count, _, body = path.read_text(encoding="utf-8-sig").partition("\n")
    if count.strip() != str(NUM_POINTS):
        raise ValueError(f"{path}, line 1: {count.strip()!r}, expected the number of points, {NUM_POINTS}")
    return parse_points(path, body, NUM_POINTS, first_line=2)


def parse_points(path: Path, body: str, count: int, first_line: int) -> np.ndarray:
    """Lines `x y` -> (count, 2) float32; blank lines at the end do not count. ValueError names file and line."""
    points = []
    for number, line in enumerate(body.rstrip().split("\n"), first_line):
        try:
            x, y = map(float, line.split())
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line.strip()!r} is not a pair of numbers x y") from None
        points.append((x, y))
    if len(points) != count:
        raise ValueError(f"{path}: {len(points)} points, expected {count}")
    return np.array(points, np.float32).reshape(-1, 2)


def pair_files(annotations: Path, images: Path, suffix: str) -> Iterator[tuple[Path, Path]]:
    """(annotation, picture) for each file with that suffix below a folder; the picture has its name, and an extension.

    Raises:
        FileNotFoundError: no such folder, no annotation in it, or one without a picture.
        ValueError: two pictures for one annotation.
    """
    for folder in (annotations, images):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder at {folder}")
    pictures: dict[Path, list[Path]] = {}
    for name in find_images(images):
        pictures.setdefault(name.with_suffix(""), []).append(name)
    found = sorted(path for path in annotations.rglob("*") if path.suffix.lower() == suffix)
    if not found:
        raise FileNotFoundError(f"no {suffix} files in {annotations}")
    for path in found:
        name = path.relative_to(annotations).with_suffix("")
        candidates = pictures.get(name, [])
        if not candidates:
            raise FileNotFoundError(f"{path}: no picture of that name in {images}")
        if len(candidates) > 1:
            raise ValueError(f"{path}: several pictures of that name in {images}: {', '.join(map(str, candidates))}")
        yield path, images / candidates[0]
