"""300-W (Sagonas et al., 2013-2016): 68 points in .pts files beside the pictures, as its web page gives the parts:

    ROOT/{afw, ibug, helen/trainset, helen/testset, lfpw/trainset, lfpw/testset}/NAME.{pts, jpg or png}

The usual split: train is afw and the two training sets; val the two test sets ("common"); test those and ibug ("full").
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from SPPE.src.landmarks import IBUG68, NUM_POINTS

from .base import Annotations, Face, collect
from .lapa import pair_files, parse_points

PARTS = {
    "train": ("afw", "helen/trainset", "lfpw/trainset"),
    "val": ("helen/testset", "lfpw/testset"),
    "test": ("helen/testset", "lfpw/testset", "ibug"),
}

# 300-W was annotated in Matlab, whose first pixel is (1, 1).
PTS_BASE = 1.0


def load(root: Path, split: str) -> Annotations:
    """Read one split; the 38 of the 106 points that 300-W has not are not annotated. Attribute `source`: the part.

    Raises:
        FileNotFoundError: a folder or a picture is missing.
        ValueError: a .pts file is malformed; names it and the line.
    """
    return collect(chain.from_iterable(_read_part(root, part) for part in PARTS[split]))


def _read_part(root: Path, part: str) -> Iterator[Face]:
    for path, picture in pair_files(root / part, root / part, ".pts"):
        yield Face(picture, *from_68(read_pts(path, (68,))), where=str(path), attributes={"source": part})


def read_pts(path: Path, counts: tuple[int, ...], base: float = PTS_BASE) -> np.ndarray:
    """Read a .pts file (`version: 1`, `n_points: N`, `{`, N lines `x y`, `}`).

    Args:
        counts: the numbers of points it may hold.
        base: what the first pixel's middle is called in the file, 1 in 300-W; it is subtracted.
    Returns:
        (n, 2) float32, image pixels, (0, 0) in the middle of the first.
    Raises:
        ValueError: malformed; names the file and the line.
    """
    head, brace, rest = path.read_text(encoding="utf-8-sig").partition("{")
    body, end, _ = rest.partition("}")
    if not brace or not end:
        raise ValueError(f"{path}: not a .pts file; expected `version: 1`, `n_points: N`, `{{`, points, `}}`")
    stated = [line.split(":")[1].strip() for line in head.splitlines() if line.strip().startswith("n_points:")]
    if len(stated) != 1 or stated[0] not in map(str, counts):
        expected = " or ".join(map(str, counts))
        raise ValueError(f"{path}: n_points is {', '.join(stated) or 'missing'}, expected {expected}")
    body = body.removeprefix("\r").removeprefix("\n")
    return parse_points(path, body, int(stated[0]), head.count("\n") + 2) - np.float32(base)


def from_68(points: np.ndarray, visible: np.ndarray | int = 2) -> tuple[np.ndarray, np.ndarray]:
    """iBUG's points (68, 2) and their visibility -> (106, 2) and (106,), the other 38 zero: not annotated."""
    all_points, all_visible = np.zeros((NUM_POINTS, 2), np.float32), np.zeros(NUM_POINTS, np.uint8)
    all_points[list(IBUG68)], all_visible[list(IBUG68)] = points, visible
    return all_points, all_visible
