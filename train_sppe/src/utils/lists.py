"""Text files that name faces of a data set: what an audit excludes, which faces failed, which to look at.

A picture's name a line, as the data set names it (below its `images/` folder, "/" between folders); then, after tabs,
optionally the number of a face in that picture (0 is its first), and a remark that begins with "#":

    afw_134212_1.jpg
    group.jpg	2	# left and right swapped, NME 61 %
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from SPPE.src.utils.files import write_whole

from .dataset.base import Annotations


def names_of(data: Annotations, root: Path) -> list[str]:
    """The name of each face's picture, below ROOT/images where all pictures lie there, else below ROOT."""
    for folder in (root / "images", root):
        if all(path.is_relative_to(folder) for path in data.images):
            return [path.relative_to(folder).as_posix() for path in data.images]
    return [path.as_posix() for path in data.images]


def numbers_of(names: list[str]) -> list[int]:
    """Which face of its picture each is, counted from 0 in the data set's order."""
    seen: dict[str, int] = {}
    numbers = []
    for name in names:
        numbers.append(seen.get(name, 0))
        seen[name] = numbers[-1] + 1
    return numbers


def write_list(path: Path, faces: Iterable[tuple[str, int | None, str]]) -> None:
    """Write (name, face or None for all faces of the picture, remark) a line."""
    lines = []
    for name, face, remark in faces:
        cells = [name] + ([] if face is None else [str(face)]) + ([f"# {remark}"] if remark else [])
        lines.append("\t".join(cells) + "\n")
    write_whole("".join(lines).encode(), path)


def read_list(path: Path) -> set[tuple[str, int | None]]:
    """(name, face or None) of each line.

    Raises:
        FileNotFoundError: no such file. ValueError: a line is malformed; names file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list at {path}; tools/audit.py and evaluation.py write such lists")
    found = set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        cells = [cell for cell in cells if cell and not cell.startswith("#")]
        if not cells:
            continue
        if len(cells) > 2 or not all(cell.isdigit() for cell in cells[1:]):
            raise ValueError(f"{path}, line {number}: {line!r}; expected NAME, or NAME, a tab and a face's number")
        found.add((cells[0], int(cells[1]) if cells[1:] else None))
    return found


def listed(data: Annotations, root: Path, path: Path) -> np.ndarray:
    """Which faces a list names, (N,) bool; lines about pictures that are not in `data` (another split's) are passed by.

    Raises:
        FileNotFoundError, ValueError: as `read_list`; ValueError too when no line names a face of `data`.
    """
    wanted, names = read_list(path), names_of(data, root)
    rows = np.array([bool({(name, None), (name, k)} & wanted) for name, k in zip(names, numbers_of(names))], bool)
    if wanted and not rows.any():
        raise ValueError(f"{path}: none of its {len(wanted)} names is a picture of {root}, as {names[0]!r} is")
    return rows
