"""How good a face detector is: average precision, recall at its threshold, faces missed on portraits.

    python -m yolo.evaluate --scenes DIR --labels labels.json --crops DIR --landmarks landmarks68.csv [--weights FILE]
    [--inp_dim 640] [--sppe FILE] [--runtime openvino]

Measured on the validation parts alone (yolo.dataset.split). The labels of the scenes are those of yolo.label: an
ignored box neither counts as a miss nor as a false alarm. With --sppe the landmark
network has its say, as in the pipeline, which then merges boxes of one face (pose NMS; not here).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from runtime import load_runtime
from SPPE.src.main_fast_inference import Estimator
from SPPE.src.utils.confidence import face_score

from .bbox import coverage_matrix, iou_matrix
from .dataset import load_crops, load_scenes, split
from .detector import FACE_CFG, FACE_CONF, FACE_NMS, FACE_WEIGHTS, PROPOSAL_CONF, Detector
from .preprocess import GREY

# A box is right from this IoU on, as in PASCAL VOC and WIDER FACE.
RIGHT_IOU = 0.5
# Faces whose longer side is shorter than this, in pixels of the photograph, are not counted.
MIN_FACE = 16
# For the curve everything down to here is collected.
CURVE_CONF = 0.01
# A portrait: the crop (1.9 times the face) in the middle of a frame this many times as wide.
PORTRAIT_FRAME = 1.5


def match(found, boxes, ignore, min_size=MIN_FACE):
    """One picture's detections (K, 5), by falling score, against its faces (N, 4) and ignored boxes (M, 4).

    -> (outcome (K,) int8: 1 right, 0 false, -1 not counted; number of faces that count). Each face is given once, to
    the best detection over the bar; what finds an ignored or too small face, or is too small itself, is not counted.
    """
    found, boxes, ignore = (torch.as_tensor(b, dtype=torch.float32) for b in (found, boxes, ignore))
    counts = (boxes[:, 2:] - boxes[:, :2]).amax(1) >= min_size
    spared = (found[:, 2:4] - found[:, :2]).amax(1) < min_size
    spared |= (coverage_matrix(found, ignore) >= RIGHT_IOU).any(1)
    iou = iou_matrix(found, boxes)
    outcome = np.zeros(len(found), np.int8)
    free = torch.ones(len(boxes), dtype=torch.bool)
    for k in range(len(found)):
        candidates = torch.where(free, iou[k], -1.0)
        best = int(candidates.argmax()) if len(boxes) else -1
        if best >= 0 and candidates[best] >= RIGHT_IOU:
            free[best] = False
            outcome[k] = 1 if counts[best] else -1
        elif spared[k]:
            outcome[k] = -1
    return outcome, int(counts.sum())


def precision_recall(pictures):
    """A list of (scores (K,), outcome (K,), faces) -> (scores, precision, recall), each one value a counted
    detection.
    """
    scores = np.concatenate([p[0] for p in pictures])
    outcome = np.concatenate([p[1] for p in pictures])
    faces = max(1, sum(p[2] for p in pictures))
    order = np.argsort(-scores[outcome >= 0], kind="stable")
    scores, right = scores[outcome >= 0][order], outcome[outcome >= 0][order]
    hits = np.cumsum(right)
    return scores, hits / np.arange(1, len(right) + 1), hits / faces


def average_precision(precision, recall):
    """The area under the precision-recall curve, precision made to fall (PASCAL VOC 2010)."""
    if len(recall) == 0:
        return 0.0
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.concatenate(([0.0], recall))) * falling))


def detect(detector, images, batch=8):
    """A list of images -> a list of (K, 5) arrays, a few at a time."""
    return [found for first in range(0, len(images), batch) for found in detector(images[first : first + batch])]


def evaluate_scenes(detector, samples, conf):
    """-> {"ap", "recall", "precision", "faces", "photographs"}; recall and precision at the threshold `conf`."""
    pictures = []
    for sample, found in zip(samples, detect(detector, [s.image for s in samples])):
        outcome, faces = match(found, sample.boxes, sample.ignore)
        pictures.append((found[:, 4], outcome, faces))
    scores, precision, recall = precision_recall(pictures)
    at = int((scores >= conf).sum()) - 1
    return {
        "ap": round(average_precision(precision, recall), 4),
        "recall": round(float(recall[at]), 4) if at >= 0 else 0.0,
        "precision": round(float(precision[at]), 4) if at >= 0 else 0.0,
        "faces": sum(p[2] for p in pictures),
        "photographs": len(samples),
    }


class Judged:
    """A detector whose scores are both networks' (`face_score`): called with images, as it is.

    estimator: SPPE.src.main_fast_inference.Estimator of landmark weights.
    """

    def __init__(self, detector, estimator):
        self.detector, self.estimator, self.inp_dim = detector, estimator, detector.inp_dim

    def __call__(self, images):
        return [self.judge(image, found) for image, found in zip(images, self.detector(images))]

    def judge(self, image, found):
        """Detections (K, 5) of an image -> those that the pipeline judges, with the new scores, by falling score."""
        found = found[found[:, 4] >= PROPOSAL_CONF]
        _, peaks = self.estimator(*self.estimator.crop(image, found[:, :4]))
        scores = face_score(found[:, 4], peaks)
        order = np.argsort(-scores)
        return np.concatenate([found[order, :4], scores[order, None]], axis=1).astype(np.float32)


def portrait(sample):
    """A face crop in the middle of a wider grey frame -> (image, box (4,) of the crop's own face)."""
    height, width = sample.image.shape[:2]
    side = int(max(height, width) * PORTRAIT_FRAME)
    left, top = (side - width) // 2, (side - height) // 2
    frame = np.full((side, side, 3), GREY, np.uint8)
    frame[top : top + height, left : left + width] = sample.image
    return frame, sample.boxes[0] + np.array([left, top, left, top], np.float32)


def evaluate_portraits(detector, samples, conf):
    """-> {"portraits", "missed": names, "iou": the median's, "offsets": mean and deviation of the found box's four
    sides}.

    A face is missed where no box of `conf` or more overlaps its box by RIGHT_IOU. Offsets are (found - true) for x1,
    y1, x2, y2 in parts of the true box's width and height.
    """
    frames, truth = zip(*(portrait(sample) for sample in samples))
    missed, overlaps, offsets = [], [], []
    for sample, box, found in zip(samples, truth, detect(detector, list(frames))):
        found = torch.from_numpy(found[found[:, 4] >= conf])
        iou = iou_matrix(found, torch.from_numpy(box)[None])[:, 0]
        if len(iou) == 0 or iou.max() < RIGHT_IOU:
            missed.append(sample.name)
            continue
        overlaps.append(float(iou.max()))
        size = np.tile(box[2:] - box[:2], 2)
        offsets.append((found[iou.argmax(), :4].numpy() - box) / size)
    return {
        "portraits": len(samples),
        "missed": missed,
        "iou": round(float(np.median(overlaps)), 4) if overlaps else 0.0,
        "offsets": {
            "mean": np.mean(offsets, 0).round(4).tolist() if offsets else [],
            "deviation": np.std(offsets, 0).round(4).tolist() if offsets else [],
        },
    }


def existing(text):
    """An argument that names a file or folder which is there."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return Path(text)


def add_data_arguments(parser):
    parser.add_argument("--scenes", type=existing, required=True, help="folder of photographs")
    parser.add_argument("--labels", type=existing, required=True, help="what yolo.label wrote about them")
    parser.add_argument("--crops", type=existing, required=True, help="folder of face crops with landmarks")
    parser.add_argument("--landmarks", type=existing, required=True, help="CSV: image, source, x0, y0, ... x67, y67")
    parser.add_argument(
        "--crop_labels", type=existing, help="what yolo.label wrote about the crops (other faces in them)"
    )


def load_split(args):
    """The samples that the data arguments name -> as yolo.dataset.split.

    Raises:
        SystemExit: nothing is left to validate on.
    """
    scenes = load_scenes(args.scenes, args.labels)
    train, valid = split(scenes, load_crops(args.crops, args.landmarks, args.crop_labels))
    if not all(valid):
        raise SystemExit(
            f"{len(valid[0])} photographs of {args.scenes} and {len(valid[1])} crops of {args.crops} to validate on: "
            "a tenth is kept apart for that, so ten at least of each are needed"
        )
    return train, valid


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--cfg", type=existing, default=FACE_CFG)
    parser.add_argument("--weights", type=existing, default=FACE_WEIGHTS)
    parser.add_argument("--inp_dim", type=int, help="side of the network's input; the cfg's own where not given")
    parser.add_argument("--sppe", type=existing, help="landmark weights that judge too")
    parser.add_argument("--conf", type=float, help="threshold of recall, precision and misses; default: the weights'")
    parser.add_argument("--nms", type=float, default=FACE_NMS)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16, fp16 or int8")
    parser.add_argument("--runtime", default="pytorch", help="pytorch, onnx or openvino (doc/export.md)")
    args = parser.parse_args()
    try:
        runtime = load_runtime(args.runtime, args.precision, args.device)
        how = {"device": args.device, "precision": args.precision, "runtime": runtime}
        detector = Detector(args.cfg, args.weights, conf=CURVE_CONF, nms=args.nms, inp_dim=args.inp_dim, **how)
        estimator = Estimator(args.sppe, **how) if args.sppe else None
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    conf = args.conf
    if estimator:
        detector = Judged(detector, estimator)
        conf = estimator.meta.get("face_score") if conf is None else conf
        if conf is None:
            parser.error(f"{args.sppe} has no face_score: it judges no faces; say --conf (tools/release.py gives one)")
    conf = FACE_CONF if conf is None else conf
    try:
        _, (scenes, crops) = load_split(args)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    figures = {"inp_dim": detector.inp_dim, "conf": conf, **evaluate_scenes(detector, scenes, conf)}
    print(json.dumps({**figures, **evaluate_portraits(detector, crops, conf)}))


if __name__ == "__main__":
    main()
