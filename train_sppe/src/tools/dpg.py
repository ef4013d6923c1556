"""Learn how a face detector's boxes differ from the true ones, for stage 2; from train_sppe/src:

    python tools/dpg.py fit --dataRoot ../data/dt_fac_106_ldmks --out ../data/dpg.json
    python train.py ... --addDPG --dpg ../data/dpg.json

Runs the detector on the training pictures and on their mirror images, clusters the faces by their pose, and writes
the mean and covariance of the four edges' errors in each cluster (Fang et al., "RMPE", ICCV 2017, section 3.4). A face
whose best box overlaps the true one by less than MIN_IOU was not found: it teaches nothing.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
sys.path.append(str(Path(__file__).resolve().parents[3]))

import json

import numpy as np
import torch
from tqdm import tqdm

from SPPE.src.landmarks import NUM_POINTS
from SPPE.src.utils.imread import load_image
from SPPE.src.utils.pose import mirror_points
from utils.command import complaints
from utils.dataset import READERS, build_dataset
from utils.dpg import fit
from yolo.bbox import iou_matrix
from yolo.detector import FACE_CFG, FACE_WEIGHTS, Detector

MIN_IOU = 0.4
BATCH = 8  # pictures, and their mirror images, a detector step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("command", choices=["fit"])
    add("--dataset", default="dt_fac_106_ldmks", help=f"one of {', '.join(READERS)}")
    add("--dataRoot", type=Path, required=True, help="folder of the data set; its train split is used")
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--cfg", type=Path, default=FACE_CFG, help="of the detector")
    add("--weights", type=Path, default=FACE_WEIGHTS, help="of the detector")
    add("--clusters", type=int, default=8, help="of poses")
    add("--seed", type=int, default=0)
    opt = parser.parse_args(argv)
    with complaints("dpg.py"):
        run(opt)


def run(opt: argparse.Namespace) -> None:
    data = build_dataset(opt.dataset, opt.dataRoot, "train")
    detector = Detector(opt.cfg, opt.weights)
    rows = np.flatnonzero((data.visible > 0).all(axis=1))
    if not len(rows):
        raise ValueError(f"{opt.dataRoot} has no face with all {NUM_POINTS} points; tools/complete106.py adds them")
    faces, boxes, found = [], [], []
    for chunk in tqdm(np.array_split(rows, -(-len(rows) // BATCH)), unit="batch", disable=None):
        images = [load_image(data.images[row]) for row in chunk]
        widths = [image.shape[1] for image in images]
        points = [*data.points[chunk], *map(mirror_points, data.points[chunk], widths)]
        true = [*data.boxes[chunk], *map(mirror_box, data.boxes[chunk], widths)]
        images += [np.ascontiguousarray(image[:, ::-1]) for image in images]
        for own, box, detections in zip(points, true, detector(images)):
            best = best_box(detections, box)
            if best is not None:
                faces.append(own)
                boxes.append(box)
                found.append(best)
    missed = 2 * len(rows) - len(faces)
    if len(faces) < 10 * opt.clusters:
        raise ValueError(f"{len(faces)} faces with all {NUM_POINTS} points found: too few for {opt.clusters} clusters")
    learnt = fit(*map(np.array, (faces, boxes, found)), opt.clusters, opt.seed)
    opt.out.parent.mkdir(parents=True, exist_ok=True)
    opt.out.write_text(json.dumps(learnt), encoding="utf-8")
    print(
        f"{opt.out}: {len(faces)} boxes, {missed} faces not found; mean and deviation of x1, y1, x2, y2 by cluster, %"
    )
    for count, mean, covariance in zip(*(learnt[key] for key in ("faces", "means", "covariances"))):
        deviation = np.sqrt(np.diag(covariance))
        print(f"{count:6}  " + "  ".join(f"{100 * m:6.1f} +- {100 * d:4.1f}" for m, d in zip(mean, deviation)))


def mirror_box(box: np.ndarray, width: int) -> np.ndarray:
    """A box (4,) of a picture -> the same in its mirror image."""
    x1, y1, x2, y2 = box
    return np.array([width - 1 - x2, y1, width - 1 - x1, y2], np.float32)


def best_box(found: np.ndarray, true: np.ndarray) -> np.ndarray | None:
    """Of detections (K, 5) the box (4,) that overlaps the true one (4,) most; None where none does enough."""
    overlap = iou_matrix(torch.from_numpy(found), torch.from_numpy(true)[None])[:, 0]
    return found[int(overlap.argmax()), :4] if len(found) and overlap.max() >= MIN_IOU else None


if __name__ == "__main__":
    main()
