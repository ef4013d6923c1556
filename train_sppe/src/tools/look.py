"""Draw faces with all their points on one sheet, to look at; from train_sppe/src:

    python tools/look.py --images ../../examples/imgs --out look.jpg
    python tools/look.py --dataRoot ../data/synth106 --split test --count 50 --out look.jpg
    python tools/look.py --dataRoot ../data/faces68 --names ../exp/evaluation/lite/failures.txt --truth --out failed.jpg

With --images every picture of the folder goes through detector and landmarks as in the demo, and each face becomes a
tile. Else the faces are a data set's, cut by their annotated boxes (--truth: beside each its labels): those that
--names lists (utils/lists.py), or --count of them, chosen evenly over the set. Sure points are bright, doubtful ones
dark (--plain: all alike).
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))  # train_sppe/src, before any other package named utils
sys.path.append(str(SOURCE.parents[1]))  # the repository root

from evaluation import add_data, add_speed, predict, read_data, speed
from fn import vis_frame
from predictor import DEFAULT_SPPE, Face, FacePredictor, find_weights
from SPPE.src.landmarks import COLOURS, NUM_POINTS, PART_OF
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.img import apply_affines
from SPPE.src.utils.imread import UnreadableImage, find_images, load_image
from utils.command import complaints, one_of
from utils.dataset.base import SPLITS, Annotations
from utils.lists import listed, names_of
from utils.sheet import contact_sheet, face_tile, write_picture

# Shown around the box, on each side, as a share of it.
MARGIN = 0.2

# A picture and its caption, which tells the mean of the points' scores.
Tile = tuple[np.ndarray, str]


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("look.py"):
        check(opt)
        tiles = tiles_of_folder(opt) if opt.images else tiles_of_data(opt)
        if not tiles:
            raise ValueError(f"no face in {opt.images}")
        columns = opt.columns + opt.columns % 2 if opt.truth else opt.columns
        write_picture(opt.out, contact_sheet(*(list(kind) for kind in zip(*tiles)), columns))
    print(f"{opt.out}: {len(tiles)} pictures")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, help="folder of pictures for the whole pipeline, instead of a data set")
    add_data(parser)
    add("--names", type=Path, help="list of the data set's faces to draw, such as an evaluation's failures.txt")
    add("--count", type=int, default=48, help="at most so many faces")
    add("--truth", action="store_true", help="each face a second time with its labels")
    add("--weights", default=DEFAULT_SPPE, help="a name in models/sppe or a file")
    add("--side", type=int, default=256, help="of a tile, pixels")
    add("--columns", type=int, default=8)
    add("--plain", action="store_true", help="doubtful points are as bright as sure ones")
    add("--out", type=Path, default=Path("look.jpg"), help="picture to write, .jpg or .png")
    add_speed(parser)
    return parser


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError naming the first option that makes no sense."""
    one_of(opt, split=SPLITS)
    if opt.images and (opt.truth or opt.names):
        raise ValueError("--truth and --names are of a data set, not of --images")
    for name in ("count", "side", "columns", "batch"):
        if getattr(opt, name) <= 0:
            raise ValueError(f"--{name} {getattr(opt, name)} must be positive")


def tiles_of_folder(opt: argparse.Namespace) -> list[Tile]:
    """A tile for each face that the pipeline finds, at most --count; a picture that cannot be read is named."""
    how = {name: getattr(opt, name) for name in ("device", "precision", "runtime")}
    predictor = FacePredictor(opt.weights, nClasses=NUM_POINTS, **how)
    tiles = []
    for name in tqdm(list(find_images(opt.images)), "pictures", disable=None, leave=False):
        if len(tiles) >= opt.count:
            break
        try:
            image = load_image(opt.images / name)
        except UnreadableImage as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for face in predictor(image):
            caption = f"{name} {face.confidence.mean():.2f}"
            tiles.append((draw(image, face, opt), caption))
    return tiles[: opt.count]


def tiles_of_data(opt: argparse.Namespace) -> list[Tile]:
    """A tile (two with --truth) for each chosen face of the data set."""
    data, root = read_data(opt)
    rows = np.flatnonzero(listed(data, root, opt.names)) if opt.names else np.arange(len(data))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(opt.count, len(rows))).round().astype(int))]
    data = data.take(rows)
    estimator = Estimator(find_weights(opt.weights, WEIGHTS_FOLDER, ".pth"), NUM_POINTS, **speed(opt))
    points, scores = predict(estimator, data, opt)
    tiles = []
    for i, name in enumerate(names_of(data, root)):
        image = load_image(data.images[i])
        face = Face(data.boxes[i], 1.0, points[i], scores[i], pose_score=0.0, hollow=estimator.hollow)
        tiles.append((draw(image, face, opt), f"{name} {scores[i].mean():.2f}"))
        if opt.truth:
            tiles.append((draw_labels(image, data, i, opt.side), "labels (dark: hidden)"))
    return tiles


def draw(image: np.ndarray, face: Face, opt: argparse.Namespace) -> np.ndarray:
    """The square around a face of an image (H, W, 3) uint8 RGB, with its points and lines: (side, side, 3)."""
    tile, affine = face_tile(image, face.box, opt.side, MARGIN)
    points = apply_affines(affine, face.landmarks.astype(np.float64))
    drawn = vis_frame(tile, [replace(face, landmarks=points)])
    if not opt.plain:
        shade = np.clip(face.confidence / max(float(np.quantile(face.confidence, 0.9)), 1e-6), 0, 1)
        for (x, y), light, part in zip(np.rint(points).astype(int).tolist(), shade, PART_OF):
            colour = tuple(int(light**2 * c) for c in COLOURS[part])
            cv2.circle(drawn, (x, y), 2, colour, -1, cv2.LINE_AA)
    return drawn


def draw_labels(image: np.ndarray, data: Annotations, row: int, side: int) -> np.ndarray:
    """The same square with the annotated points only: those in sight bright, hidden ones dark."""
    tile, affine = face_tile(image, data.boxes[row], side, MARGIN)
    points = apply_affines(affine, data.points[row].astype(np.float64))
    for i in np.flatnonzero(data.visible[row]):
        colour = tuple(c if data.visible[row, i] == 2 else c // 3 for c in COLOURS[PART_OF[i]])
        cv2.circle(tile, tuple(np.rint(points[i]).astype(int).tolist()), 2, colour, -1, cv2.LINE_AA)
    return tile


if __name__ == "__main__":
    main()
