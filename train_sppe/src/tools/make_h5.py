"""Make annot_dt_fac_106_ldmks.h5, the training data, from a folder of pictures and their points; from train_sppe/src:

    python tools/make_h5.py --format lapa --images LaPa/train/images --annotations LaPa/train/landmarks
    python tools/make_h5.py --format pts  --images helen/trainset --annotations helen/trainset --val-tail 0.1
    python tools/make_h5.py --format csv  --images images --annotations labels.csv --order insightface
    python tools/make_h5.py --format coco --images images --annotations labels.json --split-files splits

lapa    a folder of .txt: the count 106, then a line `x y` a point
pts     a folder of .pts with 68 or 106 points, whose first pixel is (1, 1) as in 300-W (--pts-base)
csv     a header and a row a face: image[,source][,attr:NAME...],x0,y0,x1,y1,... for 68 or 106 points; with x0,y0,s0,...
        s is 0 where a point is not annotated (3 label, 2 geometry, 1 teacher, as tools/complete106.py writes it).
        An empty cell is a point that is not annotated
coco    a JSON file: images, annotations with `keypoints` [x, y, v] * 68 or 106, and `bbox` [x, y, w, h] if there is one

--ibug-to-lapa moves completed 300-W labels (tools/complete106.py) to LaPa's places (SPPE/src/convention.py); --shift
corrects labels that lie beside the picture.

68 points are iBUG's; the other 38 are then not annotated. Coordinates are pixels, (0, 0) in the middle of the first.
Without --val-tail and --split-files the file is split by the published proportions, in its order, when it is read.
What is malformed is named with file and row (the header is row 1), and nothing is written: annotations, missing
pictures, and pictures that cannot be decoded, each of which is tried.
"""

import argparse
import csv
import json
import math
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))  # train_sppe/src, before any other package named utils
sys.path.append(str(SOURCE.parents[1]))  # the repository root

from SPPE.src.convention import LAPA_FROM_IBUG
from SPPE.src.landmarks import IBUG68, NAMES, NUM_POINTS, POINT_ORDERS
from SPPE.src.utils.imread import UnreadableImage, load_image
from tools.complete106 import complete_by_geometry
from utils.command import complaints, one_of
from utils.dataset import lapa, w300
from utils.dataset.base import SPLITS, Annotations, Face, collect, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME

POINT_COUNTS = (68, NUM_POINTS)

# The `s` column of tools/complete106.py: none, teacher, geometry, label.
POINT_SOURCES = (0, 1, 2, 3)

# What a weight of LAPA_FROM_IBUG that stands for nothing may come to.
NO_WEIGHT = 1e-9

# How many unreadable pictures a message names.
MAX_NAMED = 5


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("make_h5.py"):
        check(opt)
        make(opt)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--format", required=True, help=f"of the annotations, one of {', '.join(READERS)}")
    add("--images", type=Path, required=True, help="folder of the pictures, walked recursively")
    add("--annotations", type=Path, required=True, help="folder of .pts or .txt, or a .csv or .json file")
    add("--out", type=Path, default=SOURCE.parent / "data" / "dt_fac_106_ldmks", help="where images/ and the .h5 go")
    add("--copy", action="store_true", help="copy the pictures into OUT/images; default: a symbolic link to --images")
    add("--order", default="lapa", help=f"of 106 points in the annotations, one of {', '.join(POINT_ORDERS)}")
    add("--ibug-to-lapa", action="store_true", help="move lids, lips and jaw from 300-W's places to LaPa's")
    add("--shift", type=float, nargs=2, default=(0.0, 0.0), metavar=("DX", "DY"), help="added to all points, pixels")
    add("--pts-base", type=float, default=w300.PTS_BASE, help="what .pts files call the first pixel")
    add("--boxes-from-points", action="store_true", help="do not use the boxes of a COCO file")
    add("--trust-pictures", action="store_true", help="do not try to decode every picture first")
    add("--val-tail", type=float, help="this fraction of the pictures of each source, the last by name, is val")
    add("--split-files", type=Path, help="folder of train.txt, val.txt, test.txt: a picture's name a line")
    return parser


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError or FileNotFoundError for options that make no sense."""
    one_of(opt, format=READERS, order=POINT_ORDERS)
    if not opt.images.is_dir():
        raise FileNotFoundError(f"--images: no folder at {opt.images}")
    if not opt.annotations.exists():
        raise FileNotFoundError(f"--annotations: nothing at {opt.annotations}")
    if opt.annotations.is_dir() != (opt.format in FOLDER_FORMATS):
        wanted = "a folder" if opt.format in FOLDER_FORMATS else "a file"
        raise ValueError(f"--annotations {opt.annotations}: --format {opt.format} needs {wanted}")
    if opt.val_tail is not None and not 0 < opt.val_tail < 1:
        raise ValueError(f"--val-tail {opt.val_tail} is not between 0 and 1")
    if opt.val_tail is not None and opt.split_files:
        raise ValueError("--val-tail and --split-files exclude each other")


def make(opt: argparse.Namespace) -> None:
    """Read, check, split, then bring the pictures and the file to their place."""
    data = collect(adjusted(face, opt) for face in READERS[opt.format](opt))
    if not len(data):
        raise ValueError(f"{opt.annotations} holds no annotated face")
    names = [path.relative_to(opt.images).as_posix() for path in data.images]
    split = choose_split(opt, data, names)
    if not opt.trust_pictures:
        check_pictures(sorted(set(data.images)))
    opt.out.mkdir(parents=True, exist_ok=True)
    place_pictures(opt, sorted(set(names)))
    write_h5(opt.out / FILE_NAME, data, opt.images, split)
    print(f"{opt.out / FILE_NAME}: {len(data)} faces in {len(set(names))} pictures, {describe(split)}")
    print(f"annotated points a face: {(data.visible > 0).sum(1).mean():.1f} of {NUM_POINTS}")
    for listing in (opt.out / f"{name}.txt" for name in SPLITS):
        if listing.is_file():
            print(f"note: {listing} is there, and decides this split when the file is read")


def adjusted(face: Face, opt: argparse.Namespace) -> Face:
    """The face with --shift and --ibug-to-lapa applied; of 68 points, those between them come from curves first.

    A point that is made of one that is not annotated is not annotated either.
    """
    known = face.visible > 0
    face.points = face.points + np.float32(opt.shift) * known[:, None]
    if opt.ibug_to_lapa:
        if set(np.flatnonzero(known)) <= set(IBUG68):
            points, _ = complete_by_geometry(np.where(known[:, None], face.points, np.nan)[list(IBUG68)])
            drawn = np.isfinite(points).all(axis=1) & ~known
            face.points, face.visible = np.nan_to_num(points), np.where(drawn, 2, face.visible)
        lacking = (np.abs(LAPA_FROM_IBUG) > NO_WEIGHT) @ (face.visible == 0)
        face.points, face.visible = LAPA_FROM_IBUG @ face.points, np.where(lacking, 0, face.visible)
    return face


def describe(split: np.ndarray | None) -> str:
    if split is None:
        return "to be split by the published proportions"
    return ", ".join(f"{(split == name).sum()} {name}" for name in SPLITS)


# Readers: options -> faces


def read_lapa(opt: argparse.Namespace) -> Iterator[Face]:
    for face in lapa.read_folder(opt.annotations, opt.images):
        face.points = face.points[list(POINT_ORDERS[opt.order])]
        yield face


def read_pts(opt: argparse.Namespace) -> Iterator[Face]:
    for path, picture in lapa.pair_files(opt.annotations, opt.images, ".pts"):
        points = w300.read_pts(path, POINT_COUNTS, opt.pts_base)
        yield Face(picture, *to_106(points, np.full(len(points), 2), opt.order), where=str(path))


def to_106(points: np.ndarray, visible: np.ndarray, order: str) -> tuple[np.ndarray, np.ndarray]:
    """68 points, or 106 in a named order, (K, 2) and (K,) -> (106, 2) and (106,) in ours."""
    if len(points) == NUM_POINTS:
        order = list(POINT_ORDERS[order])
        return points[order], visible[order]
    return w300.from_68(points, visible)


def read_csv(opt: argparse.Namespace) -> Iterator[Face]:
    path = opt.annotations
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        columns = CsvColumns(path, header)
        for row in rows:
            if row:
                yield columns.face(row, f"{path}, row {rows.line_num}", opt)


class CsvColumns:
    """What each column of a CSV file is, by its header."""

    def __init__(self, path: Path, header: list[str]):
        self.attributes = {
            name.removeprefix("attr:"): i for i, name in enumerate(header) if name == "source" or name[:5] == "attr:"
        }
        if "image" not in header:
            raise ValueError(f"{path}, row 1: no column `image`; expected image[,source][,attr:NAME...],x0,y0[,s0],...")
        self.image = header.index("image")
        self.numbers = [i for i in range(len(header)) if i != self.image and i not in self.attributes.values()]
        self.names = [header[i] for i in self.numbers]
        self.letters = "xys" if "s0" in header else "xy"
        self.count = len(self.names) // len(self.letters)
        expected = [f"{letter}{i}" for i in range(self.count) for letter in self.letters]
        if self.names != expected:
            odd = next((a for a, b in zip(self.names, expected) if a != b), self.names[-1] if self.names else "nothing")
            raise ValueError(f"{path}, row 1: column {odd!r} is out of place; expected x0,y0[,s0],x1,y1[,s1],...")
        if self.count not in POINT_COUNTS:
            raise ValueError(f"{path}, row 1: columns for {self.count} points, expected {_or(POINT_COUNTS)}")

    def face(self, row: list[str], where: str, opt: argparse.Namespace) -> Face:
        others = 1 + len(self.attributes)
        if len(row) != others + len(self.names):
            raise ValueError(f"{where}: {len(row) - others} numbers, expected {len(self.names)}")
        values = self._floats([row[i] for i in self.numbers], where).reshape(self.count, len(self.letters))
        known = ~np.isnan(values[:, :2]).any(axis=1)
        if self.letters == "xys":
            if not np.isin(values[:, 2], POINT_SOURCES).all():
                bad = int((~np.isin(values[:, 2], POINT_SOURCES)).argmax())
                raise ValueError(f"{where}: s{bad} is {values[bad, 2]:g}, expected {_or(POINT_SOURCES)}")
            known &= values[:, 2] > 0
        points, visible = to_106(np.where(known[:, None], values[:, :2], 0), 2 * known, opt.order)
        attributes = {name: row[i] for name, i in self.attributes.items()}
        return Face(opt.images / row[self.image], points, visible, where, attributes=attributes)

    def _floats(self, cells: list[str], where: str) -> np.ndarray:
        """Numbers of a row; an empty cell is nan: not annotated."""
        try:
            return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
        except ValueError:
            bad = next(i for i, cell in enumerate(cells) if cell.strip() and not _is_number(cell))
            raise ValueError(f"{where}: {self.names[bad]} is {cells[bad]!r}, not a number") from None


def read_coco(opt: argparse.Namespace) -> Iterator[Face]:
    path = opt.annotations
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        file_of = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = list(content["annotations"])
        names_of = {category["id"]: category.get("keypoints") for category in content.get("categories", [])}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not COCO-style: {error!r} in `images` or `annotations`") from error
    for number, annotation in enumerate(annotations):
        names = names_of.get(annotation.get("category_id"))
        face = coco_face(annotation, file_of, names, f"{path}, annotation {number}", opt)
        if face.visible.any():  # COCO lists boxes without points too
            yield face


def coco_face(annotation: dict, file_of: dict, names: list | None, where: str, opt: argparse.Namespace) -> Face:
    """names: what the file calls the points; those of landmarks.py say where each belongs, in whatever order."""
    missing = {"image_id", "keypoints"} - set(annotation)
    if missing:
        raise ValueError(f"{where}: no {' and no '.join(sorted(missing))}")
    if annotation["image_id"] not in file_of:
        raise ValueError(f"{where}: image_id {annotation['image_id']!r} is not in `images`")
    numbers = annotation["keypoints"]
    if len(numbers) not in [3 * count for count in POINT_COUNTS]:
        raise ValueError(f"{where}: {len(numbers)} numbers in keypoints, expected 3 x {_or(POINT_COUNTS)}")
    keypoints = _finite(numbers, f"{where}, keypoints").reshape(-1, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise ValueError(f"{where}: a keypoint's v is neither 0, 1 nor 2")
    if names and len(names) == len(keypoints) and set(names) == set(NAMES):
        keypoints = keypoints[[names.index(name) for name in NAMES]]
    points, visible = to_106(keypoints[:, :2], keypoints[:, 2], opt.order)
    box = annotation.get("bbox")
    if box is None or opt.boxes_from_points:
        return Face(opt.images / file_of[annotation["image_id"]], points, visible, where)
    if len(box) != 4:
        raise ValueError(f"{where}: bbox has {len(box)} numbers, expected 4: x, y, width, height")
    x, y, width, height = _finite(box, f"{where}, bbox")
    box = np.array([x, y, x + width, y + height])
    return Face(opt.images / file_of[annotation["image_id"]], points, visible, where, box)


def _finite(numbers: list, where: str) -> np.ndarray:
    for value in numbers:
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"{where}: {value!r} is not a finite number")
    return np.array(numbers, np.float64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _or(choices: tuple[int, ...]) -> str:
    return " or ".join(map(str, choices))


FOLDER_FORMATS = ("lapa", "pts")
READERS = {"lapa": read_lapa, "pts": read_pts, "csv": read_csv, "coco": read_coco}


# Splits


def choose_split(opt: argparse.Namespace, data: Annotations, names: list[str]) -> np.ndarray | None:
    """The split of each face, (N,) strings; None leaves it to the published proportions."""
    if opt.split_files:
        return split_by_files(opt.split_files, names)
    if opt.val_tail is not None:
        return split_by_tail(opt.val_tail, data.attributes.get("source", np.full(len(names), "")), names)
    return None


def split_by_tail(fraction: float, sources: np.ndarray, names: list[str]) -> np.ndarray:
    """The last fraction of each source's pictures, by name, is val: all faces of a picture go the same way."""
    split = np.full(len(names), "train", dtype="<U5")
    for source in np.unique(sources):
        rows = np.flatnonzero(sources == source)
        pictures = sorted({names[row] for row in rows})
        held_out = set(pictures[len(pictures) - math.floor(fraction * len(pictures) + 0.5) :])
        split[[row for row in rows if names[row] in held_out]] = "val"
    return split


def split_by_files(folder: Path, names: list[str]) -> np.ndarray:
    """By FOLDER/{train,val,test}.txt; a picture that none of them names belongs to no split."""
    listings = {name: folder / f"{name}.txt" for name in SPLITS if (folder / f"{name}.txt").is_file()}
    if not listings:
        raise FileNotFoundError(f"--split-files: no train.txt, val.txt or test.txt in {folder}")
    split_of: dict[str, str] = {}
    known = set(names)
    for split, listing in listings.items():
        for number, line in enumerate(listing.read_text(encoding="utf-8-sig").splitlines(), 1):
            name = line.strip()
            if name and name not in known:
                raise ValueError(f"{listing}, line {number}: {name!r} is not in the annotations")
            if name and split_of.setdefault(name, split) != split:
                raise ValueError(f"{listing}, line {number}: {name!r} is in {split_of[name]}.txt too")
    return np.array([split_of.get(name, "") for name in names])


# Pictures


def check_pictures(paths: list[Path]) -> None:
    """Decode every picture: better an error now than hours into a training.

    Raises:
        ValueError: names those that cannot be read, up to MAX_NAMED.
    """
    with ThreadPoolExecutor() as pool:  # decoding does not hold the interpreter's lock
        reasons = list(tqdm(pool.map(_why_unreadable, paths), "pictures", len(paths), disable=None, leave=False))
    broken = [reason for reason in reasons if reason]
    if broken:
        raise ValueError(f"unreadable pictures, {len(broken)} in all: {'; '.join(broken[:MAX_NAMED])}")


def _why_unreadable(path: Path) -> str | None:
    try:
        load_image(path)
    except UnreadableImage as error:
        return str(error)
    return None


def place_pictures(opt: argparse.Namespace, names: list[str]) -> None:
    """Make OUT/images a link to --images, or a copy of the named pictures where links are unwanted or impossible."""
    source, target = opt.images.resolve(), opt.out / "images"
    if target.resolve() == source and not (opt.copy and target.is_symlink()):
        return
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        raise ValueError(f"{target} holds other pictures; remove it, or choose another --out")
    if not opt.copy:
        try:
            target.symlink_to(source, target_is_directory=True)
            return
        except (OSError, NotImplementedError) as error:
            print(f"no symbolic link to the pictures ({error}): copying them")
    copying = opt.out / "images.tmp"
    shutil.rmtree(copying, ignore_errors=True)
    for name in names:
        (copying / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, copying / name)
    copying.rename(target)


if __name__ == "__main__":
    main()
